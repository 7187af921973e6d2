"""Blobs of a bucket as files on this machine: fetched once, kept up to a size, the longest unused deleted first.

Several processes share the directory. Locks on open files, which the system frees however a process ends, say what is
in use: a file is read under a shared lock and written under an exclusive one, and only what nobody has locked may be
deleted. A file has its name when it is complete and flushed, not before.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from clipwarden.shared.blobs.local import private_folder, translated
from clipwarden.shared.errors import BlobGone, Unavailable
from clipwarden.shared.ids import new_id

IDLE_S: Final = 3600.0
"""What is longer unused goes at the next fetch, or when a process starts: its bundle has been fused by then, and copies
of people's media are not ours to collect."""
DRAFT: Final = ".draft"

Source = tuple[int, Iterator[bytes]]
"""Size of a blob, and its bytes in pieces."""


class BlobCache:
    """A directory of at most `limit_bytes`, unless what is in use at once is more."""

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes

    @contextmanager
    def holding(self, name: str, fetch: Callable[[], Source]) -> Iterator[Path]:
        """The file of this name, fetched if it is not here; nobody deletes it while the context lasts.

        Raises BlobGone if less or more arrives than was announced, and whatever `fetch` and its pieces raise; then
        nothing is kept.
        """
        path = self.directory / name
        with translated("prepare its cache"):
            private_folder(self.directory)
        held = self._held(path)
        if held is None:
            with self._lock(f"turn-{name[:2]}"):  # whoever wants it too waits here, and then finds it
                held = self._held(path)
                while held is None:
                    self._fetch(path, fetch)
                    held = self._held(path)
        try:
            yield path
        finally:
            os.close(held)

    def works(self) -> bool:
        """Whether files can be written here."""
        try:
            with translated("prepare its cache"):
                private_folder(self.directory)
                TemporaryFile(dir=self.directory).close()
        except Unavailable:
            return False
        return True

    def drop(self, name: str) -> None:
        """Delete the file of this name unless somebody holds it."""
        with translated("tidy its cache"):
            _delete_unused(self.directory / name)

    def tidy(self, wanted_bytes: int = 0) -> None:
        """Delete what was left unfinished or is long unused, then the longest unused until there is room."""
        with translated("tidy its cache"):
            if self.directory.is_dir():
                with self._lock("room"):
                    self._tidy(wanted_bytes)

    def _tidy(self, wanted_bytes: int) -> None:
        kept = []
        now = time.time()
        for path in self._files():
            with suppress(FileNotFoundError):
                status = path.stat()
                dead = path.suffix == DRAFT or now - status.st_mtime > IDLE_S
                if not (dead and _delete_unused(path)):
                    kept.append((status.st_mtime, status.st_size, path))
        surplus = sum(size for _, size, _ in kept) + wanted_bytes - self.limit_bytes
        for _, size, path in sorted(kept):
            if surplus <= 0:
                return
            surplus -= size if _delete_unused(path) else 0

    def _files(self) -> list[Path]:
        return [path for path in self.directory.iterdir() if not path.name.startswith(".")]

    def _held(self, path: Path) -> int | None:
        """A descriptor whose shared lock keeps the file, None if there is no such file."""
        with translated("open its cache"):
            while True:
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    return None
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if os.fstat(descriptor).st_nlink:  # else it was deleted before it was locked
                    with suppress(PermissionError):
                        os.utime(descriptor)
                    return descriptor
                os.close(descriptor)

    def _fetch(self, path: Path, fetch: Callable[[], Source]) -> None:
        size, pieces = fetch()
        draft = path.with_name(f"{new_id().hex}{DRAFT}")
        with translated("cache a blob"), self._lock("room"):
            self._tidy(size)
            file = os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
            fcntl.flock(file, fcntl.LOCK_EX)
            os.ftruncate(file.fileno(), size)  # from here on its whole size counts for everybody
        try:
            with file:
                for piece in pieces:
                    with translated("cache a blob"):
                        file.write(piece)
                if file.tell() != size:
                    raise BlobGone(f"{file.tell()} of {size} bytes of a blob arrived")
                with translated("cache a blob"):
                    file.flush()
                    os.fsync(file.fileno())
                    draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with translated("lock its cache"):
            descriptor = os.open(self.directory / f".{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _delete_unused(path: Path) -> bool:
    """Delete a file that nobody has locked; whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
