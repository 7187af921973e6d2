"""What the clients can do, each said once: the requests, and what their answers mean."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

from clipwarden.api.batch_schemas import BatchView, UploadView
from clipwarden.api.client.answers import answered, not_ours, read, retry_after_s
from clipwarden.api.client.progress import Progress, Shares
from clipwarden.api.client.steps import Body, Flow, Pause, Request, Together, form
from clipwarden.api.options import MOST_ITEMS
from clipwarden.api.schemas import AnalysisView, ErrorView, FeedbackView, ListView
from clipwarden.api.service_schemas import DetectorsView
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import AnalysisState, Label, Lane
from clipwarden.shared.errors import ClipwardenError, ConfigError, ProblemError, Unavailable

ANALYSES: Final = "/v1/analyses"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
OF_THE_FILE: Final = frozenset({ProblemCode.INVALID, ProblemCode.TOO_LARGE})
"""Problems for which one file of many is left out."""

Id = UUID | str
Source = Path | str
"""A file, or the address of one if it begins with http:// or https://."""


class Options(TypedDict, total=False):
    """What may be asked for beside a file; what is None is left to the gateway.

    `reuse` allows the findings of an earlier analysis of the same content to be taken over.
    """

    tag: str | None
    metadata: Mapping[str, Any] | None
    detectors: Sequence[str] | None
    policy: str | None
    lane: Lane | Literal["realtime", "bulk"] | None
    callback_url: str | None
    reuse: bool | None


class Filters(TypedDict, total=False):
    """Which analyses to list, and which page of them."""

    state: AnalysisState | str
    label: Label | str
    tag: str
    lane: Lane | str
    batch: Id
    created_after: datetime
    created_before: datetime
    probability_min: float
    probability_max: float
    reviewed: bool
    limit: int
    cursor: str


@dataclass(frozen=True, slots=True)
class Item:
    """What became of one source of a batch: its analysis, which may have ended already, or why it has none."""

    source: Source
    id: UUID | None
    state: AnalysisState | None = None
    label: Label | None = None
    error: ErrorView | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch as it was taken, and its items as their sources were given; None if no source could be sent."""

    batch: BatchView | None
    items: tuple[Item, ...]


def is_address(source: Source) -> bool:
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def submit(
    source: Source,
    *,
    progress: Progress | None = None,
    idempotency_key: str | None = None,
    **options: Unpack[Options],
) -> Flow[AnalysisView]:
    """Have a file examined. It is sent again if that fails, under a key that opens one analysis only."""
    given = {name: value for name, value in options.items() if value is not None}
    headers = _once(idempotency_key)
    if is_address(source):
        request = Request("POST", ANALYSES, headers=headers, json={"url": source, **given})
    else:
        fields = {name: _field(value) for name, value in given.items()}
        request = Request("POST", ANALYSES, headers=headers, body=form(Path(source), fields, progress))
    return read(AnalysisView, (yield from answered(request)))


def upload(
    path: Path | str, *, progress: Progress | None = None, idempotency_key: str | None = None
) -> Flow[UploadView]:
    """Send a file ahead, for an analysis or a batch to name."""
    body = Body(Path(path), progress=progress)
    named = "".join(body.path.name.splitlines())  # no route has a line break
    name = quote(named.encode("utf-8", "surrogateescape"), safe="")
    reply = yield from answered(Request("PUT", f"/v1/uploads/{name}", headers=_once(idempotency_key), body=body))
    return read(UploadView, reply)


def submit_batch(
    sources: Sequence[Source],
    *,
    progress: Progress | None = None,
    idempotency_key: str | None = None,
    **options: Unpack[Options],
) -> Flow[Sent]:
    """Have many files examined: they are sent ahead side by side, then named in one batch, which gets the tag too.

    A file that cannot be read or taken is left out, and its item says why. `progress` is of all files together.
    Under the same key the same files are the same batch: the key of each file follows from it.
    """
    if not 0 < len(sources) <= MOST_ITEMS:
        raise ConfigError(f"a batch has 1 to {MOST_ITEMS} files, not {len(sources)}")
    key = idempotency_key or uuid4().hex
    ahead = yield Together(_ahead(sources, progress, key))
    given = {name: value for name, value in options.items() if value is not None}
    named = [i for i, found in enumerate(ahead) if not isinstance(found, ErrorView)]
    if not named:
        return Sent(None, tuple(Item(s, None, error=e) for s, e in zip(sources, ahead, strict=True)))
    content = {"items": [{**ahead[i], **given} for i in named], "tag": options.get("tag")}
    request = Request("POST", "/v1/batches", headers=_once(key), json=content)
    taken = read(BatchView, (yield from answered(request)))
    told = dict(zip(named, taken.items, strict=True))
    return Sent(taken, tuple(_item(s, told.get(i) or ahead[i]) for i, s in enumerate(sources)))


def get(analysis_id: Id) -> Flow[AnalysisView]:
    """Read an analysis."""
    return read(AnalysisView, (yield from answered(Request("GET", _address(analysis_id)))))


def report(analysis_id: Id) -> Flow[str]:
    """The report on an analysis that ended, as one HTML document."""
    reply = yield from answered(Request("GET", _address(analysis_id, "report")))
    if not reply.headers.get("Content-Type", "").startswith("text/html"):
        raise not_ours(reply)
    return reply.text


def get_all(analysis_ids: Sequence[Id]) -> Flow[list[AnalysisView]]:
    """Read many analyses, in the order of their ids."""
    found: list[AnalysisView] = yield Together([get(each) for each in analysis_ids])
    return found


def wait(
    analysis_id: Id, timeout_s: float, progress: Callable[[AnalysisView], None] | None = None
) -> Flow[AnalysisView]:
    """Read an analysis until it ended, at the pace the gateway asks for. Raises Unavailable after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        reply = yield from answered(Request("GET", _address(analysis_id)))
        view = read(AnalysisView, reply)
        if progress:
            progress(view)
        if view.ended:
            return view
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Unavailable(
                f"the analysis {view.id} is {view.state} after {timeout_s:g} s: `clipwarden status {view.id}`"
            )
        yield Pause(min(retry_after_s(reply) or FIRST_PAUSE_S, LONGEST_PAUSE_S, left_s))


def batch(batch_id: Id, *, start: int = 0, limit: int = MOST_ITEMS) -> Flow[BatchView]:
    """Read how a batch gets on, and what became of its items from `start` on."""
    page = {"start": str(start), "limit": str(limit)}
    reply = yield from answered(Request("GET", f"/v1/batches/{_id(batch_id)}", params=page))
    return read(BatchView, reply)


def wait_batch(batch_id: Id, timeout_s: float, progress: Callable[[BatchView], None] | None = None) -> Flow[BatchView]:
    """Read a batch until all its analyses ended, ever less often. Raises Unavailable after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause_s = FIRST_PAUSE_S
    while True:
        view = yield from batch(batch_id, limit=1)
        if progress:
            progress(view)
        if view.ended == view.accepted:
            return (yield from batch(batch_id))
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise Unavailable(f"of the batch {view.id} {view.ended} of {view.accepted} ended after {timeout_s:g} s")
        yield Pause(min(pause_s, left_s))
        pause_s = min(pause_s * 1.2, LONGEST_PAUSE_S)


def analyses(**filters: Unpack[Filters]) -> Flow[ListView]:
    """List analyses, newest first; `next` of a page is the `cursor` of the one after it."""
    params = {n: v.isoformat() if isinstance(v, datetime) else str(v) for n, v in filters.items() if v is not None}
    return read(ListView, (yield from answered(Request("GET", ANALYSES, params=params))))


def cancel(analysis_id: Id) -> Flow[AnalysisView]:
    """End an analysis that has not ended."""
    return read(AnalysisView, (yield from answered(Request("POST", _address(analysis_id, "cancel")))))


def rerun(analysis_id: Id, *, idempotency_key: str | None = None) -> Flow[AnalysisView]:
    """Examine the same file again, as a new analysis."""
    request = Request("POST", _address(analysis_id, "rerun"), headers=_once(idempotency_key))
    return read(AnalysisView, (yield from answered(request)))


def delete(analysis_id: Id) -> Flow[AnalysisView]:
    """Delete the file, the evidence and all that was found."""
    return read(AnalysisView, (yield from answered(Request("DELETE", _address(analysis_id)))))


def feedback(
    analysis_id: Id,
    label: Literal["real", "fake", "unknown"],
    category: Literal["false_positive", "false_negative", "confirmation", "other"],
    comment: str | None = None,
) -> Flow[FeedbackView]:
    """Say what the clip really is."""
    said = {"label": label, "category": category, "comment": comment}
    request = Request("POST", _address(analysis_id, "feedback"), headers=_once(None), json=said)
    return read(FeedbackView, (yield from answered(request)))


def detectors() -> Flow[DetectorsView]:
    """What new analyses are examined with, and the policies there are."""
    return read(DetectorsView, (yield from answered(Request("GET", "/v1/detectors"))))


def _once(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": f'"{key or uuid4().hex}"'}


def _id(given: Id) -> UUID:
    try:
        return UUID(str(given))
    except ValueError as error:
        raise ConfigError(f"{given!r} is not an analysis id") from error


def _address(analysis_id: Id, *more: str) -> str:
    return "/".join((ANALYSES, str(_id(analysis_id)), *more))


def _field(value: Any) -> str:
    """An option as a form has it."""
    if isinstance(value, str):
        return value
    return ",".join(value) if isinstance(value, Sequence) else json.dumps(value)


def _ahead(sources: Sequence[Source], progress: Progress | None, key: str) -> list[Flow[dict[str, str] | ErrorView]]:
    """How an item names each source, once that was sent ahead if it is a file."""
    shares = Shares([0 if is_address(s) else _size(Path(s)) for s in sources], progress)
    keys = [hashlib.sha256(f"{key}/{i}".encode()).hexdigest() for i in range(len(sources))]
    return [_named(source, shares, i, keys[i]) for i, source in enumerate(sources)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _named(source: Source, shares: Shares, index: int, key: str) -> Flow[dict[str, str] | ErrorView]:
    if is_address(source):
        return {"url": str(source)}
    try:
        kept = yield from upload(Path(source), progress=shares.of(index), idempotency_key=key)
    except ClipwardenError as error:
        if isinstance(error, ConfigError) or (isinstance(error, ProblemError) and error.code in OF_THE_FILE):
            return ErrorView(code=error.code, message=str(error))
        raise
    finally:
        shares.end(index)
    return {"upload": str(kept.id)}


def _item(source: Source, told: Any) -> Item:
    if isinstance(told, ErrorView):
        return Item(source, None, error=told)
    return Item(source, told.id, told.state, told.label, told.error)
