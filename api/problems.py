"""Errors as RFC 9457 problem documents: the one table from code to HTTP status, and the handlers that use it."""

from collections.abc import Mapping
from typing import TypedDict

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from clipwarden.api.telemetry import METHODS
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode
from clipwarden.shared.errors import ClipwardenError, ProblemError, Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.metrics import PROBLEMS

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5

STATUS: dict[str, int] = {
    ProblemCode.BAD_REQUEST: 400,
    ProblemCode.UNAUTHORIZED: 401,
    ProblemCode.FORBIDDEN: 403,
    ProblemCode.NOT_FOUND: 404,
    ProblemCode.CONFLICT: 409,
    ProblemCode.IDEMPOTENCY_IN_PROGRESS: 409,
    ProblemCode.TOO_LARGE: 413,
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ProblemCode.INVALID: 422,
    ProblemCode.IDEMPOTENCY_MISMATCH: 422,
    ProblemCode.RATE_LIMITED: 429,
    ProblemCode.OVERLOADED: 503,
    ProblemCode.UNAVAILABLE: 503,
    ProblemCode.STORAGE_FULL: 507,
    FailCode.INTERNAL: 500,
}

log = logger(__name__)


class Problem(BaseModel):
    """An error, as RFC 9457 writes it, with our stable `code` and the id under which the log knows the request."""

    type: str = Field(examples=["urn:clipwarden:problem:not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is nothing at this address; check the id."])
    instance: str = Field(examples=["/v1/analyses/019f0000-0000-7000-8000-000000000000"])
    code: str = Field(examples=["not_found"])
    request_id: str = Field(examples=["019f00000000700080000000000000ff"])


def problem(
    code: str, detail: str, *, path: str, request_id: str, status: int = 0, headers: Mapping[str, str] | None = None
) -> Response:
    """The problem document of a code; `status` only where HTTP has a finer one than the table (405)."""
    PROBLEMS.labels(code).inc()
    made = Problem(
        type=f"urn:clipwarden:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status or STATUS[code],
        detail=detail,
        instance=path,
        code=code,
        request_id=request_id,
    )
    return JSONResponse(made.model_dump(), made.status, dict(headers or {}), MEDIA_TYPE)


def from_error(error: ClipwardenError, *, path: str, request_id: str) -> Response:
    """The problem document of one of our errors. What an inner service said goes to the log, not to the caller."""
    if isinstance(error, ProblemError):
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        if error.code == ProblemCode.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="clipwarden"'
        return problem(error.code, error.detail, path=path, request_id=request_id, headers=headers)
    if isinstance(error, Unavailable):
        log.warning("unavailable", code=error.code, reason=str(error), request_id=request_id)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return problem(error.code, SENTENCES[error.code], path=path, request_id=request_id, headers=headers)
    log.error("request failed", exc_info=error, request_id=request_id)
    return internal(path=path, request_id=request_id)


def internal(*, path: str, request_id: str) -> Response:
    """The problem document of a fault of ours: it says nothing but where to look."""
    detail = "The gateway failed for a reason of its own; its log names it by the request id."
    return problem(FailCode.INTERNAL, detail, path=path, request_id=request_id)


def _code_of(status: int) -> str:
    """The code of an HTTP status that the framework chose."""
    if status >= 500:
        return FailCode.INTERNAL
    return next((code for code, known in STATUS.items() if known == status), ProblemCode.BAD_REQUEST)


class _Where(TypedDict):
    path: str
    request_id: str


def _where(request: Request) -> _Where:
    return {"path": request.url.path, "request_id": request.state.request_id}


async def _on_own(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClipwardenError)
    return from_error(error, **_where(request))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ClipwardenError):  # the framework wraps what reading the body raised
        return from_error(error.__cause__, **_where(request))
    code = _code_of(error.status_code)
    detail = SENTENCES[code] if code == ProblemCode.NOT_FOUND else f"{error.detail}."
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(code, detail, status=error.status_code, headers=headers, **_where(request))


def _allowed(request: Request) -> str:
    """What any route of the request's address takes; the framework names what the first of them does."""
    takes = {
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
    return ", ".join(sorted(takes))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return problem(ProblemCode.INVALID, wrong, **_where(request))


def install(app: FastAPI) -> None:
    """Answer every expected error with a problem document; the guard answers the unexpected ones."""
    app.add_exception_handler(ClipwardenError, _on_own)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
