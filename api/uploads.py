"""`/v1/uploads`: files sent ahead, by themselves, for analyses that name them later."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from clipwarden.api.access import Caller, Submitter
from clipwarden.api.batch_schemas import UploadView
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.idempotency import Once, fingerprint, once
from clipwarden.api.limits import Limits
from clipwarden.api.openapi import FILE, KEY, OPENING, errors
from clipwarden.api.receiving import Arriving, received_alone
from clipwarden.api.routes import parse_id
from clipwarden.api.schema import View
from clipwarden.shared.blobs import UPLOADS, BlobWriter
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import BlobGone, ProblemError
from clipwarden.shared.ids import new_id
from clipwarden.shared.names import safe_name
from clipwarden.shared.store import KeptUpload, NewUpload

PUT_S: Final = 3600.0
"""How long an address takes a file."""
COMPLETERS: Final = 4
"""Files that are read to their end at once: so that other requests find a thread."""
DIGESTS: Final = ("content-digest", "repr-digest")
SHA256_MEMBER = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):\s*(?=,|;|$)")

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


class Announced(BaseModel):
    """A file that the caller will put into the bucket by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filename: str = Field(max_length=1024, examples=["clip.mp4"])
    bytes: int = Field(gt=0, examples=[1234567])
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hexadecimal SHA-256 of the file", examples=["0" * 64])


class PutView(View):
    """How to put the file there: one PUT of its bytes to this address, without a key of ours."""

    url: str
    headers: dict[str, str]
    expires_at: datetime


class AnnouncedView(View):
    """A file that is awaited. It is complete once `links.complete` was posted to."""

    id: UUID
    put: PutView
    links: dict[str, str]


@router.post(
    "",
    status_code=201,
    response_model=AnnouncedView,
    openapi_extra={"parameters": [KEY]},
    responses=errors(
        ProblemCode.INVALID,
        ProblemCode.CONFLICT,
        ProblemCode.UNAVAILABLE,
        ProblemCode.IDEMPOTENCY_IN_PROGRESS,
        ProblemCode.IDEMPOTENCY_MISMATCH,
    ),
)
async def announce(announced: Announced, request: Request, gateway: Services, caller: Submitter) -> AnnouncedView:
    """Ask for an address to put a file to that does not go through the gateway; where files are kept in a bucket."""
    if announced.bytes > gateway.settings.max_upload_bytes:
        raise ProblemError(ProblemCode.TOO_LARGE)
    limits: Limits = request.app.state.limits
    async with (
        once(request, gateway, caller) as held,
        limits.room_ahead(caller, 0 if held.repeated else announced.bytes),
    ):
        return await run_sync(_announced, gateway, caller, announced, held)


def _announced(gateway: Gateway, caller: Caller, announced: Announced, held: Once) -> AnnouncedView:
    mark = fingerprint("announced", announced.model_dump())
    kept = _before(gateway, caller, held, mark)
    key = kept.blob_key if kept else f"{UPLOADS}/{new_id().hex}"
    url = gateway.blobs.put_url(key, PUT_S)
    if url is None or (kept and kept.whole):
        raise ProblemError(
            ProblemCode.CONFLICT,
            "The file is there already." if kept else "There is no bucket here: send the file to PUT /v1/uploads/NAME.",
        )
    expires_at = datetime.now(UTC) + timedelta(seconds=PUT_S)
    new = NewUpload(
        caller.tenant_id, safe_name(announced.filename), key, announced.bytes, announced.sha256, whole=False
    )
    kept = kept or gateway.store.keep_upload(new, gateway.settings.sent_ahead_s, held.claim, mark)
    return AnnouncedView(
        id=kept.id,
        put=PutView(url=url, headers={}, expires_at=expires_at),
        links={"complete": f"/v1/uploads/{kept.id}/complete"},
    )


@router.post(
    "/{upload_id}/complete",
    response_model=UploadView,
    responses=errors(ProblemCode.NOT_FOUND, ProblemCode.INVALID, ProblemCode.CONFLICT),
)
async def complete(upload_id: str, request: Request, gateway: Services, caller: Submitter) -> UploadView:
    """Say that the file is there. It is read once, to see that it is the one that was announced."""
    known, kept_s = parse_id(upload_id), gateway.settings.sent_ahead_s
    kept = (await run_sync(gateway.store.kept_uploads, [known], caller.tenant_id, kept_s)).get(known)
    if kept is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    if not kept.whole:
        await run_sync(_complete, gateway, kept, limiter=request.app.state.completers)
    return UploadView.from_domain(kept)


@router.put(
    "/{filename:path}",
    status_code=201,
    response_model=UploadView,
    openapi_extra=FILE,
    responses=errors(*OPENING),
)
async def put(filename: str, request: Request, gateway: Services, caller: Submitter) -> UploadView:
    """Send a file ahead, as the body. A `Content-Digest` or `Repr-Digest` with `sha-256` is checked."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ProblemError(ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send the file as it is, without a Content-Encoding.")
    expected = {name: digest for name in DIGESTS if (digest := _digest(request.headers.get(name, ""))) is not None}
    limits: Limits = request.app.state.limits
    most_bytes = gateway.settings.max_upload_bytes
    async with (
        once(request, gateway, caller) as held,
        limits.room_ahead(caller, 0 if held.repeated else _length(request, most_bytes)),
        received_alone(request, gateway.blobs, most_bytes) as file,
    ):
        kept = await run_sync(_taken, gateway, caller, file, expected, safe_name(filename), held)
        return UploadView.from_domain(kept)


def _length(request: Request, most_bytes: int) -> int:
    """How large the body is, or may be where that is not said."""
    return most_bytes if "transfer-encoding" in request.headers else int(request.headers.get("content-length", 0))


def _digest(header: str) -> str | None:
    """The SHA-256 of a digest header (RFC 9530) in hexadecimal; None if it has none. Raises ProblemError."""
    found = SHA256_MEMBER.search(header)
    if found is None:
        return None
    try:
        raw = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise ProblemError(ProblemCode.BAD_REQUEST, "The digest sha-256 is not 32 bytes in Base64.")
    return raw.hex()


def _before(gateway: Gateway, caller: Caller, held: Once, mark: str) -> KeptUpload | None:
    """What an earlier request with the key sent ahead. Raises ProblemError if that was another one, or is gone."""
    known = held.opened(mark)
    if known is None:
        return None
    kept = gateway.store.kept_uploads([known], caller.tenant_id, gateway.settings.sent_ahead_s).get(known)
    if kept is None:
        raise ProblemError(ProblemCode.CONFLICT, "The file sent under this key is no longer kept; use another key.")
    return kept


def _taken(
    gateway: Gateway, caller: Caller, file: Arriving, expected: Mapping[str, str], filename: str, held: Once
) -> KeptUpload:
    """The file, noted. Raises ProblemError unless it is what a header announced."""
    writer = file.taken()
    for name, digest in expected.items():
        if digest != writer.sha256:
            raise ProblemError(ProblemCode.INVALID, f"What arrived is not what {name} announced; send it again.")
    return _keep(gateway, caller, writer, filename, held)


def _keep(gateway: Gateway, caller: Caller, writer: BlobWriter, filename: str, held: Once) -> KeptUpload:
    """Commit the file and note it, unless it was before. If Postgres fails in between, the sweeper deletes it."""
    mark = fingerprint("upload", filename, writer.sha256)
    if (kept := _before(gateway, caller, held, mark)) is not None:
        return kept
    key = writer.commit()
    new = NewUpload(caller.tenant_id, filename, key, writer.size, writer.sha256)
    return gateway.store.keep_upload(new, gateway.settings.sent_ahead_s, held.claim, mark)


def _complete(gateway: Gateway, kept: KeptUpload) -> None:
    """Check a copy of the file, which no address that was given out can change, and keep that. Raises ProblemError."""
    blobs, copy = gateway.blobs, f"{UPLOADS}/{new_id().hex}"
    try:
        if blobs.size(kept.blob_key) != kept.size_bytes:
            raise ProblemError(
                ProblemCode.INVALID, f"What is there is not {kept.size_bytes} bytes; put it there again."
            )
        blobs.copy(kept.blob_key, copy)
    except BlobGone as error:
        raise ProblemError(ProblemCode.CONFLICT, "The file is not there yet; put it there first.") from error
    digest = hashlib.sha256()
    for piece in blobs.pieces(copy, 0, kept.size_bytes):
        digest.update(piece)
    same = digest.hexdigest() == kept.sha256 and blobs.size(copy) == kept.size_bytes
    ours = same and gateway.store.finish_upload(kept.id, copy)
    blobs.delete(kept.blob_key if ours else copy)
    if not same:
        raise ProblemError(ProblemCode.INVALID, "What is there is not what was announced; put it there again.")
