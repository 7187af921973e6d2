"""The sweeper's side of the store: what is overdue, unsent, unfused, or past its time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import text

from clipwarden.shared.codes import FailCode
from clipwarden.shared.contracts import Stage
from clipwarden.shared.store.connection import Database
from clipwarden.shared.store.rows import DueStage, fail_stage


class Upkeep(Database):
    """Finds what was left lying."""

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Hold the lock that lets one sweeper work at a time; False if another holds it."""
        with self._transaction() as c:
            yield bool(c.scalar(text("SELECT pg_try_advisory_xact_lock(727463)")))

    def end_overdue(
        self, ingest_limit_s: float, assess_limit_s: float, max_attempts: int
    ) -> dict[FailCode, list[tuple[UUID, Stage]]]:
        """Settle what can no longer succeed, and open again what lost its worker.

        timeout: a lease that ran out after the stage's time limit; poison: one that ran out on the last attempt;
        deadline: an analysis past its deadline.
        """
        ended: dict[FailCode, list[tuple[UUID, Stage]]] = {
            FailCode.DEADLINE: [],
            FailCode.TIMEOUT: [],
            FailCode.POISON: [],
        }
        with self._transaction() as c:
            late = c.execute(
                text(
                    "SELECT s.analysis_id, s.stage, s.attempts, a.deadline_at < clock_timestamp() AS past_deadline,"
                    " s.leased_at + make_interval(secs => CASE s.stage WHEN 'ingest' THEN :ingest ELSE :assess END)"
                    " < clock_timestamp() AS past_limit"
                    " FROM stages s JOIN analyses a ON a.id = s.analysis_id"
                    " WHERE a.finished_at IS NULL AND s.status IN ('open', 'leased') AND (a.deadline_at <"
                    " clock_timestamp()"
                    " OR (s.status = 'leased' AND s.lease_until < clock_timestamp())) ORDER BY s.analysis_id,"
                    " s.stage FOR UPDATE OF s SKIP LOCKED"
                ),
                {"ingest": ingest_limit_s, "assess": assess_limit_s},
            ).all()
            for row in late:
                code = (
                    FailCode.DEADLINE
                    if row.past_deadline
                    else FailCode.TIMEOUT
                    if row.past_limit
                    else FailCode.POISON
                    if row.attempts >= max_attempts
                    else None
                )
                if code is None:
                    c.execute(
                        text(
                            "UPDATE stages SET status = 'open', lease_token = NULL, lease_until = NULL,"
                            " not_before = clock_timestamp() WHERE analysis_id = :id AND stage = :stage"
                        ),
                        {"id": row.analysis_id, "stage": row.stage},
                    )
                else:
                    fail_stage(c, row.analysis_id, Stage(row.stage), code)
                    ended[code].append((row.analysis_id, Stage(row.stage)))
        return ended

    def due(self, everything: bool = False, limit: int = 500) -> list[DueStage]:
        """Open rows whose time to be sent has come; `everything` ignores the time, after the broker was emptied.

        Branches of an analysis whose ingest is open again wait for it.
        """
        with self._transaction() as c:
            rows = c.execute(
                text(
                    "SELECT s.analysis_id, s.stage, s.sends FROM stages s JOIN analyses a ON a.id = s.analysis_id"
                    " WHERE s.status = 'open' AND a.finished_at IS NULL AND (:everything OR s.not_before <="
                    " clock_timestamp())"
                    " AND (s.stage = 'ingest' OR NOT EXISTS (SELECT 1 FROM stages i WHERE i.analysis_id = s.analysis_id"
                    " AND i.stage = 'ingest' AND i.status IN ('open', 'leased')))"
                    " ORDER BY s.not_before LIMIT :limit"
                ),
                {"everything": everything, "limit": limit},
            ).all()
        return [DueStage(r.analysis_id, Stage(r.stage), r.sends) for r in rows]

    def open_counts(self) -> dict[Stage, int]:
        """How many rows of each stage are open."""
        with self._transaction() as c:
            rows = c.execute(text("SELECT stage, count(*) AS n FROM stages WHERE status = 'open' GROUP BY stage")).all()
        return {Stage(r.stage): r.n for r in rows}

    def unfused(self, age_s: float, limit: int = 500) -> list[UUID]:
        """Running analyses all of whose stages were settled at least `age_s` ago."""
        with self._transaction() as c:
            rows = c.scalars(
                text(
                    "SELECT a.id FROM analyses a JOIN stages s ON s.analysis_id = a.id WHERE a.finished_at IS NULL"
                    " AND a.state = 'running' GROUP BY a.id HAVING count(*) > 1 AND bool_and(s.status NOT IN"
                    " ('open', 'leased'))"
                    " AND max(s.finished_at) < clock_timestamp() - make_interval(secs => :age) ORDER BY a.id LIMIT"
                    " :limit"
                ),
                {"age": age_s, "limit": limit},
            ).all()
        return list(rows)

    def expired_uploads(self, age_s: float, limit: int = 500) -> list[tuple[UUID, str]]:
        """Uploads of analyses that ended at least `age_s` ago, rejected ones at once."""
        with self._transaction() as c:
            rows = c.execute(
                text(
                    "SELECT id, upload_key FROM analyses WHERE upload_key IS NOT NULL AND finished_at IS NOT NULL AND"
                    " (state = 'rejected' OR finished_at < clock_timestamp() - make_interval(secs => :age)) LIMIT"
                    " :limit"
                ),
                {"age": age_s, "limit": limit},
            ).all()
        return [(r.id, r.upload_key) for r in rows]

    def unknown_uploads(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that no analysis refers to."""
        with self._transaction() as c:
            known = c.scalars(
                text("SELECT upload_key FROM analyses WHERE upload_key = ANY(:keys)"), {"keys": list(keys)}
            ).all()
        return set(keys) - set(known)

    def forget_upload(self, analysis_id: UUID) -> None:
        """Note that the analysis's upload is deleted."""
        with self._transaction() as c:
            c.execute(text("UPDATE analyses SET upload_key = NULL WHERE id = :id"), {"id": analysis_id})
