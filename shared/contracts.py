"""The frozen values that cross a process boundary: what a file is, what was planned, found and decided.

Arrays never appear here (see `clip`). Unknown fields are refused, and so are states that contradict themselves.
"""

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, FiniteFloat, model_validator

from clipwarden.shared.branch import Branch as Branch
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contract import Contract as Contract
from clipwarden.shared.contract import Digest as Digest
from clipwarden.shared.contract import Score as Score
from clipwarden.shared.exhibit import Box as Box
from clipwarden.shared.exhibit import Curve as Curve
from clipwarden.shared.exhibit import Exhibit as Exhibit
from clipwarden.shared.exhibit import ExhibitKind as ExhibitKind
from clipwarden.shared.exhibit import Look as Look
from clipwarden.shared.probe import MediaKind as MediaKind
from clipwarden.shared.probe import MediaProbe as MediaProbe
from clipwarden.shared.verdict import Alternative as Alternative
from clipwarden.shared.verdict import Contribution as Contribution
from clipwarden.shared.verdict import ErrorRates as ErrorRates
from clipwarden.shared.verdict import Label as Label
from clipwarden.shared.verdict import Range as Range
from clipwarden.shared.verdict import Reason as Reason
from clipwarden.shared.verdict import Share as Share
from clipwarden.shared.verdict import Thresholds as Thresholds
from clipwarden.shared.verdict import Verdict as Verdict


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


class Lane(StrEnum):
    """How urgent an analysis is: what waits in `realtime` is taken first."""

    REALTIME = "realtime"
    BULK = "bulk"


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


class Kernel(StrEnum):
    """How a picture is brought to a view's size. The numbers are those of the library named.

    `cv2_area` is OpenCV's area average where it shrinks and its linear kernel where it grows; `cv2_linear` does not
    smooth when it shrinks; the Pillow kernels widen when they shrink and agree with Pillow within one grey level.
    """

    CV2_AREA = "cv2_area"
    CV2_LINEAR = "cv2_linear"
    PIL_BILINEAR = "pil_bilinear"
    PIL_BICUBIC = "pil_bicubic"


class FrameNeed(Contract):
    """Pictures a detector asks for: `count` windows of `consecutive` frames, spread uniformly over the clip.

    `view` "frame" is the whole picture scaled to `size_px` squared. "face" is the square about a face, widened by
    `margin` (a fraction of its side, in all); "mouth" is the square about its mouth, as wide as the face times
    `margin`. Each is scaled to `size_px` squared by `kernel`. Of several people in a frame those `people` are
    cut out who are the most prominent in the clip.
    """

    view: Literal["frame", "face", "mouth"]
    count: int = Field(gt=0, le=512)
    size_px: int = Field(gt=0, le=1024)
    consecutive: int = Field(default=1, gt=0, le=64)
    margin: float = Field(default=0.0, ge=0, le=2)
    kernel: Kernel = Kernel.CV2_AREA
    people: int = Field(default=1, gt=0, le=4)

    @property
    def key(self) -> str:
        """Name of this view in a clip and in a bundle; equal needs share one copy."""
        frames = f"n{self.count}x{self.consecutive}"
        return f"{self.view}-{self.size_px}px-{self.kernel}-m{self.margin:g}-{frames}-p{self.people}"


Runtime = Literal["torch", "onnxruntime"]
Dtype = Literal["float32", "bfloat16"]
"""The type that a network computes in; its last layers may keep to float32."""
"""What computes a detector's network."""

Span = tuple[FiniteFloat, FiniteFloat]
"""Start and end in seconds from the start of the clip."""


class AudioNeed(Contract):
    """Mono sound a detector asks for: at most `seconds` of it, at `sample_rate_hz`.

    A longer clip gives its beginning; with `window_s`, as many windows of that length as fit into `seconds`, spread
    uniformly from its first to its last second.
    """

    sample_rate_hz: Literal[16000, 22050] = 16000
    seconds: float = Field(gt=0, le=3600)
    min_seconds: float = Field(default=0.0, ge=0)
    window_s: float | None = Field(default=None, gt=0)

    def spans(self, duration_s: float) -> tuple[Span, ...]:
        """What to hear of a clip that is this long, in order, each span once."""
        if self.window_s is None or duration_s <= self.seconds:
            return ((0.0, min(self.seconds, duration_s)),)
        count = max(int(self.seconds / self.window_s), 1)
        step = (duration_s - self.window_s) / max(count - 1, 1)
        return tuple((i * step, i * step + self.window_s) for i in range(count))


class Needs(Contract):
    """Everything a detector reads of a clip; ingest prepares exactly the union of these.

    A detector that looks at the same moments in several ways names its further views in `more`; it needs them all.
    """

    frames: FrameNeed | None = None
    more: tuple[FrameNeed, ...] = ()
    audio: AudioNeed | None = None

    @model_validator(mode="after")
    def _more_than_something(self) -> Self:
        if self.more and self.frames is None:
            raise ValueError("further views come after a first one")
        return self

    @property
    def views(self) -> tuple[FrameNeed, ...]:
        """Every view, the first one first."""
        return (self.frames, *self.more) if self.frames else ()


class ManifestDetector(Contract):
    """A detector as one pipeline holds it."""

    name: str
    version: str
    branch: Branch
    state: DetectorState
    weights: Digest | None = None
    runtime: Runtime = "torch"
    dtype: Dtype = "float32"
    needs: Needs = Needs()

    @model_validator(mode="after")
    def _ready_means_weights(self) -> Self:
        if (self.state is DetectorState.READY) != (self.weights is not None):
            raise ValueError("a ready detector has a weights digest, any other has none")
        return self


class Manifest(Contract):
    """A pipeline: the detectors, the faces and the fusion that one analysis is bound to.

    `policies` are the fusion's, the one that verdicts follow by default first.
    """

    detectors: tuple[ManifestDetector, ...]
    faces: str
    fusion: Digest
    policies: tuple[str, ...] = ()

    def ready(self, branch: Branch) -> tuple[ManifestDetector, ...]:
        return tuple(d for d in self.detectors if d.branch is branch and d.state is DetectorState.READY)

    def only(self, names: Collection[str] | None) -> Self:
        """The pipeline with every ready detector but these disabled; unchanged for None."""
        if names is None:
            return self
        off = {"state": DetectorState.DISABLED, "weights": None}
        chosen = (
            d.model_copy(update=off) if d.state is DetectorState.READY and d.name not in names else d
            for d in self.detectors
        )
        return self.model_copy(update={"detectors": tuple(chosen)})


class ViewPlan(Contract):
    """Which decoded frames feed one view, in display order."""

    need: FrameNeed
    frame_indices: tuple[int, ...]


class SoundPlan(Contract):
    """Which spans of the sound to keep at one sample rate, in order, none overlapping another."""

    sample_rate_hz: int
    spans: tuple[Span, ...]


class SamplingPlan(Contract):
    """What to read of a file, decided before it is decoded."""

    views: tuple[ViewPlan, ...] = ()
    sounds: tuple[SoundPlan, ...] = ()

    @property
    def frame_indices(self) -> tuple[int, ...]:
        """Decoded frames that any view wants, ascending."""
        return tuple(sorted({i for view in self.views for i in view.frame_indices}))


class Window(Contract):
    """A stretch of the clip with the score a detector gave it."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(ge=0, allow_inf_nan=False)
    score: Score


class Gap(Contract):
    """A stretch of the clip that a detector left out of its score, and why."""

    start_s: float = Field(ge=0, allow_inf_nan=False)
    end_s: float = Field(ge=0, allow_inf_nan=False)
    code: SkipCode


class Evidence(Contract):
    """One detector's finding. `score` is in [0, 1], 1 = fake, uncalibrated; features are named in the catalogue.

    `facts` are numbers to show beside the score; they enter no verdict. `looks` and `curves` are as long as the clip
    makes them: a stage row holds none, but `exhibits`, the files that do.
    """

    score: Score
    features: dict[str, FiniteFloat]
    windows: tuple[Window, ...] = ()
    gaps: tuple[Gap, ...] = ()
    facts: dict[str, FiniteFloat] = Field(default_factory=dict)
    looks: tuple[Look, ...] = ()
    curves: tuple[Curve, ...] = ()
    exhibits: tuple[Exhibit, ...] = ()


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
    """What became of one branch; ok exactly if one of its detectors is.

    `folder` is where in the blob store the files of its exhibits lie, in one folder for each detector. `reused`: it was
    found for an earlier analysis of the same content.
    """

    branch: Branch
    status: OutcomeStatus
    code: str | None = None
    message: str | None = None
    detectors: tuple[DetectorOutcome, ...] = ()
    elapsed_ms: int = Field(default=0, ge=0)
    folder: str | None = None
    reused: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.status is OutcomeStatus.OK) != any(d.status is OutcomeStatus.OK for d in self.detectors):
            raise ValueError("a branch is ok exactly if one of its detectors is")
        if (self.status is OutcomeStatus.OK) == (self.code is not None):
            raise ValueError("a branch that is not ok says why, by a code")
        return self

    def as_row(self) -> str:
        """JSON for a stage row, without what is as it is by default."""
        return self.model_dump_json(exclude_defaults=True)


class StageRow(Contract):
    """A stage as the database holds it, without its lease; a branch at work has `so_far`, a settled one `outcome`."""

    stage: Stage
    status: StageStatus
    attempts: int
    code: str | None = None
    message: str | None = None
    so_far: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    created_at: datetime


class Analysis(Contract):
    """One clip on its way: the row, its stages and its verdict.

    `policy` and `detectors` are None where the default was asked for; `upload_key` is None once the file is gone.
    `leader_id` is the analysis of the same content whose run this one waits for, and whose progress it shows.
    """

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
    tenant_id: UUID = UUID(int=0)
    batch_id: UUID | None = None
    from_cache: bool = False
    lane: Lane = Lane.REALTIME
    policy: str | None = None
    detectors: tuple[str, ...] | None = None
    source_url: str | None = None
    callback_url: str | None = None
    upload_key: str | None = None
    leader_id: UUID | None = None
    deleted_at: datetime | None = None
