"""The blob store in a bucket that speaks S3, for more than one machine. Files are fetched into a cache on this one.

Address, region and credentials are read by obstore from the standard AWS_ variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a web identity, or the machine's role). Uploads larger than a part are sent
in parts, each signed with its digest, which the service checks. An upload given up is aborted there too; what a killed
process leaves is invisible and needs a rule of the bucket that ends incomplete multipart uploads.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from clipwarden.shared.blobs.cache import BlobCache, Source
from clipwarden.shared.blobs.store import PAGE, PARTIAL, STORE_ID, UPLOADS, BlobStore, BlobWriter
from clipwarden.shared.errors import BlobGone, ConfigError, StorageFull, Unavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

PART_BYTES: Final = 8 * 1024 * 1024
"""10,000 parts is the most that S3 takes, so a blob ends at 80 GiB."""
PARTS_AT_ONCE: Final = 2
PIECE_BYTES: Final = 4 * 1024 * 1024
POLL_S: Final = 0.2
CLOCK: Final = f"{PARTIAL}/clock"
CLIENT: Final["ClientConfig"] = {
    "allow_http": True,  # only an address that says http:// is spoken to so
    "connect_timeout": "5s",
    "read_timeout": "60s",
    "timeout": "3600s",  # of a whole answer, which may be gigabytes; silence is the read timeout's
}
RETRY: Final["RetryConfig"] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
FULL = re.compile(r"status code: 507|InsufficientStorage|StorageFull|QuotaExceeded|EntityTooLarge")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobGone(f"the blob store could not {action}: {_words(error)}") from error
    except (BaseError, OSError, ValueError) as error:
        if FULL.search(str(error)):
            raise StorageFull(f"the blob store has no room to {action}") from error
        raise Unavailable(f"the blob store could not {action}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The service's own words, without the dump that obstore adds."""
    return " ".join(str(error).partition("\n\nDebug source")[0].split())


class _GivenUp(Exception):  # noqa: N818 - ends a transfer on purpose
    """Thrown into a transfer: obstore then aborts the multipart upload."""


class _Transfer:
    """A multipart upload in a thread of its own, which takes pieces as they come and at most one ahead."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._pieces: Queue[bytes | memoryview | None] = Queue(maxsize=1)
        self._error: BaseException | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, args=(store, key), name="blob-transfer", daemon=True)
        self._thread.start()

    def send(self, piece: bytes | memoryview | None) -> None:
        """Queue a piece, None for the end. Raises what the transfer raised."""
        while self._thread.is_alive():
            with suppress(Full):
                self._pieces.put(piece, timeout=POLL_S)
                return
        self._raise()

    def finish(self) -> None:
        self.send(None)
        self._thread.join()
        self._raise()

    def give_up(self) -> None:
        self._given_up = True
        while self._thread.is_alive():
            with suppress(Full):
                self._pieces.put_nowait(None)
            self._thread.join(POLL_S)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, store: S3Store, key: str) -> None:
        try:
            obstore.put(
                store, key, self._arriving(), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        except _GivenUp:
            pass
        except BaseException as error:  # noqa: BLE001 - the writer's thread raises it, a panic of obstore too
            self._error = error

    def _arriving(self) -> Iterator[bytes | memoryview]:
        while (piece := self._pieces.get()) is not None:
            yield piece
        if self._given_up:
            raise _GivenUp


class S3Writer(BlobWriter):
    """Collects a blob of up to one part and sends it at once; a larger one is sent while it is written."""

    def __init__(self, store: S3Store, key: str) -> None:
        super().__init__(key)
        self._store = store
        self._small = bytearray()
        self._transfer: _Transfer | None = None

    def _append(self, chunk: bytes | memoryview) -> None:
        if self._transfer is None and len(self._small) + len(chunk) <= PART_BYTES:
            self._small += chunk
            return
        with _translated("write a blob"):
            if self._transfer is None:
                self._transfer = _Transfer(self._store, self.key)
                self._transfer.send(bytes(self._small))
                self._small.clear()
            for start in range(0, len(chunk), PIECE_BYTES):
                self._transfer.send(chunk[start : start + PIECE_BYTES])

    def _publish(self) -> None:
        with _translated("keep a blob"):
            if self._transfer is None:
                obstore.put(self._store, self.key, bytes(self._small), use_multipart=False)
            else:
                self._transfer.finish()

    def abort(self) -> None:
        if self._transfer is not None:
            self._transfer.give_up()


class S3Blobs(BlobStore):
    """A blob store under a prefix of a bucket; `s3://bucket/prefix`."""

    remedy = "set CLIPWARDEN_BLOB_URL to the right bucket and prefix"

    def __init__(self, url: str, cache_dir: Path, cache_bytes: int) -> None:
        """Nothing is asked of the service yet. Raises ConfigError for AWS_ variables that make no sense."""
        self.place = url
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        try:
            self._store = S3Store(bucket, prefix=prefix or None, client_options=CLIENT, retry_config=RETRY)
        except (BaseError, ValueError) as error:
            raise ConfigError(f"{url} cannot be used: {_words(error)}") from error
        self._cache = BlobCache(cache_dir, cache_bytes)
        self._cache.tidy()

    def store_id(self) -> str | None:
        try:
            return self.read(STORE_ID).decode("ascii").strip()
        except BlobGone:
            return None

    def set_up(self, store_id: str) -> None:
        try:
            with _translated("be set up"):
                obstore.put(self._store, STORE_ID, store_id.encode("ascii"))
        except BlobGone as error:
            raise ConfigError(f"there is no bucket for {self.place}: create it") from error

    def _writer(self, key: str) -> S3Writer:
        return S3Writer(self._store, key)

    def read(self, key: str) -> bytes:
        with _translated(f"read {key}"):
            return bytes(obstore.get(self._store, key).bytes())

    def size(self, key: str) -> int:
        with _translated(f"read {key}"):
            return int(obstore.head(self._store, key)["size"])

    def pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if start < end:
            with _translated(f"read {key}"):
                answer = obstore.get(self._store, key, options={"range": (start, end)})
                yield from (bytes(piece) for piece in answer.stream(PIECE_BYTES))

    @contextmanager
    def local(self, key: str, sha256: str = "") -> Iterator[Path]:
        """The blob's copy in this machine's cache; that of an upload, which is read once, is deleted afterwards."""
        name = self._name(key)
        try:
            with self._cache.holding(name, lambda: self._fetched(key, sha256)) as path:
                yield path
        finally:
            if key.startswith(UPLOADS):
                self._cache.drop(name)

    def _name(self, key: str) -> str:
        return hashlib.sha256(f"{self.place} {key}".encode()).hexdigest()

    def _fetched(self, key: str, sha256: str) -> Source:
        with _translated(f"read {key}"):
            answer = obstore.get(self._store, key)
            pieces = iter(answer.stream(PIECE_BYTES))
        return answer.meta["size"], _checked(pieces, key, sha256)

    def put_url(self, key: str, lifetime_s: float) -> str:
        with _translated("sign"):
            return str(obstore.sign(self._store, "PUT", key, timedelta(seconds=lifetime_s)))

    def copy(self, key: str, to: str) -> None:
        with _translated(f"copy {key}"):
            obstore.copy(self._store, key, to)

    def works(self) -> bool:
        return super().works() and self._cache.works()

    def delete(self, key: str) -> None:
        with _translated("delete"):
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                if self.store_id() is None:  # then the bucket is gone, and not the blob
                    raise
        self._cache.drop(self._name(key))

    def delete_folder(self, folder: str) -> None:
        with _translated("delete"):
            keys = [str(each["path"]) for page in obstore.list(self._store, folder) for each in page]
            obstore.delete(self._store, keys)
            for key in keys:
                self._cache.drop(self._name(key))

    def older_than(self, folder: str, age_s: float, depth: int = 1) -> Iterator[list[str]]:
        if folder == PARTIAL:  # the service shows no unfinished upload
            return
        told_at, then = self._clock
        before = told_at + timedelta(seconds=time.monotonic() - then - age_s)
        last: dict[str, datetime] = {}
        with _translated("be listed"):
            for page in obstore.list(self._store, folder, chunk_size=PAGE):
                for each in page:
                    key = "/".join(str(each["path"]).split("/")[: depth + 1])
                    last[key] = max(each["last_modified"], last.get(key, each["last_modified"]))
                found = list(last.items())  # in the order of their keys: the last may go on in the next page
                yield [key for key, when in found[:-1] if when <= before]
                last = dict(found[-1:])
        yield [key for key, when in last.items() if when <= before]

    @cached_property
    def _clock(self) -> tuple[datetime, float]:
        """What the service's clock, by which it dates what is written, said at which moment here."""
        with _translated("tell the time"):
            obstore.put(self._store, CLOCK, b"", use_multipart=False)
            told_at = obstore.head(self._store, CLOCK)["last_modified"]
            obstore.delete(self._store, CLOCK)
        return told_at, time.monotonic()

    def keys(self) -> Iterator[str]:
        with _translated("be listed"):
            found = sorted(str(each["path"]) for page in obstore.list(self._store) for each in page)
        yield from (key for key in found if key != STORE_ID)


def _checked(pieces: Iterator[bytes], key: str, sha256: str) -> Iterator[bytes]:
    """The pieces as they are; at the end raises BlobGone if they are not those of the digest."""
    digest = hashlib.sha256()
    with _translated(f"read {key}"):
        for piece in pieces:
            digest.update(piece)
            yield piece
    if sha256 and digest.hexdigest() != sha256:
        raise BlobGone(f"{key} is not what was written: its digest is another")
