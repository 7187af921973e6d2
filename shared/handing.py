"""Handing an analysis on once it is open: what the gateway and the worker that fetched its file do alike.

Both are best effort: the rows are kept, the sweeper sends what was not sent and deletes what nothing names.
"""

from contextlib import suppress
from uuid import UUID

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.contracts import Lane
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.queue import Task, send
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store
from clipwarden.shared.telling import tell

log = logger(__name__)


def hand_on(settings: Settings, store: Store, analysis_id: UUID, lane: Lane, known: Task | None = None) -> bool:
    """Send what an analysis goes on with, or tell how it ended at once; its rows count as sent already.

    The store is asked what that is, unless it is known. False if it did not go through: then the sweeper sends it.
    """
    try:
        if task := known or store.next_task(analysis_id):
            send(settings, task, analysis_id, lane)
        else:
            tell(settings, store, analysis_id)
    except Unavailable as error:
        log.warning("not sent, left to the sweeper", reason=str(error))
        with suppress(Unavailable):
            store.mark_unsent(analysis_id)
        return False
    return True


def drop_copy(store: Store, blobs: BlobStore, key: str) -> None:
    """Delete an analysis's file unless it is named: of the same bytes another may have been there already."""
    with suppress(Unavailable):
        for unknown in store.unknown_uploads([key]):
            blobs.delete(unknown)
