"""The routes of `/v1`, and the two that orchestrators probe."""

from typing import Any
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from clipwarden.api.access import Reader, Submitter
from clipwarden.api.gateway import Services
from clipwarden.api.guard import PAGE_PREFIX
from clipwarden.api.openapi import OPENING, SUBMISSION, errors, headers
from clipwarden.api.preferences import ended, wait_of
from clipwarden.api.schemas import AnalysisView
from clipwarden.api.service_schemas import DetectorsView, LiveView, ReadyView, RootView
from clipwarden.api.submitting import taken
from clipwarden.api.waiting import pause_s
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError

ACCEPTED = {"Location": "Where to read the analysis", "Preference_Applied": "What was heeded of `Prefer`"}

router = APIRouter()


def parse_id(text: str) -> UUID:
    """Raises ProblemError: an id that cannot be one names nothing."""
    try:
        return UUID(text)
    except ValueError as error:
        raise ProblemError(ProblemCode.NOT_FOUND) from error


@router.post(
    "/v1/analyses",
    status_code=202,
    response_model=AnalysisView,
    openapi_extra=SUBMISSION,
    responses={
        200: {"model": AnalysisView, "description": "It has ended already", **headers(**ACCEPTED)},
        202: headers(**ACCEPTED, Retry_After="Seconds to wait before reading it"),
        **errors(*OPENING),
    },
    tags=["analyses"],
)
async def submit(request: Request, response: Response, gateway: Services, caller: Submitter) -> AnalysisView:
    """Have a file examined that is sent here, was sent ahead, or can be fetched. The answer comes once it is queued."""
    analysis = await taken(request, gateway, caller)
    if wait_s := wait_of(request):
        analysis = await ended(request, gateway, caller, analysis, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    view = await gateway.shown(analysis)
    response.headers["Location"] = view.links["self"]
    if view.ended:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = str(pause_s(view.eta_s))
    return view


@router.get(
    "/v1/analyses/{analysis_id}",
    response_model=AnalysisView,
    responses={
        200: headers(Retry_After="While it has not ended: seconds to wait before reading it again"),
        **errors(ProblemCode.NOT_FOUND, ProblemCode.UNAVAILABLE),
    },
    tags=["analyses"],
)
async def show(analysis_id: str, response: Response, gateway: Services, caller: Reader) -> AnalysisView:
    """Read an analysis: its progress, then what every branch found and the verdict."""
    view = await run_sync(gateway.viewed, caller, parse_id(analysis_id))
    if not view.ended:
        response.headers["Retry-After"] = str(pause_s(view.eta_s))
    return view


@router.get(
    "/v1/detectors",
    response_model=DetectorsView,
    responses=errors(ProblemCode.UNAVAILABLE),
    tags=["detectors"],
)
def detectors(gateway: Services, _: Reader) -> DetectorsView:
    """The detectors that new analyses are examined with, and the state of each."""
    return DetectorsView.from_domain(*gateway.manifest(), gateway.settings)


@router.get("/", response_model=RootView, responses=errors(public=True), tags=["health"])
async def root(request: Request) -> Any:
    """Where to go from here; a browser is taken to the page."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(PAGE_PREFIX, 303)
    links = {"analyses": "/v1/analyses", "openapi": "/openapi.json", "page": PAGE_PREFIX}
    return RootView(service="clipwarden", links=links)


@router.get("/livez", response_model=LiveView, responses=errors(public=True), tags=["health"])
async def livez() -> LiveView:
    """Whether this process answers at all; nothing behind it is asked."""
    return LiveView(status="alive")


@router.get(
    "/readyz",
    response_model=ReadyView,
    responses=errors(ProblemCode.UNAVAILABLE, public=True),
    tags=["health"],
)
async def readyz(gateway: Services) -> ReadyView:
    """Whether Redis, Postgres and the blob store answer, and the blob store is the database's own."""
    answers = await gateway.readiness()
    down = [name for name, up in answers.items() if not up]
    if down:
        raise ProblemError(
            ProblemCode.UNAVAILABLE, f"Not ready: {', '.join(down)} did not answer as expected.", retry_after_s=5
        )
    return ReadyView(status="ready", checks=dict.fromkeys(answers, "ok"))
