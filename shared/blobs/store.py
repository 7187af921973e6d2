"""What a blob store is, wherever it lies. A blob is written once under its key, whole or not at all."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.ids import new_id

STORE_ID: Final = "store-id"
UPLOADS, PARTIAL, BUNDLES, EVIDENCE = "uploads", "partial", "bundles", "evidence"
PAGE: Final = 50
"""How many files are listed at once, so that there is little time for anything to name them before they are deleted."""


def bundle_folder(analysis_id: UUID) -> str:
    """Where the keys of an analysis's bundle begin."""
    return f"{BUNDLES}/{analysis_id}"


def evidence_folder(analysis_id: UUID) -> str:
    """Where the keys of an analysis's evidence begin."""
    return f"{EVIDENCE}/{analysis_id}"


class BlobWriter(ABC):
    """A new blob. Nothing is visible until `commit`; leaving the context without it leaves nothing behind."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.size = 0
        self.committed = False
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append bytes, which must stay as they are until `commit`. Raises StorageFull or Unavailable."""
        self._append(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def commit(self) -> str:
        """Make the blob durable and visible; returns its key. Raises StorageFull or Unavailable."""
        self._publish()
        self.committed = True
        return self.key

    @abstractmethod
    def abort(self) -> None:
        """Forget the blob; harmless after commit."""

    @abstractmethod
    def _append(self, chunk: bytes | memoryview) -> None: ...

    @abstractmethod
    def _publish(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class BlobStore(ABC):
    """Uploads, bundles and evidence under keys such as `uploads/…`, shared by the gateway and all workers.

    Every method blocks, and raises Unavailable while the store does not answer.
    """

    place: str
    """Where it is, for messages."""
    remedy: str
    """What an operator who finds the wrong store does."""

    @abstractmethod
    def store_id(self) -> str | None:
        """The id this store was given, None if it was never set up."""

    @abstractmethod
    def set_up(self, store_id: str) -> None:
        """Give an empty store its id. Raises ConfigError if there is no such bucket."""

    def check(self, expected: str | None) -> None:
        """Raises ConfigError unless this is the store that the database knows."""
        if expected is None:
            raise ConfigError("the database was never set up: run `clipwarden db upgrade`")
        actual = self.store_id()
        if actual != expected:
            raise ConfigError(
                f"{self.place} is not the blob store of this database ({actual or 'no store id'}, expected {expected}):"
                f" {self.remedy}"
            )

    def works(self) -> bool:
        """Whether this machine can read and write here at all; if so, what fails is a single file."""
        try:
            known = self.store_id()
            self.create().abort()
        except Unavailable:
            return False
        return known is not None

    def create(self, key: str = "") -> BlobWriter:
        """Start a blob under this key; without one, an upload under a new key."""
        return self._writer(key or f"{UPLOADS}/{new_id().hex}")

    @abstractmethod
    def _writer(self, key: str) -> BlobWriter: ...

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A small blob's bytes. Raises BlobGone."""

    @abstractmethod
    def size(self, key: str) -> int:
        """A blob's size in bytes. Raises BlobGone."""

    @abstractmethod
    def pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """A blob's bytes from `start` to before `end`, one piece in memory at a time. Raises BlobGone."""

    @abstractmethod
    def local(self, key: str, sha256: str = "") -> AbstractContextManager[Path]:
        """The blob as a complete file on this machine while the context lasts; what was opened or mapped stays.

        What comes over a network is checked against the digest, if one is given. Raises BlobGone if there is no such
        blob, StorageFull if there is no room for it here.
        """

    def put_url(self, key: str, lifetime_s: float) -> str | None:  # noqa: ARG002 - for stores that have addresses
        """An address to which whoever knows it may PUT this blob for a while; None where there are none."""
        return None

    @abstractmethod
    def copy(self, key: str, to: str) -> None:
        """Make a blob another one's copy. Raises BlobGone if there is nothing to copy."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a blob; one that is gone already is no error."""

    def delete_bundle(self, analysis_id: UUID) -> None:
        """Remove an analysis's bundle. What cannot be removed now stays for the sweeper; nothing is raised."""
        with suppress(Unavailable):
            self.delete_folder(bundle_folder(analysis_id))

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Remove every blob whose key begins with `folder/`; a folder that is gone already is no error."""

    @abstractmethod
    def older_than(self, folder: str, age_s: float, depth: int = 1) -> Iterator[list[str]]:
        """Keys of what lies so deep under a folder and was last written at least `age_s` ago, by the store's own clock.

        What has been looked at comes in pages, also where none of it is that old.
        """

    @abstractmethod
    def keys(self) -> Iterator[str]:
        """Every blob, and every unfinished one that can be seen; for checks and clean-up."""
