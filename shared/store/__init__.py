"""Every statement of SQL: analyses, leased stages, verdicts, pipelines. Postgres is the truth; Redis may be lost.

Each public method is one transaction. A stage row is claimed by lease with a fencing token; what a worker reports
counts only while it holds the token. Times are the database's own clock.
"""

from clipwarden.shared.store.history import Decided, History
from clipwarden.shared.store.intake import Intake
from clipwarden.shared.store.rows import Busy, Claim, DueStage, Granted, NewAnalysis, Settled
from clipwarden.shared.store.upkeep import Upkeep
from clipwarden.shared.store.work import Work

__all__ = ["Busy", "Claim", "Decided", "DueStage", "Granted", "NewAnalysis", "Settled", "Store"]


class Store(Intake, Work, Upkeep, History):
    """Access to Postgres: what the gateway takes in, what workers do, what the sweeper keeps up, what was decided."""
