"""Answering with a blob: whole or one range of it (RFC 9110, 14), in a response that cannot act as a page of ours."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from clipwarden.api.problems import problem
from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import BlobGone, ProblemError

SANDBOX: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
UNKNOWN: Final = "application/octet-stream"
RANGE = re.compile(r"\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")
MOST_RANGES: Final = 100

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Served:
    """A blob to answer with. `tag` changes with its content; what is of no known type is for saving only."""

    key: str
    media_type: str
    filename: str
    tag: str


def serve(request: Request, blobs: BlobStore, what: Served) -> Response:
    """The response to GET or HEAD. Raises ProblemError if the blob is gone, or Unavailable."""
    try:
        size = blobs.size(what.key)
    except BlobGone as error:
        raise ProblemError(ProblemCode.NOT_FOUND, "This file is no longer kept.") from error
    headers = _headers(what)
    wanted = _wanted(request, headers["ETag"], size)
    if wanted is None:
        return _unsatisfiable(request, size)
    (start, end), status = wanted
    headers["Content-Length"] = str(end - start)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=what.media_type)
    return StreamingResponse(_begun(blobs.pieces(what.key, start, end)), status, headers, what.media_type)


def spans(header: str, size: int) -> list[Span] | None:
    """The ranges of a Range header that the file can satisfy, those that touch made one; None if it asks for none.

    What is no list of byte ranges is to be ignored, says the standard.
    """
    unit, _, listed = header.partition("=")
    matches = [RANGE.fullmatch(each) for each in listed.split(",", MOST_RANGES)]
    if unit.strip().lower() != "bytes" or not all(m and (m[1] or m[2]) for m in matches):
        return None
    asked = [_span(m[1], m[2], size) for m in matches if m]
    if any(first > last for first, last in asked):
        return None
    joined: list[Span] = []
    for start, end in sorted((first, min(last + 1, size)) for first, last in asked if first < size):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _span(first: str, last: str, size: int) -> Span:
    """First and last byte, inclusive; a last one without a first counts from the end."""
    if not first:
        return (max(size - int(last), 0), max(size - 1, 0)) if int(last) else (size, size)
    return int(first), int(last) if last else max(size - 1, int(first))


def _wanted(request: Request, tag: str, size: int) -> tuple[Span, int] | None:
    """Which bytes to send under which status; None if nothing of what is asked for is one range of the file."""
    header, condition = request.headers.get("range"), request.headers.get("if-range")
    found = spans(header, size) if header and condition in {None, tag} else None
    if found is None:
        return (0, size), 200
    return (found[0], 206) if len(found) == 1 else None


def _unsatisfiable(request: Request, size: int) -> Response:
    return problem(
        ProblemCode.BAD_REQUEST,
        f"Ask for one range within the file's {size} bytes.",
        path=request.url.path,
        request_id=request.state.request_id,
        status=416,
        headers={"Content-Range": f"bytes */{size}"},
    )


def _headers(what: Served) -> dict[str, str]:
    shown = "attachment" if what.media_type == UNKNOWN else "inline"
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{what.tag}"',
        "Content-Disposition": f"{shown}; filename*=utf-8''{quote(what.filename, safe='')}",
        "Content-Security-Policy": SANDBOX,
    }


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, the first one read before a status is sent."""
    first = next(pieces, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from pieces

    return all_of_them()
