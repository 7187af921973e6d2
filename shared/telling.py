"""Sending the message of a callback that is owed, best effort: the open row is kept and the sweeper sends it too."""

from uuid import UUID

from clipwarden.shared.errors import Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.queue import Task, send
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store

log = logger(__name__)


def tell(settings: Settings, store: Store, analysis_id: UUID) -> None:
    """Have the callback of an analysis made that just ended, if one was asked for. Raises nothing of a service's."""
    try:
        for delivery_id in store.owed(analysis_id):
            send(settings, Task.NOTIFY, delivery_id)
    except Unavailable as error:
        log.warning("callback not sent, left to the sweeper", reason=str(error))
