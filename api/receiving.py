"""Receiving bodies: a file's bytes go straight into a blob writer as they arrive, in a form or by themselves.

At most about a megabyte of an upload is in memory at a time, with a bucket also the parts on their way there. Writing
and hashing run in a thread, seldom and much at once: a change of thread costs more than a hundred kilobytes of either.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from clipwarden.api.options import FORM_BYTES, Options, from_form
from clipwarden.shared.blobs import BlobStore, BlobWriter
from clipwarden.shared.codes import SENTENCES, ProblemCode, RejectCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.metrics import UPLOAD_BYTES, UPLOADS
from clipwarden.shared.names import safe_name

FILE_FIELD = "file"
BATCH_BYTES = 1024 * 1024
BATCH_PIECES = 1024


class Arriving:
    """A file on its way into the blob store. `last` are the bytes that are written when it is taken."""

    def __init__(self, blobs: BlobStore) -> None:
        self.last: Sequence[bytes | memoryview] = ()
        self._blobs = blobs
        self._writer: BlobWriter | None = None

    async def add(self, pieces: Sequence[bytes | memoryview]) -> None:
        await run_sync(self._write, pieces)

    def taken(self) -> BlobWriter:
        """The whole file, written but not committed. Blocks. Raises StorageFull or Unavailable."""
        last, self.last = self.last, ()
        writer = self._write(last)
        if last:
            UPLOADS.inc()
            UPLOAD_BYTES.inc(writer.size)
        return writer

    async def settle(self) -> None:
        """Forget what was not committed, also while the request is being cancelled."""
        if self._writer is not None and not self._writer.committed:
            with anyio.CancelScope(shield=True):
                await run_sync(self._writer.abort)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> BlobWriter:
        if self._writer is None:
            self._writer = self._blobs.create()
        for piece in pieces:
            self._writer.write(piece)
        return self._writer


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived, with what was asked for beside it."""

    file: Arriving
    filename: str
    options: Options


def _malformed(detail: str) -> ProblemError:
    return ProblemError(ProblemCode.BAD_REQUEST, detail)


def _invalid(detail: str) -> ProblemError:
    return ProblemError(ProblemCode.INVALID, detail)


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(ProblemCode.TOO_LARGE, f"The file is over the limit of {max_bytes} bytes; send a smaller one.")


def boundary_of(content_type: str | None) -> bytes:
    """The multipart boundary. Raises ProblemError: 415 for another content type, 400 without a boundary."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise ProblemError(ProblemCode.UNSUPPORTED_MEDIA_TYPE)
    boundary = options.get(b"boundary", b"").strip()
    if not boundary:
        raise _malformed("The Content-Type has no boundary; let the HTTP library write that header.")
    return boundary


class FormReader:
    """One `file` part and at most one each of the small fields; anything else raises ProblemError at once."""

    def __init__(self, boundary: bytes, max_file_bytes: int) -> None:
        self.filename: str | None = None
        self.file_bytes = 0
        self.values: dict[str, bytes] = {}
        self._max_file_bytes = max_file_bytes
        self._chunks: list[memoryview] = []
        self._pending_bytes = 0
        self._ended = False
        self._part = ""
        self._header, self._value, self._disposition = b"", b"", b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _malformed(f"The multipart boundary is not usable: {error}.") from error

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(f"The multipart body is malformed: {error}.") from error

    @property
    def full(self) -> bool:
        """Whether so much is parsed that it is time to take it."""
        return self._pending_bytes >= BATCH_BYTES or len(self._chunks) >= BATCH_PIECES

    def take(self) -> list[memoryview]:
        """The file's bytes parsed since the last call, as pieces of what was fed: copying costs more than all else."""
        data, self._chunks, self._pending_bytes = self._chunks, [], 0
        return data

    def finish(self) -> None:
        """Raises ProblemError unless the form was complete and had a file with something in it."""
        if not self._ended:
            raise _malformed("The multipart body ends before its last boundary; send it again in full.")
        if self.filename is None:
            raise _invalid(f"There is no field {FILE_FIELD!r}; send the file in a multipart field of that name.")
        if not self.file_bytes:
            raise _invalid(SENTENCES[RejectCode.EMPTY_FILE])

    def _on_part(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == FILE_FIELD:
            self._open_file(options.get(b"filename"))
        elif name not in FORM_BYTES:
            raise _invalid(f"The field {name[:64]!r} is not known; send the file in a field named {FILE_FIELD!r}.")
        elif name in self.values:
            raise _invalid(f"The field {name!r} was sent twice.")
        else:
            self.values[name] = b""
        self._part = name

    def _open_file(self, filename: bytes | None) -> None:
        if filename is None:
            raise _invalid(f"The field {FILE_FIELD!r} was sent as text; send it as a file with a file name.")
        if self.filename is not None:
            raise _invalid("One request takes one file; send each file in its own request.")
        unescaped = filename.replace(b"%22", b'"')  # browsers escape the quote so
        self.filename = safe_name(unescaped.decode("utf-8", "replace"))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == FILE_FIELD:
            self.file_bytes += end - start
            if self.file_bytes > self._max_file_bytes:
                raise _too_large(self._max_file_bytes)
            self._chunks.append(memoryview(data)[start:end])
            self._pending_bytes += end - start
            return
        self.values[self._part] += data[start:end]
        if len(self.values[self._part]) > FORM_BYTES[self._part]:
            raise _invalid(f"The field {self._part!r} is over {FORM_BYTES[self._part]} bytes.")

    def _on_end(self) -> None:
        self._ended = True


async def small_body(request: Request, max_bytes: int) -> bytes:
    """A body that is held in memory. Raises ProblemError if it is larger."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise ProblemError(ProblemCode.TOO_LARGE, f"The body is over {max_bytes} bytes.")
    return bytes(body)


@asynccontextmanager
async def received(request: Request, blobs: BlobStore, max_file_bytes: int) -> AsyncIterator[Upload]:
    """The request's upload; unless it was committed inside, leaving forgets every byte of it.

    Raises ProblemError for a form that is not one file, ClientDisconnect when the client leaves, StorageFull.
    """
    form = FormReader(boundary_of(request.headers.get("content-type")), max_file_bytes)
    async with _arriving(blobs) as file:
        async for chunk in request.stream():
            if form.full:
                await file.add(form.take())
            form.feed(chunk)
        form.finish()
        file.last = form.take()
        yield Upload(file, form.filename or "", from_form(form.values))


@asynccontextmanager
async def received_alone(request: Request, blobs: BlobStore, max_file_bytes: int) -> AsyncIterator[Arriving]:
    """The request's body as a file; unless it was committed inside, leaving forgets every byte of it."""
    pending: list[bytes] = []
    size = pending_bytes = 0
    async with _arriving(blobs) as file:
        async for chunk in request.stream():
            if pending_bytes >= BATCH_BYTES or len(pending) >= BATCH_PIECES:
                await file.add(pending)
                pending, pending_bytes = [], 0
            pending.append(chunk)
            pending_bytes += len(chunk)
            size += len(chunk)
            if size > max_file_bytes:
                raise _too_large(max_file_bytes)
        if not size:
            raise _invalid(SENTENCES[RejectCode.EMPTY_FILE])
        file.last = pending
        yield file


@asynccontextmanager
async def _arriving(blobs: BlobStore) -> AsyncIterator[Arriving]:
    file = Arriving(blobs)
    try:
        yield file
    finally:
        await file.settle()
