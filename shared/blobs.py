"""The blob store: uploads and bundles, in a local directory.

It holds a random store id that Postgres holds too, so that a process with the wrong volume mounted, or none, refuses
to start instead of losing files.
"""

import errno
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from clipwarden.shared.errors import ConfigError, StorageFull, Unavailable
from clipwarden.shared.ids import new_id

STORE_ID_FILE = "store-id"
UPLOADS, PARTIAL, BUNDLES = "uploads", "partial", "bundles"
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter: uploads are other people's media."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _written(path: Path) -> float:
    """When a file was last written; never, as it were, if it has gone meanwhile."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull(f"the blob store has no room to {action}") from error
        raise Unavailable(f"the blob store could not {action}: {error}") from error


class BlobWriter:
    """A new upload. Nothing is visible until `commit`; leaving the context without it leaves nothing behind."""

    def __init__(self, partial: Path, final: Path, key: str) -> None:
        self._partial, self._final, self._key = partial, final, key
        self._hash = hashlib.sha256()
        self.size = 0
        with _translated("open an upload"):
            private_folder(partial.parent)
            self._file = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageFull or Unavailable."""
        with _translated("write an upload"):
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def commit(self) -> str:
        """Make the upload durable and visible; returns its key."""
        with _translated("keep an upload"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            private_folder(self._final.parent)
            self._partial.rename(self._final)
        return self._key

    def abort(self) -> None:
        """Forget the upload; harmless after commit."""
        with suppress(OSError):  # closing writes what is buffered, and fails again on a full disk
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class LocalBlobs:
    """A blob store in one directory, shared by the gateway and all workers."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def store_id(self) -> str | None:
        """The id this directory was given, None if it was never set up."""
        with _translated("be read"):
            try:
                return (self.root / STORE_ID_FILE).read_text("ascii").strip()
            except FileNotFoundError:
                return None

    def set_up(self, store_id: str) -> None:
        """Give an empty directory its store id."""
        with _translated("be set up"):
            private_folder(self.root)
            (self.root / STORE_ID_FILE).write_text(store_id, "ascii")

    def check(self, expected: str | None) -> None:
        """Raises ConfigError unless this is the store that the database knows."""
        if expected is None:
            raise ConfigError("the database was never set up: run `clipwarden db upgrade`")
        actual = self.store_id()
        if actual != expected:
            raise ConfigError(
                f"{self.root} is not the blob store of this database ({actual or 'no store id'}, expected {expected}):"
                " mount the right volume or set CLIPWARDEN_BLOB_DIR"
            )

    def create(self) -> BlobWriter:
        """Start an upload under a new key."""
        name = new_id().hex
        key = f"{UPLOADS}/{name}"
        return BlobWriter(self.root / PARTIAL / name, self.root / key, key)

    def path(self, key: str) -> Path:
        """Where a blob is, or will be, on this machine."""
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"not a blob key: {key!r}")
        return path

    def bundle_key(self, analysis_id: UUID, branch: str) -> str:
        return f"{BUNDLES}/{analysis_id}/{branch}.safetensors"

    def delete(self, key: str) -> None:
        """Remove a blob; one that is gone already is no error."""
        with _translated("delete"):
            self.path(key).unlink(missing_ok=True)

    def delete_bundle(self, analysis_id: UUID) -> None:
        """Remove all parts of an analysis's bundle."""
        shutil.rmtree(self.root / BUNDLES / str(analysis_id), ignore_errors=True)

    def older_than(self, folder: str, age_s: float) -> list[str]:
        """Keys of the files and folders right under a folder that were last written at least `age_s` ago."""
        before = time.time() - age_s
        with _translated("be listed"):
            paths = list((self.root / folder).glob("*"))
        return [f"{folder}/{p.name}" for p in paths if _written(p) < before]

    def keys(self) -> Iterator[str]:
        """Every blob and every unfinished upload; for checks and clean-up."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.name != STORE_ID_FILE:
                yield path.relative_to(self.root).as_posix()
