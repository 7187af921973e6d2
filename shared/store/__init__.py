"""Every statement of SQL: analyses, leased stages, verdicts, pipelines. Postgres is the truth; Redis may be lost.

Each public method is one transaction. A stage row is claimed by lease with a fencing token; what a worker reports
counts only while it holds the token. Times are the database's own clock.
"""

from clipwarden.shared.store.access import Access, Key, NewKey
from clipwarden.shared.store.acting import Acting, Doomed, Feedback, Remove
from clipwarden.shared.store.batches import Batches, BatchItem, KeptBatch, NewBatch, Refused
from clipwarden.shared.store.census import Census, Ended, EndedAnalysis, SettledStage, Waiting
from clipwarden.shared.store.deliveries import Attempt, Deliveries, Delivery, Event, Secret, WantedDeliveries
from clipwarden.shared.store.fetching import Fetched, Fetching
from clipwarden.shared.store.history import Decided, History
from clipwarden.shared.store.idempotency import Idempotency, KeyClaim
from clipwarden.shared.store.intake import Intake, Opened
from clipwarden.shared.store.reading import Listed, Pace, Queued, Reading, Wanted
from clipwarden.shared.store.retention import Retention
from clipwarden.shared.store.reuse import Earlier, Reuse
from clipwarden.shared.store.rows import Busy, Claim, DueStage, Granted, NewAnalysis, Settled
from clipwarden.shared.store.upkeep import Overdue, Upkeep
from clipwarden.shared.store.uploads import KeptUpload, NewUpload, Uploads
from clipwarden.shared.store.work import Work

__all__ = [
    "Attempt",
    "BatchItem",
    "Busy",
    "Claim",
    "Decided",
    "Delivery",
    "Doomed",
    "DueStage",
    "Earlier",
    "Ended",
    "EndedAnalysis",
    "Event",
    "Feedback",
    "Fetched",
    "Granted",
    "KeptBatch",
    "KeptUpload",
    "Key",
    "KeyClaim",
    "Listed",
    "NewAnalysis",
    "NewBatch",
    "NewKey",
    "NewUpload",
    "Opened",
    "Overdue",
    "Pace",
    "Queued",
    "Refused",
    "Remove",
    "Secret",
    "Settled",
    "SettledStage",
    "Store",
    "Waiting",
    "Wanted",
    "WantedDeliveries",
]


class Store(
    Access,
    Intake,
    Uploads,
    Idempotency,
    Batches,
    Reading,
    Acting,
    Work,
    Fetching,
    Deliveries,
    Upkeep,
    Retention,
    Reuse,
    History,
    Census,
):
    """Access to Postgres: who may ask, what the gateway takes in, what workers do, what the sweeper keeps up."""
