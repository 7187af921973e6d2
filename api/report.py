"""The report on an analysis: one HTML document with everything in it, to print and to keep."""

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from clipwarden.api.evidence import Opened
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.openapi import Responses, errors
from clipwarden.api.progress import EARLY
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode
from clipwarden.shared.contracts import (
    TERMINAL_STATES,
    Analysis,
    AnalysisState,
    Branch,
    BranchResult,
    OutcomeStatus,
    StageRow,
    StageStatus,
)
from clipwarden.shared.errors import BlobGone, ProblemError
from clipwarden.shared.evidence import evidence_key
from clipwarden.shared.report.case import Case, Opinion, Passage
from clipwarden.shared.report.page import content_policy, render

LARGEST_FILE: Final = 1024 * 1024
"""Workers write smaller files of evidence; what is larger is not taken into memory."""

HTML: Final[dict[str, Any]] = {"text/html": {"schema": {"type": "string"}}}
DOCUMENT: Final[Responses] = {
    200: {"description": "The report", "content": HTML},
    **errors(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT),
}

router = APIRouter(tags=["files"])


@router.get("/v1/analyses/{analysis_id}/report", response_class=HTMLResponse, responses=DOCUMENT)
def report(analysis: Opened, gateway: Services) -> HTMLResponse:
    """What was found in an analysis that ended, as one HTML document to print. A signed link needs no key."""
    if analysis.state is AnalysisState.DELETED:
        raise ProblemError(ProblemCode.NOT_FOUND, "This analysis was deleted.")
    if analysis.state not in TERMINAL_STATES:
        raise ProblemError(ProblemCode.CONFLICT, "This analysis has not ended yet; its report comes after its end.")
    headers = {
        "Content-Security-Policy": f"{content_policy()}; frame-ancestors 'none'; sandbox",
        "Content-Disposition": f'inline; filename="clipwarden-{analysis.id}.html"',
    }
    return HTMLResponse(render(case_of(gateway, analysis), datetime.now(UTC)), headers=headers)


def case_of(gateway: Gateway, analysis: Analysis) -> Case:
    """What the report is made of: the analysis, its pipeline, its evidence, and what was said of it."""
    return Case(
        filename=analysis.filename,
        size_bytes=analysis.size_bytes,
        sha256=analysis.sha256,
        probe=analysis.probe,
        results=tuple(_result(row) for row in _branches(analysis)),
        verdict=analysis.verdict,
        pipeline=analysis.pipeline,
        manifest=gateway.manifest_of(analysis.pipeline).only(analysis.detectors),
        fetch=partial(_fetch, gateway),
        passage=_passage(analysis),
        opinions=tuple(
            Opinion(said.label, said.category, said.comment, said.created_at)
            for said in gateway.store.feedback(analysis.id)
        ),
    )


def _branches(analysis: Analysis) -> list[StageRow]:
    return sorted(
        (r for r in analysis.stages if r.stage not in EARLY), key=lambda r: list(Branch).index(Branch(r.stage))
    )


def _result(row: StageRow) -> BranchResult:
    """What a branch left; of one that no worker settled, only why."""
    if row.outcome is not None:
        return BranchResult.model_validate(row.outcome)
    skipped, code = row.status is StageStatus.SKIPPED, row.code or FailCode.INTERNAL
    return BranchResult(
        branch=Branch(row.stage),
        status=OutcomeStatus.SKIPPED if skipped else OutcomeStatus.FAILED,
        code=code,
        message=row.message or SENTENCES.get(code),
    )


def _passage(analysis: Analysis) -> Passage:
    return Passage(
        id=analysis.id,
        state=analysis.state,
        sentence=analysis.message or SENTENCES.get(analysis.code or ""),
        created_at=analysis.created_at,
        finished_at=analysis.finished_at,
        from_cache=analysis.from_cache,
        rerun_of=analysis.rerun_of,
        tag=analysis.tag,
        metadata=analysis.metadata,
    )


def _fetch(gateway: Gateway, result: BranchResult, detector: str, name: str) -> bytes | None:
    key = evidence_key(result, detector, name)
    try:
        return gateway.blobs.read(key) if key and gateway.blobs.size(key) <= LARGEST_FILE else None
    except BlobGone:
        return None
