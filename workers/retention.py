"""What the sweeper deletes: files and rows past their age, and what dead processes left behind.

| what | kept until |
|---|---|
| upload | `upload_retention_s` after its last analysis ended; at once if that was rejected |
| file sent ahead | `sent_ahead_s` after it came, unless an analysis names it |
| bundle | its analysis is fused; one that was left, `bundle_retention_s` |
| evidence | `evidence_retention_s` after the last analysis that names it ended |
| analysis, with all that is its own | `row_retention_s` after it ended |
| file that nothing names, evidence of a lost attempt too | `orphan_retention_s` |
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS, BlobStore, bundle_folder
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Doomed, Store

ORPHANS_EVERY_S = 300.0
"""A bucket charges for being listed, and what is listed is old."""
TURN_S = 5.0
"""How long a sweep may spend on deleting; what is lost is to be re-sent in time."""
MOST_FAILURES = 10
"""In one turn. With more of them, or with one that takes all the time, the blob store fails and not a file."""

TOKEN_DEPTH = 3
"""evidence/ANALYSIS/BRANCH/TOKEN"""

Strays = tuple[Callable[[str], None], Iterable[str]]
"""Of a page of files or folders those that nothing names, and what deletes one."""

log = logger(__name__)


class Caretaker:
    """Deletes what is past its time, a few seconds of it a turn; with `dry_run` it only counts.

    Each turn begins with another kind, so that a backlog of one, or a blob store that fails at it, keeps none waiting.
    """

    def __init__(self, settings: Settings, store: Store, blobs: BlobStore, *, dry_run: bool = False) -> None:
        self._settings, self._store, self._blobs, self._dry_run = settings, store, blobs, dry_run
        self._orphans_due = self._deadline = 0.0
        self._failures = 0
        self._strays: Iterator[Strays] | None = None
        self._kinds = deque((self._uploads, self._sent_ahead, self._evidence, self._analyses, self._orphans))

    def turn(self, done: Counter[str]) -> None:
        """One turn; counts what was deleted by kind. Raises Unavailable."""
        self._deadline, self._failures = time.monotonic() + TURN_S, 0
        kinds = tuple(self._kinds)
        self._kinds.rotate(-1)
        for delete in kinds:
            if self._over():
                return
            delete(done)

    def _over(self) -> bool:
        return time.monotonic() > self._deadline

    def _uploads(self, done: Counter[str]) -> None:
        for analysis_id, key in self._store.expired_uploads(self._settings.upload_retention_s):
            if self._over():
                return
            with self._by_itself():
                if self._store.forget_upload(analysis_id):  # else another analysis names the file too
                    self._delete(key)
                    done["uploads_deleted"] += 1

    def _sent_ahead(self, done: Counter[str]) -> None:
        """What there is no time for, or no blob store, is an orphan from here on."""
        self._store.drop_expired_keys(self._settings.idempotency_s)
        for key in self._store.drop_expired_uploads(self._settings.sent_ahead_s):
            if self._over():
                return
            with self._by_itself():
                self._delete(key)
                done["uploads_deleted"] += 1

    def _evidence(self, done: Counter[str]) -> None:
        age_s = self._settings.evidence_retention_s
        for analysis_id in self._store.expired_evidence(age_s) if age_s else ():
            if self._over():
                return
            with self._by_itself():
                self._store.drop_evidence(analysis_id, self._remove)
                done["evidence_deleted"] += 1

    def _analyses(self, done: Counter[str]) -> None:
        age_s = self._settings.row_retention_s
        if not age_s:
            return
        for analysis_id in self._store.expired_analyses(age_s):
            if self._over():
                return
            with self._by_itself():
                self._store.drop_analysis(analysis_id, self._remove)
                log.info("analysis deleted for its age", analysis_id=str(analysis_id))
                done["analyses_deleted"] += 1
        done["batches_deleted"] += self._store.drop_empty_batches(age_s)
        done["callbacks_deleted"] += self._store.drop_pings(age_s)

    def _orphans(self, done: Counter[str]) -> None:
        """Delete what a process left when it died between keeping a file and recording it, or after the verdict.

        It goes on where it stopped the last time; once it is through, it rests.
        """
        if self._strays is None:
            if time.monotonic() < self._orphans_due:
                return
            self._orphans_due = time.monotonic() + ORPHANS_EVERY_S
            self._strays = self._found()
        for delete, names in self._strays:
            for name in names:
                with self._by_itself():
                    delete(name)
                    done["orphans_deleted"] += 1
            if self._over():
                return
        self._strays = None

    def _found(self) -> Iterator[Strays]:
        s = self._settings
        for page in self._blobs.older_than(PARTIAL, s.orphan_retention_s):
            yield self._delete, page
        for page in self._blobs.older_than(UPLOADS, s.orphan_retention_s):
            yield self._delete, sorted(self._store.unknown_uploads(page)) if page else ()
        for page in self._blobs.older_than(BUNDLES, s.bundle_retention_s):
            ids = list(_ids(page))
            ended = set(ids) - self._store.unfinished(ids) if ids else ()
            yield self._delete_folder, map(bundle_folder, ended)
        for page in self._blobs.older_than(EVIDENCE, s.orphan_retention_s, TOKEN_DEPTH):
            ours = [folder for folder in page if [*_ids([folder])]]
            yield self._delete_folder, sorted(self._store.unknown_evidence(ours)) if ours else ()

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """What cannot be deleted stays for another turn, and does not keep the rest from being deleted."""
        try:
            yield
        except Unavailable as error:
            self._failures += 1
            if self._failures > MOST_FAILURES or self._over():
                raise
            log.warning("not deleted, tried again later", reason=str(error))

    def _remove(self, doomed: Doomed) -> None:
        if doomed.upload_key:
            self._delete(doomed.upload_key)
        for folder in doomed.folders:
            self._delete_folder(folder)

    def _delete(self, key: str) -> None:
        if not self._dry_run:
            self._blobs.delete(key)

    def _delete_folder(self, folder: str) -> None:
        if not self._dry_run:
            self._blobs.delete_folder(folder)


def _ids(folders: Iterable[str]) -> Iterator[UUID]:
    """Whose the folders are; what somebody else put beside them is left alone."""
    for folder in folders:
        with suppress(ValueError):
            yield UUID(folder.split("/")[1])
