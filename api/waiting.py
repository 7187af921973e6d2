"""How long an analysis still has to wait: what is ahead of it, at the pace of late, shared by the workers seen lately.

An estimate, and null where it would be a guess: no stage of the kind ended in the last hour, or no worker was seen.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Final
from uuid import UUID

from clipwarden.api.progress import EARLY
from clipwarden.shared.contracts import SETTLED, Analysis, Branch, Lane, Stage, StageRow, StageStatus
from clipwarden.shared.errors import ClipwardenError
from clipwarden.shared.logs import logger
from clipwarden.shared.store import Pace, Queued, Store

FRESH_S: Final = 2.0
"""How long what was seen of the queues is told to all who ask."""
LEEWAY_S: Final = 0.5
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1, 30

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """`position` 1 is next; None once its work began."""

    position: int | None = None
    eta_s: float | None = None


UNKNOWN: Final = Outlook()
NOTHING: Final = Queued({}, {}, {})


def pause_s(eta_s: float | None) -> int:
    """How long to wait before looking again: half of what is left."""
    return SHORTEST_PAUSE_S if eta_s is None else min(max(ceil(eta_s / 2), SHORTEST_PAUSE_S), LONGEST_PAUSE_S)


class Waiting:
    """Reads the queues at most once in FRESH_S, however many ask; meanwhile others are told what was seen before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: Queued | None = None
        self._until = 0.0

    @property
    def at_hand(self) -> bool:
        """Whether an outlook can be told at once, without reading anything."""
        return time.monotonic() + LEEWAY_S < self._until

    def outlook(self, analysis: Analysis) -> Outlook:
        """What is ahead of an analysis; nothing is known of it while Postgres does not answer. Blocks."""
        if analysis.finished_at is not None or not analysis.stages:
            return UNKNOWN
        try:
            return outlook(analysis, self._queues(), datetime.now(UTC))
        except ClipwardenError as error:
            log.warning("no outlook", reason=str(error))
            return UNKNOWN

    def _queues(self) -> Queued:
        seen = self._seen
        if time.monotonic() >= self._until and self._lock.acquire(blocking=seen is None):
            try:
                if time.monotonic() >= self._until:
                    self._seen = self._store.queued()
                    self._until = time.monotonic() + FRESH_S
            finally:
                self._lock.release()
        return self._seen or NOTHING


def outlook(analysis: Analysis, queued: Queued, now: datetime) -> Outlook:
    """The estimate itself."""
    rows = {row.stage: row for row in analysis.stages}
    first = next((row for row in analysis.stages if row.stage in EARLY and row.status is StageStatus.OPEN), None)
    waits = first is not None and analysis.started_at is None
    return Outlook(
        _position(analysis, first.stage, queued) if first and waits else None,
        _rounded(_left_s(analysis, rows, queued, now)),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _left_s(analysis: Analysis, rows: dict[Stage, StageRow], queued: Queued, now: datetime) -> float | None:
    """Until the early stages are through, and then the slowest branch; branches that are not known yet are all."""
    early = [s for s in (Stage.FETCH, Stage.INGEST) if s in rows or s is Stage.INGEST]
    before = [_stage_s(analysis, s, rows.get(s), queued, now) for s in early]
    known = [Stage(b) for b in Branch if Stage(b) in rows]
    if known:
        after = [_stage_s(analysis, s, rows[s], queued, now) for s in known]
    else:
        paces = [(Stage(b), queued.paces[Stage(b)]) for b in Branch if Stage(b) in queued.paces]
        mine = sum(row.status is StageStatus.LEASED for row in rows.values())
        after = [_whole_s(analysis, s, pace, queued, mine) for s, pace in paces] or [None]
    if None in before or None in after:
        return None
    begun = sum(s for s in before if s is not None)
    longest = max(s for s in after if s is not None)
    slowest = max((queued.paces[Stage(b)].median_s for b in Branch if Stage(b) in queued.paces), default=0.0)
    return begun + longest if known else max(begun + slowest, longest)


def _stage_s(analysis: Analysis, stage: Stage, row: StageRow | None, queued: Queued, now: datetime) -> float | None:
    """What is left of one stage: nothing once it is settled, the rest of it at work, its turn and all of it before."""
    if row is not None and row.status in SETTLED:
        return 0.0
    pace = queued.paces.get(stage)
    if pace is None or not pace.workers:
        return None
    if row is not None and row.status is StageStatus.LEASED and row.started_at is not None:
        return max(pace.median_s - (now - row.started_at).total_seconds(), 0.0)
    in_the_way = _ahead(analysis, stage, queued) + queued.leased.get(stage, 0) - pace.workers + 1
    return (max(in_the_way, 0) / pace.workers + 1) * pace.median_s


def _whole_s(analysis: Analysis, stage: Stage, pace: Pace, queued: Queued, mine: int) -> float | None:
    """Until a branch has done all that is before this analysis, in its queue or on the way to it but for `mine`."""
    if not pace.workers:
        return None
    coming = sum(_ahead(analysis, s, queued) + queued.leased.get(s, 0) for s in EARLY)
    before = _ahead(analysis, stage, queued) + queued.leased.get(stage, 0) + max(coming - mine, 0)
    return (before / pace.workers + 1) * pace.median_s


def _position(analysis: Analysis, stage: Stage, queued: Queued) -> int:
    """The tenant's own analyses ahead are counted, those of others rounded up: how many they send is their affair."""
    own = _before(analysis, stage, queued.own.get(analysis.tenant_id, {}))
    return own + roughly(_ahead(analysis, stage, queued) - own) + 1


def roughly(count: int) -> int:
    """0, or the next of 10, 20, 50, 100, 200, 500 and so on."""
    if not count:
        return 0
    power = int("1" + "0" * max(len(str(count)) - 1, 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= count)


def _ahead(analysis: Analysis, stage: Stage, queued: Queued) -> int:
    """Open rows of a stage that are taken before this analysis's."""
    return _before(analysis, stage, queued.open)


def _before(analysis: Analysis, stage: Stage, rows: Mapping[tuple[Stage, Lane], list[UUID]]) -> int:
    """Rows that come before the analysis's, or the run's that it shares: ids are in the order of submission."""
    run_id = analysis.leader_id or analysis.id
    lanes = (Lane.REALTIME,) if analysis.lane is Lane.REALTIME else (Lane.REALTIME, Lane.BULK)
    listed = {lane: rows.get((stage, lane), []) for lane in lanes}
    return sum(bisect_left(ids, run_id) if lane is analysis.lane else len(ids) for lane, ids in listed.items())
