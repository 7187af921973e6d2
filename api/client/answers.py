"""A request's answer, asked for again while that may help, and the gateway's problems as our own errors.

Every request of the client may be repeated: it reads, or says the same again, or carries an Idempotency-Key.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from clipwarden.api.client.steps import Flow, Pause, Request
from clipwarden.api.schema import View
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ClipwardenError, ProblemError, Unavailable

PAUSES_S: Final = (0.5, 1.0, 2.0)
"""Before each repetition where the gateway does not say how long."""
PATIENCE_S: Final = 60.0
"""How long in all the gateway may put a request off."""
PUT_OFF: Final = frozenset({409, 429, 503})
"""What is worth repeating after Retry-After: a 409 with it says that the same request is under way."""
PASSING: Final = frozenset({502, 503, 504})
SHORTEST_PAUSE_S: Final = 0.05

V = TypeVar("V", bound=View)


def answered(request: Request) -> Flow[httpx.Response]:
    """The answer to a request. Raises ProblemError or Unavailable when repeating it has not helped."""
    pauses, waited_s = iter(PAUSES_S), 0.0
    while True:
        reply: httpx.Response | Unavailable = yield request
        if isinstance(reply, httpx.Response) and reply.is_success:
            return reply
        pause_s = _pause_s(reply, pauses)
        if pause_s is None or waited_s + pause_s > PATIENCE_S:
            raise reply if isinstance(reply, Unavailable) else error_of(reply)
        waited_s += pause_s
        yield Pause(pause_s)


def _pause_s(reply: httpx.Response | Unavailable, pauses: Iterator[float]) -> float | None:
    """How long to wait before asking again, by itself one of `pauses`; None if that would not help."""
    if isinstance(reply, httpx.Response):
        asked_s = retry_after_s(reply)
        if asked_s is not None and reply.status_code in PUT_OFF:
            return asked_s
        if reply.status_code not in PASSING:
            return None
    return next(pauses, None)


def retry_after_s(reply: httpx.Response) -> float | None:
    """What the answer says in Retry-After, as seconds or as a date; None if it does not say."""
    said = reply.headers.get("Retry-After", "")
    try:
        seconds: float = int(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, SHORTEST_PAUSE_S)


def read(view: type[V], reply: httpx.Response) -> V:
    """The answer as a value. Raises Unavailable if no Clipwarden gateway gave it."""
    try:
        return view.model_validate_json(reply.content)
    except ValidationError as error:
        raise not_ours(reply) from error


def error_of(reply: httpx.Response) -> ClipwardenError:
    """The gateway's problem document as our own error."""
    try:
        document = reply.json()
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        return not_ours(reply)
    if reply.status_code == 503:
        return Unavailable(detail)
    if code in set(ProblemCode):
        return ProblemError(ProblemCode(code), detail)
    return ClipwardenError(f"{detail} (request {document.get('request_id', 'unknown')})")


def not_ours(reply: httpx.Response) -> Unavailable:
    """What an answer says that no Clipwarden gateway gave."""
    return Unavailable(f"{reply.request.url} answered {reply.status_code}, and not as a Clipwarden gateway does")
