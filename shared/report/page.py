"""The report as one HTML document: pictures inside it, nothing to load, no script."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from clipwarden.shared.contracts import Branch, DetectorOutcome, DetectorState, Verdict
from clipwarden.shared.hints import hints
from clipwarden.shared.report import charts, wording
from clipwarden.shared.report.case import Case
from clipwarden.shared.report.evidence import Key, album, judged, over_time
from clipwarden.shared.report.svg import clock, percent
from clipwarden.shared.series import Series

Row = tuple[str, str]
FAILED: Final = "; one of them failed"


def render(case: Case, now: datetime) -> str:
    """The document. Every word in it that is not ours is escaped, and shows what cannot be seen."""
    series = over_time(case)
    words, meaning = wording.headline(case)
    return _template().render(
        case=case,
        style=style(),
        policy=content_policy(),
        headline=words,
        headline_meaning=meaning,
        meaning=wording.meaning(case.verdict) if case.verdict else (),
        scale=_scale(case.verdict),
        balance=_balance(case.verdict),
        timelines=_timelines(case, series),
        pictures=album(case, series),
        weights=_weights(case.verdict),
        file=list(_file(case)),
        traces=hints(case.probe) if case.probe else (),
        made=list(_made(case, now)),
        absent=[d for d in case.manifest.detectors if d.state is not DetectorState.READY],
        metadata=list(_metadata(case)),
        wording=wording,
    )


def content_policy() -> str:
    """What the document may do, for its header: show its own pictures in its own style, and nothing else."""
    digest = b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def style() -> Markup:
    return Markup(files("clipwarden.shared.report").joinpath("report.css").read_text("utf-8"))  # noqa: S704 - our own


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda said: said if isinstance(said, Markup) else wording.plain(said),
    )
    environment.filters |= {"clock": clock, "percent": percent, "moment": moment}
    return environment.from_string(files("clipwarden.shared.report").joinpath("report.html").read_text("utf-8"))


def moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _scale(verdict: Verdict | None) -> Markup | None:
    if verdict is None or verdict.probability is None:
        return None
    return charts.scale(verdict.probability, verdict.thresholds)


def _balance(verdict: Verdict | None) -> Markup | None:
    """A bar a branch, the contributions of its detectors summed."""
    if verdict is None or verdict.baseline_logit is None:
        return None
    moved: dict[Branch, float] = {}
    for part in verdict.contributions:
        moved[part.branch] = moved.get(part.branch, 0.0) + part.log_odds
    steps = [charts.Step(wording.BRANCHES[branch], log_odds) for branch, log_odds in moved.items()]
    return charts.balance(verdict.baseline_logit, steps)


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the detectors of a branch said over time."""

    branch: Branch
    svg: Markup
    curves: tuple[Markup, ...]


def _timelines(case: Case, series: Mapping[Key, Series]) -> list[Timeline]:
    lasts_s = case.probe.duration_s if case.probe else 0.0
    lanes: dict[Branch, list[charts.Lane]] = {}
    curves: dict[Branch, list[Markup]] = {}
    for result, outcome in judged(case) if lasts_s else ():
        kept = series.get((result.branch, outcome.name))
        lanes.setdefault(result.branch, []).append(_lane(outcome, kept))
        drawn = (charts.curve(c) for c in (kept.curves if kept else ()) if len(c.x) > 1)
        curves.setdefault(result.branch, []).extend(drawn)
    ranges = case.verdict.ranges if case.verdict else ()
    return [
        Timeline(
            branch, charts.timeline(lasts_s, of, [r for r in ranges if branch in r.branches]), tuple(curves[branch])
        )
        for branch, of in lanes.items()
    ]


def _lane(outcome: DetectorOutcome, kept: Series | None) -> charts.Lane:
    """By the file that holds everything, else by what the row holds."""
    if kept is not None:
        return charts.Lane(outcome.name, kept.windows, kept.looks, kept.gaps)
    assert outcome.evidence is not None
    return charts.Lane(outcome.name, outcome.evidence.windows, (), outcome.evidence.gaps)


def _weights(verdict: Verdict | None) -> dict[Key, float]:
    """What each detector added to the log-odds of fake."""
    return {(c.branch, c.detector): c.log_odds for c in verdict.contributions} if verdict else {}


def _file(case: Case) -> Iterator[Row]:
    yield "Name", case.filename
    yield "Size", f"{case.size_bytes:,} bytes"
    yield "SHA-256", case.sha256 or "unknown"
    if case.probe is None:
        return
    seen = case.probe
    yield "Kind", f"{seen.kind} ({seen.container})"
    if seen.duration_s:
        yield "Length", clock(seen.duration_s)
    if seen.has_video:
        rate = f", {seen.fps:.4g} pictures a second" + (" (varying)" if seen.variable_frame_rate else "")
        yield (
            "Picture",
            f"{seen.video_codec or 'unknown codec'}, {seen.width} x {seen.height}{rate if seen.fps else ''}",
        )
    if seen.has_audio:
        yield "Sound", f"{seen.audio_codec or 'unknown codec'}, {seen.sample_rate_hz:,} Hz, {seen.channels} channels"
    if seen.repairs:
        yield "Put right", ", ".join(repair.replace("_", " ") for repair in seen.repairs)


def _made(case: Case, now: datetime) -> Iterator[Row]:
    """What judged the file, so that the same can be done again."""
    verdict, passage = case.verdict, case.passage
    if passage:
        yield "Analysis", str(passage.id)
        yield "Submitted", moment(passage.created_at)
        if passage.finished_at:
            yield "Ended", f"{moment(passage.finished_at)}, {passage.state}"
        if passage.rerun_of:
            yield "Run again of", str(passage.rerun_of)
        if passage.from_cache:
            yield "Findings", "those of an earlier analysis of the same content, not made anew"
    yield "Pipeline", case.pipeline
    yield "Fusion", case.manifest.fusion
    yield "Faces", case.manifest.faces
    if verdict:
        yield "Head", verdict.head or "none fits what was found"
        yield "Policy", verdict.policy
        if verdict.thresholds:
            t = verdict.thresholds
            yield "Thresholds", f"real to {percent(t.real, 1)}, fake from {percent(t.fake, 1)}"
        yield "Coverage", f"{percent(verdict.coverage)} of the branches that apply" + FAILED * verdict.degraded
    yield "Report", f"{moment(now)}, Clipwarden {version('clipwarden')}"


def _metadata(case: Case) -> Iterator[Row]:
    """What the sender said of the file."""
    if case.passage and case.passage.tag is not None:
        yield "tag", case.passage.tag
    for name, value in (case.passage.metadata if case.passage else {}).items():
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
