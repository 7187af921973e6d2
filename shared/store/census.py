"""What is to be counted: what waits now, and what ended since it was last asked, each row told once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from clipwarden.shared.contracts import AnalysisState, Label, Lane, Stage, StageStatus
from clipwarden.shared.store.connection import Database, text

MARK: Final = "counted_until"
SETTLING_S: Final = 5.0
"""Rows are counted this long after they ended: the transaction that ends one bears an earlier time than its commit."""
MOST_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class EndedAnalysis:
    """`head` is None where no branch could examine the clip; `label` without a verdict."""

    id: UUID
    state: AnalysisState
    code: str | None
    lane: Lane
    reused: bool
    created_at: datetime
    finished_at: datetime
    label: Label | None
    head: str | None
    degraded: bool | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class SettledStage:
    """`wait_s` and `took_s` are None for one that no worker held; `detectors` are outcomes as its row holds them."""

    stage: Stage
    status: StageStatus
    code: str | None
    attempts: int
    wait_s: float | None
    took_s: float | None
    detectors: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ended:
    """What ended since the last time, as far as it was read."""

    analyses: Sequence[EndedAnalysis]
    stages: Sequence[SettledStage]
    callbacks: Sequence[StageStatus]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What has not ended: rows by stage, the age of the oldest open one by lane, analyses by pipeline, callbacks."""

    rows: Counter[tuple[Stage, StageStatus]]
    oldest_s: dict[tuple[Stage, Lane], float]
    unfinished: dict[str, int]
    callbacks: int
    overdue_s: float


class Census(Database):
    """Reads for whoever counts."""

    def ended(self) -> Ended:
        """What ended since the last call, by whichever process; nothing on the very first."""
        with self._transaction() as c:
            since, until = _next_stretch(c)
            times = {"since": since, "until": until}
            analyses = c.execute(
                text("""
                    SELECT a.id, a.state, a.code, a.lane, a.from_cache, a.created_at, a.finished_at,
                           v.verdict->>'label' AS label, v.verdict->>'head' AS head,
                           CAST(v.verdict->>'degraded' AS boolean) AS degraded,
                           CAST(v.verdict->>'probability' AS float8) AS probability
                    FROM analyses a LEFT JOIN verdicts v ON v.analysis_id = a.id
                    WHERE a.finished_at > :since AND a.finished_at <= :until
                """),
                times,
            ).all()
            stages = c.execute(
                text("""
                    SELECT s.stage, s.status, s.code, s.attempts, s.outcome->'detectors' AS detectors,
                           CAST(extract(epoch FROM s.leased_at - s.created_at) AS float8) AS wait_s,
                           CAST(extract(epoch FROM s.finished_at - s.leased_at) AS float8) AS took_s
                    FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.stage = ANY(:stages) AND s.finished_at > :since AND s.finished_at <= :until
                      AND NOT a.from_cache AND coalesce(s.outcome->>'reused', 'false') = 'false'
                """),
                {**times, "stages": [stage.value for stage in Stage]},
            ).all()
            callbacks = c.scalars(
                text("SELECT status FROM deliveries WHERE finished_at > :since AND finished_at <= :until"), times
            ).all()
        return Ended(
            [
                EndedAnalysis(
                    id=r.id,
                    state=AnalysisState(r.state),
                    code=r.code,
                    lane=Lane(r.lane),
                    reused=r.from_cache,
                    created_at=r.created_at,
                    finished_at=r.finished_at,
                    label=r.label and Label(r.label),
                    head=r.head,
                    degraded=r.degraded,
                    probability=r.probability,
                )
                for r in analyses
            ],
            [
                SettledStage(
                    stage=Stage(r.stage),
                    status=StageStatus(r.status),
                    code=r.code,
                    attempts=r.attempts,
                    wait_s=r.wait_s,
                    took_s=r.took_s,
                    detectors=r.detectors or (),
                )
                for r in stages
            ],
            [StageStatus(status) for status in callbacks],
        )

    def waiting(self) -> Waiting:
        """What has not ended, as it is now."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT s.stage, s.status, a.lane, count(*) AS n,
                           CAST(extract(epoch FROM clock_timestamp() - min(s.created_at)) AS float8) AS oldest_s
                    FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.status IN ('open', 'leased') AND a.finished_at IS NULL GROUP BY s.stage, s.status, a.lane
                """)
            ).all()
            pipelines = c.execute(
                text("SELECT pipeline_id, count(*) AS n FROM analyses WHERE finished_at IS NULL GROUP BY pipeline_id")
            ).all()
            callbacks = c.execute(
                text("""
                    SELECT count(*) AS n,
                           CAST(extract(epoch FROM clock_timestamp() - min(not_before)) AS float8) AS overdue_s
                    FROM deliveries WHERE status IN ('open', 'leased')
                """)
            ).one()
        counted: Counter[tuple[Stage, StageStatus]] = Counter()
        for r in rows:
            counted[Stage(r.stage), StageStatus(r.status)] += r.n
        return Waiting(
            rows=counted,
            oldest_s={(Stage(r.stage), Lane(r.lane)): r.oldest_s for r in rows if r.status == StageStatus.OPEN},
            unfinished={r.pipeline_id: r.n for r in pipelines},
            callbacks=callbacks.n,
            overdue_s=max(0.0, callbacks.overdue_s or 0.0),
        )


def _next_stretch(c: Connection) -> tuple[datetime, datetime]:
    """From where the last count stopped to now, or as far as there are rows enough for one count.

    The row of the mark is the lock: two that count take turns.
    """
    c.execute(
        text("""
            INSERT INTO installation (key, value)
            VALUES (:mark, CAST(clock_timestamp() - make_interval(secs => :settling) AS text)) ON CONFLICT DO NOTHING
        """),
        {"mark": MARK, "settling": SETTLING_S},
    )
    row = c.execute(
        text("""
            WITH mark AS (SELECT CAST(value AS timestamptz) AS since FROM installation WHERE key = :mark FOR UPDATE),
            many AS (
                SELECT a.finished_at FROM analyses a, mark WHERE a.finished_at > mark.since
                ORDER BY a.finished_at LIMIT :most)
            SELECT since, greatest(since, CASE WHEN (SELECT count(*) FROM many) < :most
                THEN clock_timestamp() - make_interval(secs => :settling)
                ELSE least((SELECT max(finished_at) FROM many), clock_timestamp() - make_interval(secs => :settling))
                END) AS until
            FROM mark
        """),
        {"mark": MARK, "most": MOST_ROWS, "settling": SETTLING_S},
    ).one()
    c.execute(
        text("UPDATE installation SET value = CAST(:until AS text) WHERE key = :mark"),
        {"mark": MARK, "until": row.until.isoformat()},
    )
    return row.since, row.until
