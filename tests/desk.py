"""Visits to the page, and analyses with all that it can show, made without detectors."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, Route, expect

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    Contribution,
    Curve,
    DetectorOutcome,
    Evidence,
    Exhibit,
    ExhibitKind,
    Gap,
    Label,
    Look,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Range,
    Reason,
    Stage,
    Thresholds,
    Verdict,
    Window,
)
from clipwarden.shared.evidence import write_evidence
from clipwarden.shared.series import Series
from clipwarden.shared.store import Store
from tests.analyses import assess, claim, ingest

PATIENCE_MS = 60_000

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def visiting(browser: Browser, url: str, path: str = "/page/", **options: Any) -> Iterator[Page]:
    """A page in a fresh context. It may break no rule of its own policy, throw nothing, and ask nobody else."""
    settings: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **options}
    with browser.new_context(**settings) as context:
        wrong: list[str] = []
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
        page.on("request", lambda sent: None if sent.url.startswith((url, "blob:")) else wrong.append(sent.url))
        page.goto(url + path)
        yield page
        assert wrong == []


def shows(page: Page, text: str) -> None:
    expect(page.locator("body")).to_contain_text(text)


def until(page: Page, expression: str) -> None:
    """Wait until JavaScript comes true. Playwright's own way needs `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(50)


def problem(status: int, detail: str, retry_after: str | None = None) -> Callable[[Route], None]:
    """What the gateway answers with, word for word in its own form."""
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    body = json.dumps({"detail": detail, "status": status, "code": "x"})
    return lambda route: route.fulfill(status=status, headers=headers, body=body)


def picture(side: int = 64) -> bytes:
    """A JPEG that a browser can show."""
    ramp = np.tile(np.linspace(0, 255, side, dtype=np.uint8), (side, 1))
    done, content = cv2.imencode(".jpg", ramp)
    assert done
    return content.tobytes()


def clip_of(duration_s: float, kind: MediaKind = MediaKind.VIDEO, **more: Any) -> MediaProbe:
    facts: dict[str, Any] = {
        "kind": kind,
        "container": "matroska",
        "duration_s": duration_s,
        "width": 320,
        "height": 240,
        "fps": 25.0,
        "frames": round(duration_s * 25),
        "has_video": kind is not MediaKind.AUDIO,
        "has_audio": True,
        "size_bytes": 256_000,
    }
    return MediaProbe(**facts | more)


def begun(store: Store, analysis_id: UUID, probe: MediaProbe) -> None:
    """An analysis whose file was read; three branches have work, one has none."""
    run = (Branch.VISUAL, Branch.AUDIO, Branch.LIPSYNC)
    token = claim(store, analysis_id, Stage.INGEST)
    assert store.finish_ingest(analysis_id, token, probe, run, {Branch.CLIP: SkipCode.NO_WEIGHTS})


def examined(store: Store, blobs: BlobStore, analysis_id: UUID, probe: MediaProbe, windows: int = 8) -> None:
    """An analysis at its end: faces, a spectrogram, a sync curve, a gap, suspicious stretches, a fake verdict."""
    begun(store, analysis_id, probe)
    for branch, series, exhibits in _found(probe.duration_s, windows):
        token = claim(store, analysis_id, Stage(branch))
        files = {f"{series.detector}/series.json": series.model_dump_json().encode()}
        files |= {f"{series.detector}/{e.name}": picture() for e in exhibits if e.kind is not ExhibitKind.SERIES}
        folder = write_evidence(blobs, analysis_id, branch, token, files)
        evidence = Evidence(score=0.7, features={}, windows=series.windows[:8], exhibits=exhibits)
        outcome = DetectorOutcome(
            name=series.detector,
            version="1",
            weights=f"sha256:{'1' * 64}",
            status=OutcomeStatus.OK,
            evidence=evidence,
            elapsed_ms=700,
        )
        result = BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(outcome,), elapsed_ms=800)
        assert store.finish_branch(analysis_id, token, result.model_copy(update={"folder": folder}))
    assert store.fuse(analysis_id, lambda *_: judged(probe.duration_s))


def judged(duration_s: float = 2.0, label: Label = Label.FAKE) -> Verdict:
    shares = {Label.FAKE: (1.2, -0.3), Label.REAL: (-1.2, -0.3), Label.INCONCLUSIVE: (0.1, -0.2)}[label]
    return Verdict(
        label=label,
        probability=1 / (1 + math.exp(-(0.1 + sum(shares)))),
        policy="balanced",
        head="visual",
        thresholds=Thresholds(real=0.4, fake=0.6),
        coverage=1.0,
        degraded=False,
        baseline_logit=0.1,
        contributions=(
            Contribution(branch=Branch.VISUAL, detector="forensic_mlp", log_odds=shares[0]),
            Contribution(branch=Branch.AUDIO, detector="cqcc_cnn", log_odds=shares[1]),
        ),
        reasons=(Reason(code="leans_fake", text="forensic_mlp (visual) leans to fake: +1.20 log-odds."),),
        ranges=tuple(
            Range(start_s=part * duration_s, end_s=(part + 0.1) * duration_s, branches=(Branch.VISUAL,), peak=0.9)
            for part in (0.2, 0.6)
        ),
    )


def _found(duration_s: float, count: int) -> Iterator[tuple[Branch, Series, tuple[Exhibit, ...]]]:
    edges = [duration_s * k / count for k in range(count + 1)]
    windows = tuple(
        Window(start_s=a, end_s=b, score=0.5 + 0.45 * math.sin(k)) for k, (a, b) in enumerate(pairwise(edges))
    )
    looks = tuple(
        Look(time_s=w.start_s, frame=k, person=0, box=(60 + k % 40, 40, 180 + k % 40, 180), score=w.score)
        for k, w in enumerate(windows)
    )
    series = Exhibit(kind=ExhibitKind.SERIES, name="series.json", size_bytes=100)
    seen = [
        Exhibit(kind=kind, name=f"{kind}-0.jpg", size_bytes=100, time_s=0.3 * duration_s, box=(60, 40, 180, 180))
        for kind in (ExhibitKind.FACE, ExhibitKind.HEATMAP)
    ]
    heard = Exhibit(
        kind=ExhibitKind.SPECTROGRAM, name="spectrogram-0.jpg", size_bytes=100, time_s=0.0, end_s=duration_s
    )
    late_s = tuple(k / 10 for k in range(-10, 11))
    sync = Curve(
        name="in_sync_by_offset", axis="offset_s", x=late_s, y=tuple(math.exp(-((x - 0.2) ** 2)) for x in late_s)
    )
    gap = Gap(start_s=0.5 * duration_s, end_s=0.55 * duration_s, code=SkipCode.NO_SPEECH)
    made = {"version": "1", "windows": windows}
    yield Branch.VISUAL, Series(detector="forensic_mlp", looks=looks, curves=(), **made), (series, *seen)
    yield Branch.AUDIO, Series(detector="cqcc_cnn", looks=(), curves=(), gaps=(gap,), **made), (series, heard)
    yield Branch.LIPSYNC, Series(detector="av_sync", looks=(), curves=(sync,), **made), (series,)


def at(analysis_id: UUID) -> str:
    """The address of an analysis on the page."""
    return f"/page/#/analyses/{analysis_id}"


def decided(store: Store, blobs: BlobStore, analysis_id: UUID, label: Label) -> None:
    """An analysis at its end, with this label and little else."""
    ingest(store, analysis_id)
    assess(store, blobs, analysis_id)
    assert store.fuse(analysis_id, lambda *_: judged(label=label))
