"""Cases to report on: findings made up here, with everything that a report may have to show."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import cv2
import numpy as np

from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    Contribution,
    Curve,
    DetectorOutcome,
    DetectorState,
    ErrorRates,
    Evidence,
    Exhibit,
    ExhibitKind,
    Gap,
    Label,
    Look,
    Manifest,
    ManifestDetector,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Range,
    Reason,
    Share,
    Thresholds,
    Verdict,
    Window,
)
from clipwarden.shared.ids import new_id
from clipwarden.shared.report.case import Case, Opinion, Passage
from clipwarden.shared.series import Series

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
WEIGHTS = f"sha256:{'1' * 64}"
MANIFEST = Manifest(
    detectors=(
        *(
            ManifestDetector(name=name, version="1", branch=branch, state=DetectorState.READY, weights=WEIGHTS)
            for name, branch in (
                ("forensic_mlp", Branch.VISUAL),
                ("cqcc_cnn", Branch.AUDIO),
                ("av_sync", Branch.LIPSYNC),
            )
        ),
        ManifestDetector(name="clip_adapter", version="1", branch=Branch.CLIP, state=DetectorState.NO_WEIGHTS),
    ),
    faces="mtcnn",
    fusion=f"sha256:{'2' * 64}",
)


def picture(seed: int, suffix: str = ".jpg", side: int = 96) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 30, (side, side, 3))
    pixels = np.clip(noise + np.linspace(40, 220, side)[:, None, None], 0, 255).astype(np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def probe(duration_s: float = 8.0) -> MediaProbe:
    return MediaProbe(
        kind=MediaKind.VIDEO,
        container="mov",
        duration_s=duration_s,
        width=1280,
        height=720,
        fps=25.0,
        frames=round(25 * duration_s),
        has_video=True,
        has_audio=True,
        video_codec="h264",
        audio_codec="aac",
        sample_rate_hz=48_000,
        channels=2,
        size_bytes=1_048_576,
    )


class Files:
    """Evidence in memory, by branch, detector and name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], bytes] = {}

    def fetch(self, result: BranchResult, detector: str, name: str) -> bytes | None:
        return self.kept.get((result.branch, detector, name))


def outcome(
    files: Files,
    branch: Branch,
    detector: str,
    scores: np.ndarray,
    duration_s: float,
    pictures: Mapping[ExhibitKind, int],
    curves: tuple[Curve, ...] = (),
    gaps: tuple[Gap, ...] = (),
) -> DetectorOutcome:
    """A detector that gave each of equal stretches a score, and looked at the middle of each."""
    edges = np.linspace(0, duration_s, len(scores) + 1)
    windows = tuple(Window(start_s=a, end_s=b, score=s) for a, b, s in zip(edges[:-1], edges[1:], scores, strict=True))
    looks = tuple(
        Look(time_s=(w.start_s + w.end_s) / 2, frame=k, person=0, box=(10, 10, 90, 90), score=w.score)
        for k, w in enumerate(windows)
    )
    shown = []
    for kind, count in pictures.items():
        for k in range(count):
            name = f"{kind}-{k}{'.jpg' if kind is ExhibitKind.FACE else '.png'}"
            content = files.kept[branch, detector, name] = picture(k, name[-4:])
            time_s = looks[k].time_s
            shown.append(Exhibit(kind=kind, name=name, size_bytes=len(content), time_s=time_s))
    series = Series(detector=detector, version="1", windows=windows, gaps=gaps, looks=looks, curves=curves)
    content = files.kept[branch, detector, "series.json"] = series.model_dump_json().encode()
    shown.append(Exhibit(kind=ExhibitKind.SERIES, name="series.json", size_bytes=len(content)))
    evidence = Evidence(score=float(scores.mean()), features={}, windows=windows[:8], gaps=gaps, exhibits=tuple(shown))
    return DetectorOutcome(
        name=detector, version="1", weights=WEIGHTS, status=OutcomeStatus.OK, evidence=evidence, elapsed_ms=1234
    )


def share(count: int, clips: int) -> Share:
    return Share(count=count, clips=clips, low=max(count / clips - 0.04, 0), high=count / clips + 0.06)


RATES = ErrorRates(
    real_called_fake=share(13, 138),
    real_called_real=share(20, 138),
    fake_called_fake=share(46, 252),
    fake_called_real=share(25, 252),
    real_groups=56,
    fake_groups=76,
    text="Of 138 real clips held out of the fit, 13 (9%) were called fake as well.",
)


def verdict(label: Label = Label.FAKE, **changed: object) -> Verdict:
    parts = {Branch.VISUAL: ("forensic_mlp", 0.9), Branch.AUDIO: ("cqcc_cnn", -0.35), Branch.LIPSYNC: ("av_sync", 0.4)}
    total = -0.1 + sum(log_odds for _, log_odds in parts.values())
    said = {
        "label": label,
        "probability": 1 / (1 + math.exp(-total)),
        "policy": "balanced",
        "head": "forensic_mlp+cqcc_cnn+av_sync",
        "thresholds": Thresholds(real=0.4, fake=0.6),
        "error_rates": RATES,
        "coverage": 1.0,
        "degraded": False,
        "baseline_logit": -0.1,
        "contributions": tuple(
            Contribution(branch=b, detector=name, log_odds=log_odds) for b, (name, log_odds) in parts.items()
        ),
        "reasons": (Reason(code="leans_fake", text="forensic_mlp (visual) leans to fake: +0.90 log-odds."),),
        "ranges": (Range(start_s=4.0, end_s=5.5, branches=(Branch.VISUAL, Branch.LIPSYNC), peak=0.93),),
    }
    return Verdict(**(said | changed))


def case(filename: str = "interview.mp4", duration_s: float = 8.0, looks: int = 16, **changed: object) -> Case:
    """Three branches with findings, one that has no weights."""
    files, rng = Files(), np.random.default_rng(7)
    wave = 0.5 + 0.45 * np.sin(np.linspace(0, 6, looks))
    offsets = np.linspace(-0.5, 0.5, 33)
    curve = Curve(
        name="in_sync_by_offset", axis="offset_s", x=offsets.tolist(), y=np.exp(-60 * (offsets - 0.12) ** 2).tolist()
    )
    gap = Gap(start_s=0.6 * duration_s, end_s=0.8 * duration_s, code="no_speech")
    faces = {ExhibitKind.FACE: 3, ExhibitKind.HEATMAP: 1}
    found = (
        outcome(files, Branch.VISUAL, "forensic_mlp", wave, duration_s, faces),
        outcome(
            files, Branch.AUDIO, "cqcc_cnn", rng.uniform(0.1, 0.4, looks), duration_s, {ExhibitKind.SPECTROGRAM: 1}
        ),
        outcome(files, Branch.LIPSYNC, "av_sync", wave[::-1], duration_s, {ExhibitKind.MOUTH: 2}, (curve,), (gap,)),
    )
    results = tuple(
        BranchResult(branch=b, status=OutcomeStatus.OK, detectors=(o,), elapsed_ms=2000)
        for b, o in zip((Branch.VISUAL, Branch.AUDIO, Branch.LIPSYNC), found, strict=True)
    )
    skipped = BranchResult(
        branch=Branch.CLIP, status=OutcomeStatus.SKIPPED, code="no_weights", message="Nothing of this is installed."
    )
    said = {
        "filename": filename,
        "size_bytes": 1_048_576,
        "sha256": "c3" * 32,
        "probe": probe(duration_s),
        "results": (*results, skipped),
        "verdict": verdict(),
        "pipeline": f"sha256:{'a' * 64}",
        "manifest": MANIFEST,
        "fetch": files.fetch,
        "passage": Passage(new_id(), "done", None, AT, AT, tag="report-4711", metadata={"account": "a-17"}),
        "opinions": (Opinion("real", "false_positive", "The original is on the broadcaster's site.", AT),),
    }
    return Case(**(said | changed))
