"""Ending what can no longer succeed, and saying so in the log."""

from collections.abc import Sequence

from clipwarden.shared.logs import logger
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Overdue, Store

log = logger(__name__)


def end_overdue(settings: Settings, store: Store) -> Sequence[Overdue]:
    """Settle all that is overdue, and open again what lost its worker. Raises Unavailable."""
    s = settings
    overdue = store.end_overdue(s.ingest_soft_limit_s, s.assess_soft_limit_s, s.lease_s, s.heartbeat_s, s.max_attempts)
    for ended in overdue:
        log.warning(
            "ended",
            analysis_id=str(ended.analysis_id),
            stage=ended.stage or "fuse",
            code=ended.code,
            attempts=ended.attempts,
            last_worker=ended.worker,
        )
    return overdue
