"""`GET /v1/analyses/{id}/events`: an analysis as it changes, by server-sent events.

Each event is the whole analysis, and its id says what it showed: a client that comes back with the id it saw last gets
the next news only. A client that reads slowly misses what was overtaken, never the end.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response, StreamingResponse

from clipwarden.api.access import Caller, Keyring, Reader
from clipwarden.api.changes import Changes
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.openapi import Responses, errors
from clipwarden.api.routes import parse_id
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import TERMINAL_STATES, Analysis
from clipwarden.shared.errors import ClipwardenError, ProblemError, Unavailable
from clipwarden.shared.metrics import EVENT_STREAMS

HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 2000
AGAIN_S: Final = 1.0
"""Pause before an analysis that could not be read is read again."""
FULL_RETRY_S: Final = 10

EVENT: Final = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Of what was shown; comes back as Last-Event-ID"},
        "event": {"const": "analysis"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/AnalysisView"},
        },
    },
}
EVENTS: Final[Responses] = {
    200: {
        "description": "Events named `analysis`, each with the analysis as JSON; the last one has ended",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    204: {"description": "The client has seen the end; do not come back"},
    **errors(ProblemCode.NOT_FOUND, ProblemCode.RATE_LIMITED),
}

router = APIRouter(tags=["analyses"])


class Streams:
    """How many event streams each key holds open here, or each tenant where there are no keys."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[UUID] = Counter()

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """Raises ProblemError if there is none left."""
        holder = caller.key_id or caller.tenant_id
        if self._open[holder] >= self._most:
            detail = f"{self._most} event streams are open already; close one, or poll."
            raise ProblemError(ProblemCode.RATE_LIMITED, detail, retry_after_s=FULL_RETRY_S)
        self._open[holder] += 1
        try:
            with EVENT_STREAMS.track_inprogress():
                yield
        finally:
            self._open[holder] -= 1
            if not self._open[holder]:
                del self._open[holder]


def version(analysis: Analysis) -> str:
    """An id of what the analysis says, the same in every process."""
    return hashlib.sha256(analysis.model_dump_json().encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Shown:
    """An analysis as an event tells it."""

    named: str
    event: str
    ended: bool


def shown(gateway: Gateway, caller: Caller, analysis_id: UUID) -> Shown:
    """Blocks. Raises ProblemError if there is no such analysis, or Unavailable."""
    analysis = gateway.analysis(caller, analysis_id)
    named, data = version(analysis), gateway.view(analysis).model_dump_json()
    return Shown(named, f"id: {named}\nevent: analysis\ndata: {data}\n\n", analysis.state in TERMINAL_STATES)


async def placed(request: Request, caller: Reader) -> AsyncIterator[Caller]:
    """The caller, a stream counted for it until the response has ended."""
    streams: Streams = request.app.state.streams
    with streams.place(caller):
        yield caller


@router.get("/v1/analyses/{analysis_id}/events", response_class=Response, responses=EVENTS)
async def events(
    analysis_id: str,
    request: Request,
    gateway: Services,
    caller: Annotated[Caller, Depends(placed)],
    last_event_id: Annotated[str | None, Header(description="Id of the last event seen")] = None,
) -> Response:
    """Watch an analysis until it ends."""
    known = parse_id(analysis_id)
    first = await run_sync(gateway.analysis, caller, known)
    if first.state in TERMINAL_STATES and version(first) == last_event_id:
        return Response(status_code=204)
    told = _told(request, gateway, caller, known, last_event_id)
    return StreamingResponse(told, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _told(
    request: Request, gateway: Gateway, caller: Caller, analysis_id: UUID, seen: str | None
) -> AsyncIterator[str]:
    """The stream: the analysis now, then after each change, comments to keep it open in between.

    It ends early when the key is revoked or changed: who comes back is judged anew.
    """
    changes: Changes = request.app.state.changes
    look = partial(run_sync, shown, gateway, caller, analysis_id)
    yield f"retry: {RETRY_MS}\n\n"
    with changes.of(analysis_id) as news:
        news.set()
        while True:
            try:
                await asyncio.wait_for(news.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield ": still here\n\n"
            if not await _as_before(request, caller):
                return
            if not news.is_set():
                continue
            news.clear()
            try:
                now = await changes.shared(analysis_id, look)
            except Unavailable:
                news.set()
                await asyncio.sleep(AGAIN_S)
                continue
            except ClipwardenError:
                return  # gone: who comes back is told so
            if now.named != seen:
                seen = now.named
                yield now.event
            if now.ended:
                return


async def _as_before(request: Request, caller: Caller) -> bool:
    """Whether the request's key is still good for what it was; it is believed while that cannot be looked up."""
    keyring: Keyring = request.app.state.keyring
    try:
        return await keyring.caller(request.headers) == caller
    except Unavailable:
        return True
    except ClipwardenError:
        return False
