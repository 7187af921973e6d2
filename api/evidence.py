"""The files of an analysis: the media itself, and the evidence that detectors left to look at."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from clipwarden.api.access import Having, Scope
from clipwarden.api.gateway import Services
from clipwarden.api.openapi import Responses, errors, finer
from clipwarden.api.routes import parse_id
from clipwarden.api.serving import UNKNOWN, Served, serve
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import Analysis, BranchResult, MediaProbe
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.evidence import evidence_key

CONTAINERS: Final = {
    "mov": "mp4",
    "matroska": "webm",
    "avi": "x-msvideo",
    "mpegts": "mp2t",
    "mpeg": "mpeg",
    "ogg": "ogg",
    "flac": "flac",
    "wav": "wav",
    "mp3": "mpeg",
    "jpeg_pipe": "jpeg",
    "png_pipe": "png",
    "webp_pipe": "webp",
    "bmp_pipe": "bmp",
}
"""What was found in the file, not what its name says. A browser that plays WebM plays what it can of Matroska."""

SHOWN: Final = {".jpg": "image/jpeg", ".png": "image/png", ".json": "application/json"}

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
FILE: Final[Responses] = {
    200: {"description": "The file", "content": {"*/*": BINARY}},
    206: {"description": "The range asked for", "content": {"*/*": BINARY}},
    **finer(416, "What is asked for is not one range of the file."),
    **errors(ProblemCode.NOT_FOUND),
}

router = APIRouter(tags=["files"])


def opened(analysis_id: str, request: Request, gateway: Services) -> Analysis:
    """The analysis that a signed link, or else a key, opens. Raises ProblemError.

    A signature is judged alone: one that is not ours opens nothing, whoever sends it.
    """
    known, query = parse_id(analysis_id), request.query_params
    if "signature" not in query:
        return gateway.analysis(Having(Scope.READ).of(request), known)
    found = gateway.store.analysis(known)
    if found is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    gateway.signer.check(found.tenant_id, request.scope["path"], query.get("expires", ""), query["signature"])
    return found


Opened = Annotated[Analysis, Depends(opened)]


def media_type(probe: MediaProbe | None) -> str:
    """What a browser may take the file for, by what was found in it; unknown until it was read."""
    if probe is None or probe.container not in CONTAINERS:
        return UNKNOWN
    return f"{probe.kind}/{CONTAINERS[probe.container]}"


@router.get("/v1/analyses/{analysis_id}/media", response_class=Response, responses=FILE)
@router.head("/v1/analyses/{analysis_id}/media", include_in_schema=False)
def media(analysis: Opened, request: Request, gateway: Services) -> Response:
    """The file that was sent, as long as it is kept: whole or one range of it. A signed link needs no key."""
    if analysis.upload_key is None:
        raise ProblemError(ProblemCode.NOT_FOUND, "This file is no longer kept.")
    what = Served(analysis.upload_key, media_type(analysis.probe), analysis.filename, analysis.sha256)
    return serve(request, gateway.blobs, what)


@router.get("/v1/analyses/{analysis_id}/evidence/{branch}/{detector}/{name}", response_class=Response, responses=FILE)
@router.head("/v1/analyses/{analysis_id}/evidence/{branch}/{detector}/{name}", include_in_schema=False)
def evidence(analysis: Opened, branch: str, detector: str, name: str, request: Request, gateway: Services) -> Response:
    """A picture, or scores over time, that a detector left. A signed link needs no key."""
    row = next((s for s in analysis.stages if s.stage == branch and s.outcome is not None), None)
    key = evidence_key(BranchResult.model_validate(row.outcome), detector, name) if row else None
    if key is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    kind = SHOWN.get(PurePosixPath(name).suffix, UNKNOWN)
    return serve(request, gateway.blobs, Served(key, kind, name, key.replace("/", "-")))
