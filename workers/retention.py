"""What the sweeper deletes: files and rows past their age, and what dead processes left behind.

| what | kept until |
|---|---|
| upload | `upload_retention_s` after its last analysis ended; at once if that was rejected |
| file sent ahead | `sent_ahead_s` after it came, unless an analysis names it |
| bundle | its analysis is fused; one that was left, `bundle_retention_s` |
| evidence | `evidence_retention_s` after the last analysis that names it ended |
| analysis, with all that is its own | `row_retention_s` after it ended |
| file that nothing names | `orphan_retention_s` |
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from clipwarden.shared.blobs import BUNDLES, PARTIAL, UPLOADS, BlobStore, bundle_folder
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

log = logger(__name__)


class Caretaker:
    """Deletes what is past its time, a few seconds of it a turn; with `dry_run` it only counts."""

    def __init__(self, settings: Settings, store: Store, blobs: BlobStore, *, dry_run: bool = False) -> None:
        self._settings, self._store, self._blobs, self._dry_run = settings, store, blobs, dry_run
        self._orphans_due = self._deadline = 0.0
        self._failures = 0

    def turn(self, done: Counter[str]) -> None:
        """One turn; counts what was deleted by kind. Raises Unavailable."""
        self._deadline, self._failures = time.monotonic() + TURN_S, 0
        self._uploads(done)
        self._evidence(done)
        self._analyses(done)
        if time.monotonic() >= self._orphans_due:
            self._orphans_due = time.monotonic() + ORPHANS_EVERY_S
            self._orphans(done)

    def _uploads(self, done: Counter[str]) -> None:
        s = self._settings
        for analysis_id, key in self._store.expired_uploads(s.upload_retention_s):
            if time.monotonic() > self._deadline:
                return
            with self._by_itself():
                if self._store.forget_upload(analysis_id):  # else another analysis names the file too
                    self._delete(key)
                    done["uploads_deleted"] += 1
        self._store.drop_expired_keys(s.idempotency_s)
        for key in self._store.drop_expired_uploads(s.sent_ahead_s):
            with self._by_itself():
                self._delete(key)
                done["uploads_deleted"] += 1

    def _evidence(self, done: Counter[str]) -> None:
        age_s = self._settings.evidence_retention_s
        for analysis_id in self._store.expired_evidence(age_s) if age_s else ():
            if time.monotonic() > self._deadline:
                return
            with self._by_itself():
                self._store.drop_evidence(analysis_id, self._remove)
                done["evidence_deleted"] += 1

    def _analyses(self, done: Counter[str]) -> None:
        age_s = self._settings.row_retention_s
        if not age_s:
            return
        for analysis_id in self._store.expired_analyses(age_s):
            if time.monotonic() > self._deadline:
                return
            with self._by_itself():
                self._store.drop_analysis(analysis_id, self._remove)
                log.info("analysis deleted for its age", analysis_id=str(analysis_id))
                done["analyses_deleted"] += 1
        done["batches_deleted"] += self._store.drop_empty_batches(age_s)

    def _orphans(self, done: Counter[str]) -> None:
        """Delete what a process left when it died between keeping a file and recording it, or after the verdict."""
        s = self._settings
        kept = self._blobs.older_than(UPLOADS, s.orphan_retention_s)
        for key in [*self._store.unknown_uploads(kept), *self._blobs.older_than(PARTIAL, s.orphan_retention_s)]:
            with self._by_itself():
                self._delete(key)
                done["orphans_deleted"] += 1
        bundles = set(_ids(self._blobs.older_than(BUNDLES, s.bundle_retention_s)))
        for analysis_id in bundles - self._store.unfinished(list(bundles)):
            with self._by_itself():
                self._delete_folder(bundle_folder(analysis_id))
                done["orphans_deleted"] += 1

    @contextmanager
    def _by_itself(self) -> Iterator[None]:
        """What cannot be deleted stays for another turn, and does not keep the rest from being deleted."""
        try:
            yield
        except Unavailable as error:
            self._failures += 1
            if self._failures > MOST_FAILURES or time.monotonic() > self._deadline:
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
            yield UUID(folder.rpartition("/")[2])
