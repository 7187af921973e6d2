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
from uuid import UUID

from clipwarden.shared.blobs import BUNDLES, PARTIAL, UPLOADS, BlobStore, bundle_folder
from clipwarden.shared.logs import logger
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Doomed, Store

ORPHANS_EVERY_S = 300.0
"""A bucket charges for being listed, and what is listed is old."""
TURN_S = 5.0
"""How long a sweep may spend on deleting; what is lost is to be re-sent in time."""

log = logger(__name__)


class Caretaker:
    """Deletes what is past its time, a few seconds of it a turn; with `dry_run` it only counts."""

    def __init__(self, settings: Settings, store: Store, blobs: BlobStore, *, dry_run: bool = False) -> None:
        self._settings, self._store, self._blobs, self._dry_run = settings, store, blobs, dry_run
        self._orphans_due = 0.0

    def turn(self, done: Counter[str]) -> None:
        """One turn; counts what was deleted by kind. Raises Unavailable."""
        deadline = time.monotonic() + TURN_S
        self._uploads(done, deadline)
        self._evidence(done, deadline)
        self._analyses(done, deadline)
        if time.monotonic() >= self._orphans_due:
            self._orphans_due = time.monotonic() + ORPHANS_EVERY_S
            self._orphans(done)

    def _uploads(self, done: Counter[str], deadline: float) -> None:
        s = self._settings
        for analysis_id, key in self._store.expired_uploads(s.upload_retention_s):
            if time.monotonic() > deadline:
                return
            if self._store.forget_upload(analysis_id):  # else another analysis names the file too
                self._delete(key)
                done["uploads_deleted"] += 1
        self._store.drop_expired_keys(s.idempotency_s)
        for key in self._store.drop_expired_uploads(s.sent_ahead_s):
            self._delete(key)
            done["uploads_deleted"] += 1

    def _evidence(self, done: Counter[str], deadline: float) -> None:
        age_s = self._settings.evidence_retention_s
        for analysis_id in self._store.expired_evidence(age_s) if age_s else ():
            if time.monotonic() > deadline:
                return
            self._store.drop_evidence(analysis_id, self._remove)
            done["evidence_deleted"] += 1

    def _analyses(self, done: Counter[str], deadline: float) -> None:
        age_s = self._settings.row_retention_s
        if not age_s:
            return
        for analysis_id in self._store.expired_analyses(age_s):
            if time.monotonic() > deadline:
                return
            self._store.drop_analysis(analysis_id, self._remove)
            log.info("analysis deleted for its age", analysis_id=str(analysis_id))
            done["analyses_deleted"] += 1
        done["batches_deleted"] += self._store.drop_empty_batches(age_s)

    def _orphans(self, done: Counter[str]) -> None:
        """Delete what a process left when it died between keeping a file and recording it, or after the verdict."""
        s = self._settings
        kept = self._blobs.older_than(UPLOADS, s.orphan_retention_s)
        for key in [*self._store.unknown_uploads(kept), *self._blobs.older_than(PARTIAL, s.orphan_retention_s)]:
            self._delete(key)
            done["orphans_deleted"] += 1
        bundles = {UUID(key.rpartition("/")[2]) for key in self._blobs.older_than(BUNDLES, s.bundle_retention_s)}
        for analysis_id in bundles - self._store.unfinished(list(bundles)):
            self._delete_folder(bundle_folder(analysis_id))
            done["orphans_deleted"] += 1

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
