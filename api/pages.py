"""The page: files of ours, served as they lie in the package, under a policy that lets nothing else run."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from clipwarden.api.guard import PAGE_PREFIX
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError

START: Final = "index.html"
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Pictures, sound and data come from this gateway; no text can become markup or script, whoever wrote it."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    tag: str
    media_type: str


@cache
def _page() -> Mapping[str, _File]:
    """Every file of the page by its name, read once."""
    found = (each for each in files("clipwarden.api").joinpath("page").iterdir() if each.is_file())
    return {each.name: _file(each.name, each.read_bytes()) for each in found}


def _file(name: str, content: bytes) -> _File:
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'
    return _File(content, gzip.compress(content, mtime=0), tag, TYPES[name.rpartition(".")[2]])


@router.get(PAGE_PREFIX.rstrip("/"))
def without_slash() -> Response:
    return RedirectResponse(PAGE_PREFIX, 308)


@router.api_route(PAGE_PREFIX + "{name:path}", methods=["GET", "HEAD"])
def page(name: str, request: Request) -> Response:
    """A file of the page; what a browser has of it already is asked for again, and not sent."""
    file = _page().get(name or START)
    if file is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "ETag": file.tag,
        "Vary": "Accept-Encoding",
    }
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content = file.packed
        headers["Content-Encoding"] = "gzip"
    return Response(content, headers=headers, media_type=file.media_type)
