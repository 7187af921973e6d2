"""Results in the shapes of the seed projects' own documents, read from the evidence that is kept.

The numbers are those of the files: P(fake) by frame to four places, as they were kept, and all windows.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, ValidationError

from clipwarden.api.access import Caller, Reader
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.openapi import errors
from clipwarden.api.routes import parse_id
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import (
    Analysis,
    BranchResult,
    DetectorOutcome,
    Evidence,
    ExhibitKind,
    OutcomeStatus,
)
from clipwarden.shared.errors import BlobGone, ProblemError
from clipwarden.shared.evidence import evidence_key
from clipwarden.shared.series import Series

THRESHOLD: Final = 0.5

Word = Literal["FAKE", "REAL"]

router = APIRouter(tags=["seeds"])


class TemporalMetrics(BaseModel):
    score_variance: float
    consistency_score: float


class SequenceMetadata(BaseModel):
    """`model_version` is null where the file that was used did not say; V1 has no scores by frame."""

    model_version: Literal["V1", "V3", "V4"] | None
    frames_analyzed: int
    video_duration: float
    per_frame_scores: list[float] | None = None
    rolling_average_scores: list[float] | None = None
    temporal_metrics: TemporalMetrics | None = None


class SequenceView(BaseModel):
    """As the SIGLIP-LSTM document has it."""

    prediction: Word
    confidence: float = Field(ge=0.5, le=1)
    metadata: SequenceMetadata


class FramePrediction(BaseModel):
    index: int
    score: float
    prediction: Word


class WindowMetrics(BaseModel):
    final_average_score: float
    window_scores: list[float]


class WindowsView(BaseModel):
    """As the LipFD document has it."""

    prediction: Word
    confidence: float = Field(ge=0.5, le=1)
    processing_time: float
    frames_analyzed: int
    frame_predictions: list[FramePrediction]
    metrics: WindowMetrics


def _found(gateway: Gateway, analysis: Analysis, detector: str) -> tuple[DetectorOutcome, Evidence, Series]:
    """What a detector found, and its scores over time. Raises ProblemError, 404 with a sentence."""
    results = [BranchResult.model_validate(row.outcome) for row in analysis.stages if row.outcome is not None]
    named = ((r, o) for r in results for o in r.detectors if o.name == detector)
    result, outcome = next(named, (None, None))
    if result is None or outcome is None:
        raise _missing(f"The detector {detector} did not run on this file, or has not settled yet.")
    if outcome.status is not OutcomeStatus.OK or outcome.evidence is None:
        raise _missing(f"The detector {detector} has no result for this file: {outcome.code}.")
    name = next((e.name for e in outcome.evidence.exhibits if e.kind is ExhibitKind.SERIES), "")
    key = evidence_key(result, detector, name)
    try:
        series = Series.model_validate_json(gateway.blobs.read(key)) if key else None
    except (BlobGone, ValidationError):
        series = None
    if series is None:
        raise _missing(f"The scores over time of the detector {detector} are not kept.")
    return outcome, outcome.evidence, series


def _missing(detail: str) -> ProblemError:
    return ProblemError(ProblemCode.NOT_FOUND, detail)


def _version(facts: Mapping[str, float]) -> Any:
    number = facts.get("model_version")
    return None if number is None else f"V{number:g}"


@router.get(
    "/v1/analyses/{analysis_id}/views/siglip-lstm",
    response_model=SequenceView,
    response_model_exclude_unset=True,
    responses=errors(ProblemCode.NOT_FOUND),
)
def siglip_lstm(analysis_id: str, gateway: Services, caller: Reader) -> SequenceView:
    """What the detector siglip_lstm found, in its document's own shape."""
    analysis = gateway.analysis(caller, parse_id(analysis_id))
    _, evidence, series = _found(gateway, analysis, "siglip_lstm")
    fake, version = evidence.score > THRESHOLD, _version(evidence.facts)
    said: dict[str, Any] = {
        "model_version": version,
        "frames_analyzed": len(series.looks),
        "video_duration": analysis.probe.duration_s if analysis.probe else 0.0,
    }
    if version != "V1":
        said["per_frame_scores"] = [look.score for look in series.looks]
        said["rolling_average_scores"] = [y for c in series.curves if c.name == "rolling" for y in c.y]
        said["temporal_metrics"] = {
            name: evidence.facts[name] for name in ("score_variance", "consistency_score") if name in evidence.facts
        }
    return SequenceView.model_validate(
        {
            "prediction": "FAKE" if fake else "REAL",
            "confidence": evidence.score if fake else 1 - evidence.score,
            "metadata": said,
        }
    )


@router.get(
    "/v1/analyses/{analysis_id}/views/lipfd",
    response_model=WindowsView,
    responses=errors(ProblemCode.NOT_FOUND),
)
def lipfd(analysis_id: str, gateway: Services, caller: Reader) -> WindowsView:
    """What the detector lipfd found, in its document's own shape; the mean over the windows decides."""
    return _windows(gateway, caller, analysis_id, "lipfd")


@router.get(
    "/v1/analyses/{analysis_id}/views/lipfd-fixed",
    response_model=WindowsView,
    responses=errors(ProblemCode.NOT_FOUND),
)
def lipfd_fixed(analysis_id: str, gateway: Services, caller: Reader) -> WindowsView:
    """What the detector lipfd_fixed found, in the shape of the LipFD document."""
    return _windows(gateway, caller, analysis_id, "lipfd_fixed")


def _windows(gateway: Gateway, caller: Caller, analysis_id: str, detector: str) -> WindowsView:
    analysis = gateway.analysis(caller, parse_id(analysis_id))
    outcome, evidence, series = _found(gateway, analysis, detector)
    scores = [window.score for window in series.windows]
    return WindowsView(
        prediction=_word(evidence.score),
        confidence=evidence.score if evidence.score >= THRESHOLD else 1 - evidence.score,
        processing_time=outcome.elapsed_ms / 1000,
        frames_analyzed=len(scores),
        frame_predictions=[FramePrediction(index=k, score=s, prediction=_word(s)) for k, s in enumerate(scores)],
        metrics=WindowMetrics(final_average_score=evidence.score, window_scores=scores),
    )


def _word(score: float) -> Word:
    return "FAKE" if score >= THRESHOLD else "REAL"
