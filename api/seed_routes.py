"""The two routes of the seed projects' front end, in their words: `POST /analyze` and `GET /status/{analysisId}`."""

from typing import Literal, Self
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from clipwarden.api.access import Reader, Submitter
from clipwarden.api.gateway import Services
from clipwarden.api.openapi import FORM_ONLY, OPENING, errors
from clipwarden.api.progress import Phase, percent, phase
from clipwarden.api.routes import parse_id
from clipwarden.api.submitting import taken
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode
from clipwarden.shared.contracts import TERMINAL_STATES, Analysis, AnalysisState, Label

INCONCLUSIVE_NOTE = "The evidence is inconclusive: read this verdict as a tendency, not as a finding."
NO_EVIDENCE = "No branch found evidence to judge by; send a clip with a visible face or audible speech."
CANCELLED = "The analysis was cancelled."
DELETED = "The analysis was deleted."

StageName = Literal["Queued", "Extracting frames", "Running models", "Final classification"]

STAGE_NAMES: dict[Phase | None, StageName] = {
    None: "Queued",
    Phase.FETCH: "Extracting frames",
    Phase.INGEST: "Extracting frames",
    Phase.ASSESS: "Running models",
    Phase.FUSE: "Final classification",
}

router = APIRouter(tags=["seeds"])


class SeedResult(BaseModel):
    """`confidence` is that of the verdict, in percent."""

    verdict: Literal["Deepfake", "Authentic"]
    confidence: float = Field(ge=50, le=100)
    note: str | None = None


class SeedStatus(BaseModel):
    """`result` comes with done, `error` with error; absent otherwise."""

    analysisId: UUID  # noqa: N815 - the seeds' name
    status: Literal["processing", "done", "error"]
    percent: int = Field(ge=0, le=100)
    stageName: StageName  # noqa: N815 - the seeds' name
    result: SeedResult | None = None
    error: str | None = None

    @classmethod
    def from_domain(cls, analysis: Analysis) -> Self:
        result = _result(analysis)
        error = _error(analysis) if analysis.state in TERMINAL_STATES and result is None else None
        done = analysis.state is AnalysisState.DONE
        return cls(
            analysisId=analysis.id,
            status="done" if result else "error" if error else "processing",
            percent=percent(analysis),
            stageName="Final classification" if done else STAGE_NAMES[phase(analysis)],
            result=result,
            error=error,
        )


def _result(analysis: Analysis) -> SeedResult | None:
    verdict = analysis.verdict
    if analysis.state is not AnalysisState.DONE or verdict is None or verdict.probability is None:
        return None
    p = verdict.probability
    return SeedResult(
        verdict="Deepfake" if p >= 0.5 else "Authentic",
        confidence=100 * max(p, 1 - p),
        note=INCONCLUSIVE_NOTE if verdict.label is Label.INCONCLUSIVE else None,
    )


def _error(analysis: Analysis) -> str:
    match analysis.state:
        case AnalysisState.DONE:
            reasons = " ".join(r.text for r in analysis.verdict.reasons) if analysis.verdict else ""
            return reasons or NO_EVIDENCE
        case AnalysisState.CANCELLED:
            return CANCELLED
        case AnalysisState.DELETED:
            return DELETED
        case _:
            return analysis.message or SENTENCES.get(analysis.code or FailCode.INTERNAL, NO_EVIDENCE)


@router.post(
    "/analyze",
    status_code=202,
    response_model=SeedStatus,
    response_model_exclude_none=True,
    openapi_extra=FORM_ONLY,
    responses=errors(*OPENING),
)
async def analyze(request: Request, gateway: Services, caller: Submitter) -> SeedStatus:
    """Upload a file, in the seeds' contract."""
    analysis = await taken(request, gateway, caller, form_only=True)
    return SeedStatus(analysisId=analysis.id, status="processing", percent=0, stageName="Queued")


@router.get(
    "/status/{analysis_id}",
    response_model=SeedStatus,
    response_model_exclude_none=True,
    responses=errors(ProblemCode.NOT_FOUND, ProblemCode.UNAVAILABLE),
)
def status(analysis_id: str, gateway: Services, caller: Reader) -> SeedStatus:
    """Read an analysis, in the seeds' contract; a known id always answers 200."""
    return SeedStatus.from_domain(gateway.analysis(caller, parse_id(analysis_id)))
