"""`/v1/batches`: many files named in one request, each accepted or refused by itself, and how they get on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from python_multipart.multipart import parse_options_header

from clipwarden.api.access import Reader, Submitter
from clipwarden.api.batch_schemas import BatchView
from clipwarden.api.gateway import Services
from clipwarden.api.guard import BATCH_BYTES
from clipwarden.api.idempotency import Once, fingerprint, once
from clipwarden.api.limits import Limits
from clipwarden.api.openapi import BATCH, OPENING, errors, headers
from clipwarden.api.options import MOST_ITEMS, Batch, Named, checked, from_json
from clipwarden.api.receiving import small_body
from clipwarden.api.routes import parse_id
from clipwarden.api.submitting import JSON_TYPE, Asking, of_kept, parsed
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import Lane
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.store import KeptBatch, KeptUpload, NewAnalysis, NewBatch, Refused

PAGE: Final = 100

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class Page(BaseModel):
    """Which items to show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(0, ge=0, le=MOST_ITEMS, description="Index of the first item")
    limit: int = Field(PAGE, ge=1, le=MOST_ITEMS)


@router.post(
    "",
    status_code=202,
    response_model=BatchView,
    openapi_extra=BATCH,
    responses={202: headers(Location="Where to read the batch"), **errors(*OPENING)},
)
async def submit(request: Request, response: Response, gateway: Services, caller: Submitter) -> BatchView:
    """Have many files examined. Items that cannot be taken are refused one by one; the others are taken all at once."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != JSON_TYPE:
        raise ProblemError(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send a batch as application/json.")
    limits: Limits = request.app.state.limits
    asking = Asking(gateway, caller, await run_sync(gateway.pipeline), Lane.BULK)
    async with once(request, gateway, caller) as held:
        new = await run_sync(_read, asking, body := await small_body(request, BATCH_BYTES))
        async with limits.room(caller, 0 if held.repeated else len(new.opening)):
            batch = await run_sync(_open, asking, new, held, fingerprint("batch", hashlib.sha256(body).hexdigest()))
    if not held.repeated:
        lanes = [item.lane for item in new.opening]
        ids = [item.analysis_id for item in batch.items if item.analysis_id]
        gateway.send_later(list(zip(ids, lanes, strict=True)))
    view = BatchView.from_domain(batch)
    response.headers["Location"] = view.links["self"]
    return view


@router.get("/{batch_id}", response_model=BatchView, responses=errors(ProblemCode.NOT_FOUND, ProblemCode.INVALID))
def show(batch_id: str, page: Annotated[Page, Query()], gateway: Services, caller: Reader) -> BatchView:
    """Read how a batch gets on."""
    found = gateway.store.batch(parse_id(batch_id), caller.tenant_id, page.start, page.limit)
    if found is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    return BatchView.from_domain(found)


@dataclass(frozen=True, slots=True)
class _Read:
    """A batch that was read: the analyses to open and the refusals in order, and the files sent ahead they name."""

    items: list[NewAnalysis | Refused]
    upload_ids: frozenset[UUID]
    tag: str | None

    @property
    def opening(self) -> list[NewAnalysis]:
        return [item for item in self.items if isinstance(item, NewAnalysis)]


def _read(asking: Asking, body: bytes) -> _Read:
    """Raises ProblemError for what is no batch at all."""
    batch = checked(Batch, parsed(body))
    named = [_named(value) for value in batch.items]
    kept = asking.kept({item.upload for item in named if isinstance(item, Named) and item.upload})
    items = [item if isinstance(item, Refused) else _asked(asking, item, kept) for item in named]
    return _Read(items, frozenset(kept), batch.tag)


def _named(value: Any) -> Named | Refused:
    try:
        return from_json(value)
    except ProblemError as error:
        return Refused(error.code, error.detail)


def _asked(asking: Asking, named: Named, kept: Mapping[UUID, KeptUpload]) -> NewAnalysis | Refused:
    try:
        new = asking.asked(named.options)
        return of_kept(new, named.upload, kept) if named.upload else asking.of_url(new, named.url or "")
    except ProblemError as error:
        return Refused(error.code, error.detail)


def _open(asking: Asking, new: _Read, held: Once, mark: str) -> KeptBatch:
    """The batch as it was opened, or before."""
    store, tenant_id = asking.gateway.store, asking.caller.tenant_id
    batch_id = held.opened(mark)
    if batch_id is None:
        batch_id = store.open_batch(NewBatch(tenant_id, new.items, new.upload_ids, new.tag), held.claim, mark)
    found = store.batch(batch_id, tenant_id, 0, MOST_ITEMS)
    assert found is not None, "batches are never deleted"
    return found
