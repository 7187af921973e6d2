"""What the gateway tells of many analyses at once, and the secret under which it signs links."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from clipwarden.shared.contracts import AnalysisState, Label, Lane, MediaKind, Stage
from clipwarden.shared.store.connection import Database, text

SKEW: Final = timedelta(days=1)
"""Ids carry their gateway's clock, rows the database's; farther than this they are not taken to be apart."""
UNDER_WAY: Final = frozenset({AnalysisState.QUEUED, AnalysisState.RUNNING})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which analyses of a tenant to list; what is None does not matter. Deleted ones only if asked for by state."""

    tenant_id: UUID
    limit: int
    before: UUID | None = None
    state: AnalysisState | None = None
    label: Label | None = None
    tag: str | None = None
    lane: Lane | None = None
    batch_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    probability_min: float | None = None
    probability_max: float | None = None
    reviewed: bool | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """An analysis as a list tells it; one that shares the run of `leader_id` is in that one's state."""

    id: UUID
    state: AnalysisState
    created_at: datetime
    finished_at: datetime | None
    filename: str
    kind: MediaKind | None
    duration_s: float | None
    tag: str | None
    lane: Lane
    batch_id: UUID | None
    leader_id: UUID | None
    from_cache: bool
    code: str | None
    label: Label | None
    probability: float | None
    feedback: str | None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stage took in the last hour, and how many workers did or do it."""

    median_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Queued:
    """What waits and what is worked on: open rows by stage and lane, oldest first; leased ones by stage.

    `own` are the open rows of each tenant.
    """

    open: dict[tuple[Stage, Lane], list[UUID]]
    leased: dict[Stage, int]
    paces: dict[Stage, Pace]
    own: dict[UUID, dict[tuple[Stage, Lane], list[UUID]]] = field(default_factory=dict)


class Reading(Database):
    """Lists analyses, newest first, and what waits for workers."""

    def link_secret(self) -> bytes:
        """The installation's own secret for signed links, made when it is first asked for."""
        with self._transaction() as c:
            c.execute(
                text("INSERT INTO installation (key, value) VALUES ('link_secret', :made) ON CONFLICT DO NOTHING"),
                {"made": secrets.token_hex(32)},
            )
            found = c.scalar(text("SELECT value FROM installation WHERE key = 'link_secret'"))
        return bytes.fromhex(str(found))

    def queued(self) -> Queued:
        """The queues as they are now. A worker is seen if it settled a stage within ten minutes, or is at work."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT s.stage, s.status, a.lane, s.analysis_id, s.worker, a.tenant_id
                    FROM stages s JOIN analyses a ON a.id = s.analysis_id
                    WHERE s.status IN ('open', 'leased') AND a.finished_at IS NULL ORDER BY s.analysis_id
                """)
            ).all()
            lately = c.execute(
                text("""
                    SELECT p.stage, percentile_cont(0.5) WITHIN GROUP (ORDER BY r.took_s) AS median_s,
                           array_agg(DISTINCT r.worker) FILTER (WHERE r.lately) AS workers
                    FROM unnest(CAST(:stages AS text[])) p(stage) CROSS JOIN LATERAL (
                        SELECT CAST(extract(epoch FROM s.finished_at - s.leased_at) AS float8) AS took_s, s.worker,
                               s.finished_at > clock_timestamp() - interval '10 minutes' AS lately
                        FROM stages s
                        WHERE s.stage = p.stage AND s.finished_at > clock_timestamp() - interval '1 hour'
                          AND s.status = 'ok' AND s.leased_at IS NOT NULL
                        ORDER BY s.finished_at DESC LIMIT 200) r
                    GROUP BY p.stage
                """),
                {"stages": [stage.value for stage in Stage]},
            ).all()
        waiting: dict[tuple[Stage, Lane], list[UUID]] = {}
        own: dict[UUID, dict[tuple[Stage, Lane], list[UUID]]] = {}
        working: dict[Stage, list[str]] = {}
        for row in rows:
            if row.status == "open":
                for rows_of in (waiting, own.setdefault(row.tenant_id, {})):
                    rows_of.setdefault((Stage(row.stage), Lane(row.lane)), []).append(row.analysis_id)
            else:
                working.setdefault(Stage(row.stage), []).append(row.worker)
        paces = {
            Stage(row.stage): Pace(row.median_s, len({*(row.workers or ()), *working.get(Stage(row.stage), ())}))
            for row in lately
        }
        return Queued(waiting, {stage: len(workers) for stage, workers in working.items()}, paces, own)

    def listed(self, wanted: Wanted) -> Sequence[Listed]:
        """At most `limit` analyses that are older than `before`, newest first."""
        conditions = [condition for name, condition in CONDITIONS.items() if getattr(wanted, name) is not None]
        if wanted.state is None:
            conditions.append("a.state <> 'deleted'")
        elif wanted.state in UNDER_WAY:
            conditions += ["a.state IN ('queued', 'running')", "coalesce(l.state, a.state) = :state"]
        else:
            conditions.append("a.state = :state")
        after, before = wanted.created_after, wanted.created_before
        bounds: dict[str, Any] = {
            "after_s": after and (after - EPOCH).total_seconds(),  # a date may be in a zone that Postgres does not know
            "before_s": before and (before - EPOCH).total_seconds(),
            "after_id": after and _id_at(after, -SKEW),
            "before_id": before and _id_at(before, SKEW),
        }
        with self._transaction() as c:
            rows = c.execute(
                text(f"""
                    SELECT a.id, coalesce(l.state, a.state) AS state, l.id AS leader_id, a.created_at, a.finished_at,
                           a.filename, a.probe->>'kind' AS kind,
                           CAST(a.probe->>'duration_s' AS float8) AS duration_s, a.tag, a.lane, a.batch_id,
                           a.from_cache, a.code, v.verdict->>'label' AS label,
                           CAST(v.verdict->>'probability' AS float8) AS probability,
                           (SELECT f.category FROM feedback f WHERE f.analysis_id = a.id
                            ORDER BY f.created_at DESC, f.id DESC LIMIT 1) AS feedback
                    FROM analyses a LEFT JOIN verdicts v ON v.analysis_id = a.id
                    LEFT JOIN analyses l ON l.id = a.leader_id AND a.finished_at IS NULL
                    WHERE a.tenant_id = :tenant_id {" ".join(f"AND {each}" for each in conditions)}
                    ORDER BY a.id DESC LIMIT :limit
                """),  # noqa: S608 - the conditions are those below
                {each.name: getattr(wanted, each.name) for each in fields(wanted)} | bounds,
            ).all()
        return [
            Listed(
                id=row.id,
                state=AnalysisState(row.state),
                created_at=row.created_at,
                finished_at=row.finished_at,
                filename=row.filename,
                kind=row.kind and MediaKind(row.kind),
                duration_s=row.duration_s,
                tag=row.tag,
                lane=Lane(row.lane),
                batch_id=row.batch_id,
                leader_id=row.leader_id,
                from_cache=row.from_cache,
                code=row.code,
                label=row.label and Label(row.label),
                probability=row.probability,
                feedback=row.feedback,
            )
            for row in rows
        ]


CONDITIONS: Final = {
    "before": "a.id < :before",
    "label": "v.verdict->>'label' = :label",
    "tag": "a.tag = :tag",
    "lane": "a.lane = :lane",
    "batch_id": "a.batch_id = :batch_id",
    "created_after": "a.created_at >= to_timestamp(:after_s) AND a.id >= :after_id",
    "created_before": "a.created_at < to_timestamp(:before_s) AND a.id <= :before_id",
    "probability_min": "CAST(v.verdict->>'probability' AS float8) >= :probability_min",
    "probability_max": "CAST(v.verdict->>'probability' AS float8) <= :probability_max",
    "reviewed": "EXISTS (SELECT FROM feedback f WHERE f.analysis_id = a.id) = :reviewed",
}


def _id_at(moment: datetime, later: timedelta) -> UUID:
    """The least id of what is made that much later."""
    milliseconds = (moment - EPOCH + later) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), (1 << 48) - 1) << 80)
