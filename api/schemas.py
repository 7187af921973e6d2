"""The JSON of `/v1`: every name a client reads is chosen here, and each view is made from its domain value."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from clipwarden.api.links import Links, Signer, address
from clipwarden.api.probe_schemas import ProbeView
from clipwarden.api.progress import EARLY, Phase, percent, phase
from clipwarden.api.schema import View
from clipwarden.api.verdict_schemas import VerdictView
from clipwarden.api.waiting import UNKNOWN, Outlook
from clipwarden.shared.codes import SENTENCES
from clipwarden.shared.contracts import (
    Analysis,
    AnalysisState,
    Box,
    Branch,
    BranchResult,
    DetectorOutcome,
    Exhibit,
    ExhibitKind,
    Label,
    Lane,
    MediaKind,
    OutcomeStatus,
    StageRow,
    StageStatus,
)
from clipwarden.shared.store import Feedback, Listed


class ErrorView(View):
    """Why an analysis ended without a verdict, and what to do."""

    code: str
    message: str


class InputView(View):
    """The file. What only reading it tells is null until ingest has read it."""

    kind: MediaKind | None
    filename: str
    bytes: int
    sha256: str = Field(description="Hexadecimal SHA-256 of the file")
    duration_s: float | None
    width: int | None
    height: int | None
    fps: float | None
    has_audio: bool | None
    probe: ProbeView | None

    @classmethod
    def from_domain(cls, analysis: Analysis) -> Self:
        seen = analysis.probe
        return cls(
            kind=seen.kind if seen else None,
            filename=analysis.filename,
            bytes=analysis.size_bytes,
            sha256=analysis.sha256,
            duration_s=seen.duration_s if seen else None,
            width=seen.width if seen else None,
            height=seen.height if seen else None,
            fps=seen.fps if seen else None,
            has_audio=seen.has_audio if seen else None,
            probe=ProbeView.from_domain(seen) if seen else None,
        )


class WindowView(View):
    start_s: float
    end_s: float
    score: float


class GapView(View):
    """A stretch of the clip that a detector left out of its score, and why."""

    start_s: float
    end_s: float
    code: str


class EvidenceView(View):
    """A file to look at: a picture, or all scores over time as JSON."""

    kind: ExhibitKind
    name: str
    href: str = Field(description="Opens it for an hour or so, without a key")
    bytes: int
    time_s: float | None = Field(description="When it was seen, or where the stretch it shows begins")
    end_s: float | None = Field(description="Where that stretch ends; null for a moment")
    box: Box | None = Field(description="x1 y1 x2 y2 in pixels of the displayed frame, to lay the picture over it")

    @classmethod
    def from_domain(cls, shown: Exhibit, href: str) -> Self:
        return cls(
            kind=shown.kind,
            name=shown.name,
            href=href,
            bytes=shown.size_bytes,
            time_s=shown.time_s,
            end_s=shown.end_s,
            box=shown.box,
        )


class DetectorView(View):
    """One detector on this file. `score` is in [0, 1], 1 = fake, and is not calibrated."""

    name: str
    version: str
    weights: str | None
    status: OutcomeStatus
    code: str | None
    message: str | None
    elapsed_ms: int
    score: float | None
    features: dict[str, float]
    windows: list[WindowView]
    gaps: list[GapView]
    facts: dict[str, float] = Field(description="Numbers to show beside the score; they enter no verdict")
    evidence: list[EvidenceView]

    @classmethod
    def from_domain(cls, outcome: DetectorOutcome, href: Callable[[str], str]) -> Self:
        found = outcome.evidence
        return cls(
            name=outcome.name,
            version=outcome.version,
            weights=outcome.weights,
            status=outcome.status,
            code=outcome.code,
            message=outcome.message or (outcome.code and SENTENCES.get(outcome.code)),
            elapsed_ms=outcome.elapsed_ms,
            score=found.score if found else None,
            features=found.features if found else {},
            windows=[WindowView(start_s=w.start_s, end_s=w.end_s, score=w.score) for w in found.windows]
            if found
            else [],
            gaps=[GapView(start_s=g.start_s, end_s=g.end_s, code=g.code) for g in found.gaps] if found else [],
            facts=found.facts if found else {},
            evidence=[EvidenceView.from_domain(e, href(e.name)) for e in found.exhibits] if found else [],
        )


class BranchView(View):
    """One branch: `open` and `leased` until it is settled, then ok, skipped or failed.

    While it runs, `detectors` are those that have finished.
    """

    status: StageStatus
    reused: bool = Field(description="Whether this was found for another analysis of the same content")
    code: str | None
    message: str | None
    elapsed_ms: int | None
    detectors: list[DetectorView]

    @classmethod
    def from_domain(cls, row: StageRow, links: Links) -> Self:
        kept = row.so_far if row.outcome is None else row.outcome
        result = None if kept is None else BranchResult.model_validate(kept)
        return cls(
            status=row.status,
            reused=result is not None and (result.reused or links.analysis.from_cache),
            code=row.code,
            message=row.message or (row.code and SENTENCES.get(row.code)),
            elapsed_ms=result.elapsed_ms if result and row.outcome else None,
            detectors=[
                DetectorView.from_domain(d, partial(links.evidence, result.branch, d.name)) for d in result.detectors
            ]
            if result
            else [],
        )


class FeedbackView(View):
    """What somebody says of an analysis."""

    id: UUID
    label: str
    category: str
    comment: str | None
    created_at: datetime

    @classmethod
    def from_domain(cls, said: Feedback) -> Self:
        return cls(
            id=said.id, label=said.label, category=said.category, comment=said.comment, created_at=said.created_at
        )


class FeedbackListView(View):
    feedback: list[FeedbackView]


class AnalysisView(View):
    """An analysis, at whatever point of its way it is."""

    id: UUID
    state: AnalysisState
    stage: Phase | None = Field(description="What a running analysis works on")
    percent: int = Field(ge=0, le=100)
    queue_position: int | None = Field(
        description="1 is next; null once work on it began. Of what others have sent only the order of magnitude counts"
    )
    eta_s: float | None = Field(description="Seconds until it ends, as an estimate; null where nobody knows")
    rerun_of: UUID | None
    follows: UUID | None = Field(
        description="The analysis of the same content whose run this one shares: its progress is shown, and its end"
        " will be this one's"
    )
    from_cache: bool
    created_at: datetime
    finished_at: datetime | None
    deleted_at: datetime | None = Field(description="When its file, its evidence and all that was found were deleted")
    tag: str | None
    metadata: dict[str, Any]
    pipeline: str
    detectors: list[str] | None = Field(description="Those it was asked to be examined with; null for all")
    input: InputView
    branches: dict[Branch, BranchView]
    verdict: VerdictView | None
    error: ErrorView | None
    timings_ms: dict[str, int] = Field(description="Time queued, and time from first claim to settled of each stage")
    links: dict[str, str]

    @property
    def ended(self) -> bool:
        return self.finished_at is not None

    @classmethod
    def from_domain(cls, analysis: Analysis, signer: Signer | None = None, outlook: Outlook = UNKNOWN) -> Self:
        links = Links(analysis, signer)
        rows = {Branch(r.stage): r for r in analysis.stages if r.stage not in EARLY}
        return cls(
            id=analysis.id,
            state=analysis.state,
            stage=phase(analysis) if analysis.state is AnalysisState.RUNNING else None,
            percent=percent(analysis),
            queue_position=outlook.position,
            eta_s=outlook.eta_s,
            rerun_of=analysis.rerun_of,
            follows=analysis.leader_id,
            from_cache=analysis.from_cache,
            created_at=analysis.created_at,
            finished_at=analysis.finished_at,
            deleted_at=analysis.deleted_at,
            tag=analysis.tag,
            metadata=analysis.metadata,
            pipeline=analysis.pipeline,
            detectors=None if analysis.detectors is None else list(analysis.detectors),
            input=InputView.from_domain(analysis),
            branches={b: BranchView.from_domain(rows[b], links) for b in Branch if b in rows},
            verdict=VerdictView.from_domain(analysis.verdict) if analysis.verdict else None,
            error=_error(analysis),
            timings_ms=_timings(analysis),
            links=links.told(),
        )


def _error(analysis: Analysis) -> ErrorView | None:
    if analysis.code is None:
        return None
    return ErrorView(code=analysis.code, message=analysis.message or SENTENCES.get(analysis.code, analysis.code))


def _timings(analysis: Analysis) -> dict[str, int]:
    spans = {row.stage.value: (row.started_at, row.finished_at) for row in analysis.stages}
    spans = {"queued": (analysis.created_at, analysis.started_at), **spans}
    return {name: round(1000 * (end - start).total_seconds()) for name, (start, end) in spans.items() if start and end}


class SummaryView(View):
    """An analysis in a list; `links.self` tells the rest."""

    id: UUID
    state: AnalysisState
    created_at: datetime
    finished_at: datetime | None
    filename: str
    kind: MediaKind | None
    duration_s: float | None
    tag: str | None
    lane: Lane
    batch: UUID | None
    follows: UUID | None = Field(description="The analysis whose run this one shares, and whose state is shown")
    from_cache: bool
    label: Label | None
    probability: float | None
    feedback: str | None = Field(description="The category of the latest feedback; null if nobody gave any")
    error: ErrorView | None
    links: dict[str, str]

    @classmethod
    def from_domain(cls, listed: Listed) -> Self:
        return cls(
            id=listed.id,
            state=listed.state,
            created_at=listed.created_at,
            finished_at=listed.finished_at,
            filename=listed.filename,
            kind=listed.kind,
            duration_s=listed.duration_s,
            tag=listed.tag,
            lane=listed.lane,
            batch=listed.batch_id,
            follows=listed.leader_id,
            from_cache=listed.from_cache,
            label=listed.label,
            probability=listed.probability,
            feedback=listed.feedback,
            error=ErrorView(code=listed.code, message=SENTENCES.get(listed.code, listed.code)) if listed.code else None,
            links={"self": address(listed.id)},
        )


class ListView(View):
    """A page of analyses, newest first. `next` is the cursor of the page after it, null on the last one."""

    analyses: list[SummaryView]
    next: str | None
