"""The sweeper's side of the store: what is overdue, unsent or unfused."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection, Row

from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import Lane, Stage
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.ending import fail_stage, release_followers
from clipwarden.shared.store.rows import DueStage, as_json, owe_delivery

SWEEP_LOCK = 727463
SWEEP_LIMIT_S = 300.0
"""How long the lock is left to a sweeper that says nothing: longer than any sweep, and short for a stopped process."""
GONE_AFTER = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
"""In seconds: so that the lock of a machine that vanished is free within half a minute."""
FUSION_GRACE_S = 120.0
"""How long past its deadline an analysis with every stage settled may still wait for its verdict."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """What a sweep ended: a stage, or with None an analysis that nobody could fuse. `worker` had it last."""

    analysis_id: UUID
    stage: Stage | None
    code: FailCode
    attempts: int = field(default=0, compare=False)
    worker: str | None = field(default=None, compare=False)


class Upkeep(Database):
    """Finds what was left lying."""

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Hold the lock that lets one sweeper work at a time; False if another holds it.

        Raises Unavailable at the end if it was lost meanwhile, for `SWEEP_LIMIT_S` were over.
        """
        limits = {"idle_in_transaction_session_timeout": round(1000 * SWEEP_LIMIT_S), **GONE_AFTER}
        with self._transaction() as c:
            c.execute(
                text("SELECT set_config(key, value, true) FROM jsonb_each_text(CAST(:limits AS jsonb))"),
                {"limits": as_json(limits)},
            )
            yield bool(c.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": SWEEP_LOCK}))

    def end_overdue(
        self, ingest_limit_s: float, assess_limit_s: float, lease_s: float, heartbeat_s: float, max_attempts: int
    ) -> list[Overdue]:
        """Settle what can no longer succeed, and open again what lost its worker.

        deadline: the analysis is past its deadline. timeout: the worker kept its lease until the stage's time limit.
        poison: the last allowed attempt lost its worker.
        """
        ended: list[Overdue] = []
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT s.analysis_id, s.stage, s.attempts, s.worker,
                           a.deadline_at < clock_timestamp() AS past_deadline,
                           s.lease_until >= s.leased_at + make_interval(secs => :reach
                               + CASE WHEN s.stage IN ('fetch', 'ingest') THEN :ingest ELSE :assess END) AS past_limit
                    FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE a.finished_at IS NULL AND s.status IN ('open', 'leased')
                      AND (a.deadline_at < clock_timestamp()
                           OR (s.status = 'leased' AND s.lease_until < clock_timestamp()))
                    ORDER BY s.analysis_id, s.stage FOR UPDATE OF s SKIP LOCKED
                """),
                {"ingest": ingest_limit_s, "assess": assess_limit_s, "reach": lease_s - heartbeat_s},
            ).all()
            for row in rows:
                code = _end_of(row, max_attempts)
                if code is None:
                    _reopen(c, row)
                else:
                    fail_stage(c, row.analysis_id, Stage(row.stage), code)
                    ended.append(Overdue(row.analysis_id, Stage(row.stage), code, row.attempts, row.worker))
            ended += [Overdue(analysis_id, None, FailCode.DEADLINE) for analysis_id in _end_unfused(c)]
        return ended

    def due(self, everything: bool = False, but: Collection[Stage] = (), limit: int = 500) -> list[DueStage]:
        """Open rows whose time to be sent has come, except those of the stages in `but`.

        `everything` ignores the time and the limit, after the broker was emptied. Branches of an analysis whose ingest
        is open again wait for it.
        """
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT s.analysis_id, s.stage, s.sends, a.lane FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.status = 'open' AND a.finished_at IS NULL AND s.stage <> ALL(:but)
                      AND (:everything OR s.not_before <= clock_timestamp())
                      AND (s.stage = 'ingest' OR NOT EXISTS (
                           SELECT 1 FROM stages i WHERE i.analysis_id = s.analysis_id
                           AND i.stage = 'ingest' AND i.status IN ('open', 'leased')))
                    ORDER BY s.not_before LIMIT :limit
                """),
                {"everything": everything, "but": [s.value for s in but], "limit": None if everything else limit},
            ).all()
        return [DueStage(r.analysis_id, Stage(r.stage), r.sends, Lane(r.lane)) for r in rows]

    def open_counts(self) -> dict[Stage, int]:
        """How many rows of each stage are open, in analyses that have not ended."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT s.stage, count(*) AS n FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.status = 'open' AND a.finished_at IS NULL GROUP BY s.stage
                """)
            ).all()
        return {Stage(r.stage): r.n for r in rows}

    def unfused(self, age_s: float, limit: int = 500) -> list[UUID]:
        """Running analyses all of whose stages were settled at least `age_s` ago."""
        with self._transaction() as c:
            rows = c.scalars(
                text("""
                    SELECT a.id FROM analyses a JOIN stages s ON s.analysis_id = a.id
                    WHERE a.finished_at IS NULL AND a.state = 'running'
                    GROUP BY a.id
                    HAVING count(*) > 1 AND bool_and(s.status NOT IN ('open', 'leased'))
                       AND max(s.finished_at) < clock_timestamp() - make_interval(secs => :age)
                    ORDER BY a.id LIMIT :limit
                """),
                {"age": age_s, "limit": limit},
            ).all()
        return list(rows)


def _end_of(row: Row[tuple[object, ...]], max_attempts: int) -> FailCode | None:
    """Why an overdue stage ends; None if another worker may still try it."""
    if row.past_deadline:
        return FailCode.DEADLINE
    if row.past_limit:
        return FailCode.TIMEOUT
    return FailCode.POISON if row.attempts >= max_attempts else None


def _reopen(c: Connection, row: Row[tuple[object, ...]]) -> None:
    c.execute(
        text("""
            UPDATE stages SET status = 'open', lease_token = NULL, lease_until = NULL, not_before = clock_timestamp()
            WHERE analysis_id = :id AND stage = :stage
        """),
        {"id": row.analysis_id, "stage": row.stage},
    )


def _end_unfused(c: Connection) -> Sequence[UUID]:
    """End analyses that nobody could fuse in time, such as those of a pipeline whose workers are all gone."""
    ended = c.scalars(
        text("""
            UPDATE analyses a SET state = 'failed', code = :code, message = :message, finished_at = clock_timestamp()
            WHERE a.finished_at IS NULL AND a.deadline_at + make_interval(secs => :grace) < clock_timestamp()
              AND NOT EXISTS (SELECT 1 FROM stages s WHERE s.analysis_id = a.id AND s.status IN ('open', 'leased'))
            RETURNING a.id
        """),
        {"code": FailCode.DEADLINE, "message": SENTENCES[FailCode.DEADLINE], "grace": FUSION_GRACE_S},
    ).all()
    for analysis_id in ended:
        owe_delivery(c, analysis_id)
        release_followers(c, analysis_id)
    return ended
