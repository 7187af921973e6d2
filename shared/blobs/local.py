"""The blob store in one directory, which the gateway and all workers share."""

import errno
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from clipwarden.shared.blobs.store import PAGE, PARTIAL, STORE_ID, BlobStore, BlobWriter
from clipwarden.shared.errors import BlobGone, StorageFull, StorageSick, Unavailable
from clipwarden.shared.ids import new_id

PIECE_BYTES: Final = 256 * 1024
NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
SICK: Final = frozenset({errno.EACCES, errno.EIO, errno.ENOTCONN, errno.EROFS, errno.ESTALE})
TRIES: Final = 5
"""How often a folder is deleted while another process puts files into it, or made while another deletes it."""


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter: uploads are other people's media."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _made_below(root: Path, folder: Path) -> None:
    """Make a folder of the store, which is not made anew where it was."""
    for part in folder.relative_to(root).parts:
        root /= part
        root.mkdir(mode=0o700, exist_ok=True)


def _written(entry: os.DirEntry[str]) -> float:
    """When a file was last written; never, as it were, if it has gone meanwhile."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf


@contextmanager
def translated(action: str) -> Iterator[None]:
    """The operating system's errors as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull(f"the blob store has no room to {action}") from error
        if error.errno in SICK:
            raise StorageSick(f"the blob store could not {action}: {error}") from error
        raise Unavailable(f"the blob store could not {action}: {error}") from error


class LocalWriter(BlobWriter):
    """Writes a file beside its place and moves it there, so that a crash leaves all of it or nothing."""

    def __init__(self, root: Path, final: Path, key: str) -> None:
        super().__init__(key)
        self._root, self._partial, self._final = root, root / PARTIAL / new_id().hex, final
        with translated("open a blob"):
            try:
                self._file = self._opened()
            except FileNotFoundError:
                _made_below(root, self._partial.parent)
                self._file = self._opened()

    def _opened(self) -> BinaryIO:
        return os.fdopen(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def _append(self, chunk: bytes | memoryview) -> None:
        with translated("write a blob"):
            self._file.write(chunk)

    def _publish(self) -> None:
        with translated("keep a blob"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._move()
            with suppress(FileNotFoundError):  # deleted from its place already
                _flush_folder(self._final.parent)

    def _move(self) -> None:
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                self._partial.replace(self._final)
            except FileNotFoundError:
                if not tries_left or not self._partial.exists():  # deleted under us, or the store has vanished
                    raise
                with suppress(FileNotFoundError):  # deleted while it was made: the next try tells
                    _made_below(self._root, self._final.parent)
            else:
                return

    def abort(self) -> None:
        """Forget the blob; harmless after commit."""
        with suppress(OSError):  # closing writes what is buffered, and fails again on a full disk
            self._file.close()
        with suppress(OSError):  # the sweeper deletes it
            self._partial.unlink(missing_ok=True)


class LocalBlobs(BlobStore):
    """A blob store in one directory. Its folders are private, its files are what their keys say."""

    remedy = "mount the right volume or set CLIPWARDEN_BLOB_DIR"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = str(root)

    def store_id(self) -> str | None:
        with translated("be read"):
            try:
                return (self.root / STORE_ID).read_text("ascii").strip()
            except FileNotFoundError:
                return None

    def set_up(self, store_id: str) -> None:
        with translated("be set up"):
            private_folder(self.root)
            (self.root / STORE_ID).write_text(store_id, "ascii")

    def _must_be_here(self) -> None:
        """What is written where a volume was is lost when it comes back, and what is deleted there is still on it."""
        with translated("be read"):
            here = (self.root / STORE_ID).is_file()
        if not here:
            raise Unavailable(f"{self.place} is no blob store (any more): {self.remedy}")

    def _writer(self, key: str) -> LocalWriter:
        self._must_be_here()
        return LocalWriter(self.root, self.path(key), key)

    def path(self, key: str) -> Path:
        """Where a blob is, or will be."""
        parts = key.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"not a blob key: {key!r}")
        return self.root.joinpath(*parts)

    def read(self, key: str) -> bytes:
        with self.local(key) as path, translated("be read"):
            return path.read_bytes()

    def size(self, key: str) -> int:
        with self.local(key) as path, translated("be read"):
            return path.stat().st_size

    def pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with self.local(key) as path, translated("be read"), path.open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(PIECE_BYTES, end - start))):
                start += len(piece)
                yield piece

    @contextmanager
    def local(self, key: str, sha256: str = "") -> Iterator[Path]:  # noqa: ARG002 - no network changed it on its way
        """The blob's own file."""
        path = self.path(key)
        with translated("be read"):
            if not path.is_file():
                raise BlobGone(f"there is no {key} in {self.place}")
        yield path

    def copy(self, key: str, to: str) -> None:
        with self.local(key) as path, translated("be read"), path.open("rb") as file, self.create(to) as writer:
            while piece := file.read(PIECE_BYTES):
                writer.write(piece)
            writer.commit()

    def delete(self, key: str) -> None:
        with translated("delete"):
            try:
                self.path(key).unlink()
            except FileNotFoundError:
                self._must_be_here()

    def delete_folder(self, folder: str) -> None:
        self._must_be_here()
        with translated("delete"):
            for tries_left in range(TRIES - 1, -1, -1):
                try:
                    with suppress(FileNotFoundError):
                        shutil.rmtree(self.path(folder))
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY or not tries_left:
                        raise
                else:
                    return

    def older_than(self, folder: str, age_s: float, depth: int = 1) -> Iterator[list[str]]:
        self._must_be_here()
        with translated("be listed"):
            before = self._now() - age_s
            found = self._below(folder, depth)
            while page := list(islice(found, PAGE)):
                yield [key for key, entry in page if _written(entry) <= before]

    def _now(self) -> float:
        """What the clock says by which files are dated, which need not be this machine's."""
        os.utime(self.root / STORE_ID)
        return (self.root / STORE_ID).stat().st_mtime

    def _below(self, folder: str, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / folder) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}"
                if depth == 1:
                    yield key, entry
                else:
                    yield from self._below(key, depth - 1)

    def keys(self) -> Iterator[str]:
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.name != STORE_ID:
                yield path.relative_to(self.root).as_posix()


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
