"""What an operation of the client asks to be done, so that one definition serves both clients.

An operation is a generator: it yields steps, is sent what came of each, and returns its answer. Of the clients, one
does the steps where it is called, the other in an event loop.
"""

from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from anyio.to_thread import run_sync

from clipwarden.api.client.progress import Progress
from clipwarden.shared.errors import ConfigError

PIECE_BYTES = 256 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Body:
    """A file, streamed from disk at every attempt, with what comes before and after it in the request.

    Raises ConfigError if the file cannot be read.
    """

    path: Path
    content_type: str = "application/octet-stream"
    before: bytes = b""
    after: bytes = b""
    progress: Progress | None = None
    file_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "file_bytes", self.path.stat().st_size)
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def headers(self) -> dict[str, str]:
        length = len(self.before) + self.file_bytes + len(self.after)
        return {"Content-Type": self.content_type, "Content-Length": str(length)}

    def pieces(self) -> Iterator[bytes]:
        if self.before:
            yield self.before
        for piece, sent in self._read():
            self._report(sent)
            yield piece
        if self.after:
            yield self.after

    async def pieces_later(self) -> AsyncIterator[bytes]:
        """The same, read in a thread and reported in the event loop."""
        if self.before:
            yield self.before
        read = self._read()
        while (found := await run_sync(next, read, None)) is not None:
            piece, sent = found
            self._report(sent)
            yield piece
        if self.after:
            yield self.after

    def _read(self) -> Iterator[tuple[bytes, int]]:
        """Pieces of the file, each with how much of it has been read."""
        sent = 0
        try:
            with self.path.open("rb") as file:
                while piece := file.read(min(PIECE_BYTES, self.file_bytes - sent)):
                    sent += len(piece)
                    yield piece, sent
        except OSError as error:
            raise self._unreadable(error) from error
        if sent < self.file_bytes:
            raise ConfigError(f"{self.path} became shorter while it was sent")

    def _report(self, sent: int) -> None:
        if self.progress:
            self.progress(sent, self.file_bytes)

    def _unreadable(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self.path} cannot be read: {error.strerror or error}")


def form(path: Path, fields: Mapping[str, str], progress: Progress | None) -> Body:
    """A form (RFC 7578) with these fields and the file."""
    boundary = uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    named = path.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{named}"\r\n\r\n'
    return Body(
        path,
        f"multipart/form-data; boundary={boundary}",
        "".join([*parts, head]).encode("utf-8", "surrogateescape"),
        f"\r\n--{boundary}--\r\n".encode(),
        progress,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """To be sent to the gateway; what comes of it is its answer, or Unavailable if there was none."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    body: Body | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Time to let pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Operations to run side by side, a few at a time; what comes of them are their answers in order.

    The first error ends them all.
    """

    flows: Sequence["Flow[Any]"]


Step = Request | Pause | Together
Flow = Generator[Step, Any, T]
