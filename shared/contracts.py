"""The frozen values that cross a process boundary: what a file is, what was planned, found and decided.

Arrays never appear here (see `clip`). Unknown fields are refused, and so are states that contradict themselves.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Contract(BaseModel):
    """A frozen value with no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Branch(StrEnum):
    """A modality; also the name of its queue and of its stage row."""

    VISUAL = "visual"
    AUDIO = "audio"
    LIPSYNC = "lipsync"
    CLIP = "clip"


class Stage(StrEnum):
    """A unit of leased work."""

    FETCH = "fetch"
    INGEST = "ingest"
    VISUAL = "visual"
    AUDIO = "audio"
    LIPSYNC = "lipsync"
    CLIP = "clip"


class AnalysisState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


TERMINAL_STATES = frozenset(
    {
        AnalysisState.DONE,
        AnalysisState.REJECTED,
        AnalysisState.FAILED,
        AnalysisState.CANCELLED,
        AnalysisState.DELETED,
    }
)


class StageStatus(StrEnum):
    OPEN = "open"
    LEASED = "leased"
    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


SETTLED = frozenset({StageStatus.OK, StageStatus.SKIPPED, StageStatus.FAILED})


class DetectorState(StrEnum):
    READY = "ready"
    NO_WEIGHTS = "no_weights"
    DISABLED = "disabled"


class OutcomeStatus(StrEnum):
    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


class MediaKind(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"
    IMAGE = "image"


class Label(StrEnum):
    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"


class MediaProbe(Contract):
    """What a file says of itself, checked against its packets; for display and planning, never a feature.

    `frames` counts the video packets (1 for a still, 0 without picture); width and height are as displayed,
    after rotation; `duration_s` is the longer of picture and sound by packet times, 0 for a still.
    """

    kind: MediaKind
    container: str
    duration_s: float = Field(ge=0, allow_inf_nan=False)
    width: int = Field(ge=0)
    height: int = Field(ge=0)
    fps: float = Field(ge=0, allow_inf_nan=False)
    frames: int = Field(ge=0)
    has_video: bool
    has_audio: bool
    video_codec: str | None = None
    audio_codec: str | None = None
    sample_rate_hz: int = Field(default=0, ge=0)
    rotation_deg: int = 0
    size_bytes: int = Field(ge=0)


class FrameNeed(Contract):
    """Pictures a detector asks for: `count` frames spread uniformly over the clip.

    `view` "frame" is the whole picture scaled to `size_px` squared; "face" is the largest face of the frame,
    squared, widened by `margin` (a fraction of the box side, in all) and scaled to `size_px` squared.
    """

    view: Literal["face", "frame"]
    count: int = Field(gt=0, le=512)
    size_px: int = Field(gt=0, le=1024)
    margin: float = Field(default=0.0, ge=0, le=2)

    @property
    def key(self) -> str:
        """Name of this view in a clip and in a bundle; equal needs share one copy."""
        return f"{self.view}-{self.size_px}px-m{self.margin:g}-n{self.count}"


class AudioNeed(Contract):
    """Mono sound a detector asks for: at most `seconds` from the start, at `sample_rate_hz`."""

    sample_rate_hz: Literal[16000] = 16000
    seconds: float = Field(gt=0, le=3600)
    min_seconds: float = Field(default=0.0, ge=0)


class Needs(Contract):
    """Everything a detector reads of a clip; ingest prepares exactly the union of these."""

    frames: FrameNeed | None = None
    audio: AudioNeed | None = None


class ManifestDetector(Contract):
    """A detector as one pipeline holds it."""

    name: str
    version: str
    branch: Branch
    state: DetectorState
    weights: Digest | None = None
    runtime: Literal["torch", "onnxruntime"] = "torch"
    dtype: Literal["float32", "bfloat16"] = "float32"
    needs: Needs = Needs()

    @model_validator(mode="after")
    def _ready_means_weights(self) -> Self:
        if (self.state is DetectorState.READY) != (self.weights is not None):
            raise ValueError("a ready detector has a weights digest, any other has none")
        return self


class Manifest(Contract):
    """A pipeline: the detectors, the faces and the fusion that one analysis is bound to."""

    detectors: tuple[ManifestDetector, ...]
    faces: str
    fusion: Digest

    def ready(self, branch: Branch) -> tuple[ManifestDetector, ...]:
        return tuple(d for d in self.detectors if d.branch is branch and d.state is DetectorState.READY)


class ViewPlan(Contract):
    """Which decoded frames feed one view, in display order."""

    need: FrameNeed
    frame_indices: tuple[int, ...]


class SamplingPlan(Contract):
    """What to read of a file, decided before it is decoded."""

    views: tuple[ViewPlan, ...] = ()
    audio_seconds: float = Field(default=0.0, ge=0)

    @property
    def frame_indices(self) -> tuple[int, ...]:
        return tuple(sorted({i for view in self.views for i in view.frame_indices}))


class Window(Contract):
    """A stretch of the clip with the score a detector gave it."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(ge=0, allow_inf_nan=False)
    score: Score


class Evidence(Contract):
    """One detector's finding. `score` is in [0, 1], 1 = fake, uncalibrated; features are named in the catalogue."""

    score: Score
    features: dict[str, FiniteFloat]
    windows: tuple[Window, ...] = ()


class DetectorOutcome(Contract):
    """What became of one detector on one clip."""

    name: str
    version: str
    weights: Digest | None = None
    status: OutcomeStatus
    code: str | None = None
    message: str | None = None
    evidence: Evidence | None = None
    elapsed_ms: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.status is OutcomeStatus.OK) != (self.evidence is not None):
            raise ValueError("an outcome is ok exactly if it has evidence")
        if (self.status is OutcomeStatus.OK) == (self.code is not None):
            raise ValueError("an outcome that is not ok says why, by a code")
        return self


class BranchResult(Contract):
    """What became of one branch; ok exactly if one of its detectors is."""

    branch: Branch
    status: OutcomeStatus
    code: str | None = None
    message: str | None = None
    detectors: tuple[DetectorOutcome, ...] = ()
    elapsed_ms: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.status is OutcomeStatus.OK) != any(d.status is OutcomeStatus.OK for d in self.detectors):
            raise ValueError("a branch is ok exactly if one of its detectors is")
        if (self.status is OutcomeStatus.OK) == (self.code is not None):
            raise ValueError("a branch that is not ok says why, by a code")
        return self


class Contribution(Contract):
    """What one detector added to the log-odds of fake; exact."""

    branch: Branch
    detector: str
    log_odds: FiniteFloat


class Reason(Contract):
    code: str
    text: str


class Verdict(Contract):
    """The fused answer. `baseline_logit` plus all contributions is logit(probability), exactly.

    Without a usable branch the label is inconclusive, and probability, head and baseline are None.
    """

    label: Label
    probability: Score | None
    policy: str
    head: str | None
    coverage: Score
    degraded: bool
    baseline_logit: FiniteFloat | None
    contributions: tuple[Contribution, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _no_number_without_a_head(self) -> Self:
        present = {self.probability is None, self.head is None, self.baseline_logit is None}
        if len(present) != 1:
            raise ValueError("probability, head and baseline come together")
        if self.head is None and self.label is not Label.INCONCLUSIVE:
            raise ValueError("a verdict without evidence is inconclusive")
        return self


class StageRow(Contract):
    """A stage as the database holds it, without its lease."""

    stage: Stage
    status: StageStatus
    attempts: int
    code: str | None = None
    message: str | None = None
    outcome: dict[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    created_at: datetime


class Analysis(Contract):
    """One clip on its way: the row, its stages and its verdict."""

    id: UUID
    state: AnalysisState
    pipeline: str
    filename: str
    size_bytes: int
    sha256: str
    probe: MediaProbe | None
    code: str | None
    message: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    rerun_of: UUID | None
    tag: str | None
    metadata: dict[str, Any]
    stages: tuple[StageRow, ...]
    verdict: Verdict | None
