"""One run for analyses of the same content: at submission, by whoever finds that it was or is being examined.

Content is a tenant's: the same bytes, by their digest. Whoever looks whether others name a blob or have a result, to
act on the answer, holds the content's lock, so that two never look past each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Row

from clipwarden.shared.contracts import Branch, Manifest, MediaProbe, Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.queue import Task
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.ending import copy_stages, release_followers, take_over

SAME = """
    FROM analyses n JOIN analyses a
      ON a.tenant_id = n.tenant_id AND a.sha256 = n.sha256 AND a.pipeline_id = n.pipeline_id
     AND a.id <> n.id AND a.reusable
     AND coalesce(a.detectors @> n.detectors AND a.detectors <@ n.detectors,
                  a.detectors IS NULL AND n.detectors IS NULL)
    WHERE n.id = :id
"""
"""Other analyses that ask the same detectors of the same content."""

WHOLE = """
    NOT EXISTS (SELECT 1 FROM stages s WHERE s.analysis_id = a.id
                AND (s.status = 'failed' OR s.outcome->'detectors' @> '[{"status": "failed"}]'))
"""
"""Nothing failed in it that may not fail again."""

UNGATED = """
    NOT EXISTS (SELECT 1 FROM stages s WHERE s.analysis_id = a.id
                AND (s.code = 'gated' OR s.outcome->'detectors' @> '[{"code": "gated"}]'))
"""
"""Nothing was spared in it, which depends on the policy."""


def lock_contents(c: Connection, contents: Iterable[tuple[UUID, str]]) -> None:
    """Hold the locks of contents, by tenant and digest, until the transaction ends; before any lock on their rows.

    Digests that begin alike share a lock: Postgres has room for some thousands in all, and a batch takes 256 at most.
    """
    names = sorted({f"{tenant_id}/{sha256[:2]}" for tenant_id, sha256 in contents if sha256})
    if names:
        c.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(CAST(:names AS text[])) AS name"),
            {"names": names},
        )


def share(c: Connection, analysis_id: UUID) -> bool:
    """Spare a fresh analysis its run if another of its content stands for it; its content is locked.

    In any case it names the file that the tenant has of that content already. It ends at once with a result that is
    there; or follows an analysis that is under way in no lower lane; or has only its verdict to be made, of findings
    that another policy judged. False if it has to run.
    """
    asked = c.execute(
        text("""
            SELECT n.reusable AND n.rerun_of IS NULL AS may, n.sha256 <> '' AND EXISTS (
                SELECT 1 FROM analyses a WHERE a.tenant_id = n.tenant_id AND a.sha256 = n.sha256 AND a.id <> n.id
            ) AS known
            FROM analyses n WHERE n.id = :id
        """),
        {"id": analysis_id},
    ).one()
    if not asked.known:
        return False
    _adopt_upload(c, analysis_id)
    return bool(asked.may) and (_follow(c, analysis_id) or _copy(c, analysis_id))


def _adopt_upload(c: Connection, analysis_id: UUID) -> None:
    """Have a fresh analysis name the file that the tenant has of its content already; its content is locked."""
    known = c.scalar(
        text("""
            SELECT a.upload_key FROM analyses n JOIN analyses a
              ON a.tenant_id = n.tenant_id AND a.sha256 = n.sha256 AND a.size_bytes = n.size_bytes AND a.id <> n.id
            WHERE n.id = :id AND n.sha256 <> '' AND a.upload_key IS NOT NULL AND a.state <> 'rejected'
            ORDER BY a.id LIMIT 1 FOR SHARE OF a
        """),
        {"id": analysis_id},
    )
    if known is not None:
        c.execute(text("UPDATE analyses SET upload_key = :key WHERE id = :id"), {"key": known, "id": analysis_id})


def _follow(c: Connection, analysis_id: UUID) -> bool:
    """The lock on the leader's row orders this before its end, which then finds its follower, or after it."""
    leader = c.scalar(
        text(f"""
            SELECT a.id {SAME} AND a.finished_at IS NULL AND a.state IN ('queued', 'running') AND a.leader_id IS NULL
              AND a.policy IS NOT DISTINCT FROM n.policy AND (a.lane = 'realtime' OR n.lane = 'bulk')
            ORDER BY a.id LIMIT 1 FOR UPDATE OF a
        """),  # noqa: S608 - words of ours
        {"id": analysis_id},
    )
    if leader is None:
        return False
    c.execute(text("UPDATE analyses SET leader_id = :leader WHERE id = :id"), {"leader": leader, "id": analysis_id})
    return True


def _copy(c: Connection, analysis_id: UUID) -> bool:
    source = c.execute(
        text(f"""
            SELECT a.id, a.policy IS NOT DISTINCT FROM n.policy AS judged {SAME}
              AND a.state = 'done' AND {WHOLE} AND (a.policy IS NOT DISTINCT FROM n.policy OR {UNGATED})
            ORDER BY a.policy IS NOT DISTINCT FROM n.policy DESC, a.id DESC LIMIT 1 FOR SHARE OF a
        """),  # noqa: S608 - words of ours
        {"id": analysis_id},
    ).one_or_none()
    if source is None:
        return False
    if source.judged:
        take_over(c, source.id, [analysis_id])
        return True
    copy_stages(c, source.id, [analysis_id])
    c.execute(
        text("""
            UPDATE analyses n SET state = 'running', started_at = clock_timestamp(), probe = a.probe, from_cache = true
            FROM analyses a WHERE n.id = :id AND a.id = :source
        """),
        {"id": analysis_id, "source": source.id},
    )
    return True


def copy_branches(c: Connection, analysis_id: UUID, sources: Mapping[Branch, UUID]) -> None:
    """Settle branches as those analyses did that they were found for. Raises Unavailable if one is there no more."""
    for source_id in sorted(set(sources.values())):
        there = text("SELECT 1 FROM analyses WHERE id = :id AND state = 'done' FOR SHARE")
        if c.scalar(there, {"id": source_id}) is None:
            raise Unavailable("findings that were to be taken over have just been deleted")
    for branch, source_id in sources.items():
        c.execute(
            text("""
                INSERT INTO stages AS mine (analysis_id, stage, status, code, message, outcome, finished_at)
                SELECT :id, s.stage, s.status, s.code, s.message, s.outcome || '{"reused": true}', clock_timestamp()
                FROM stages s WHERE s.analysis_id = :source AND s.stage = :stage
                ON CONFLICT (analysis_id, stage) DO UPDATE
                SET status = excluded.status, code = excluded.code, message = excluded.message,
                    so_far = NULL, outcome = excluded.outcome, lease_token = NULL, lease_until = NULL,
                    finished_at = excluded.finished_at
                WHERE mine.status IN ('open', 'leased')
            """),
            {"id": analysis_id, "source": source_id, "stage": branch.value},
        )


@dataclass(frozen=True, slots=True)
class Earlier:
    """An analysis of the same content that is done: the pipeline as far as it asked for it, and what it found.

    `branches` are those in which nothing failed and nothing was spared.
    """

    analysis_id: UUID
    manifest: Manifest
    probe: MediaProbe
    branches: frozenset[Branch]


class Reuse(Database):
    """What is known of content that more than one analysis is about."""

    def earlier(self, analysis_id: UUID, limit: int = 5) -> list[Earlier]:
        """The latest analyses whose findings this one may take over, branch by branch."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT a.id, a.probe, a.detectors, p.manifest,
                           ARRAY(SELECT s.stage FROM stages s WHERE s.analysis_id = a.id
                                 AND s.status IN ('ok', 'skipped') AND s.outcome IS NOT NULL
                                 AND s.code IS DISTINCT FROM 'gated'
                                 AND NOT coalesce(s.outcome->'detectors' @> '[{"status": "failed"}]', false)
                                 AND NOT coalesce(s.outcome->'detectors' @> '[{"code": "gated"}]', false)) AS branches
                    FROM analyses n JOIN analyses a
                      ON a.tenant_id = n.tenant_id AND a.sha256 = n.sha256 AND a.id <> n.id AND a.reusable
                    JOIN pipelines p ON p.id = a.pipeline_id
                    WHERE n.id = :id AND n.reusable AND n.sha256 <> '' AND a.state = 'done' AND a.probe IS NOT NULL
                    ORDER BY a.id DESC LIMIT :limit
                """),
                {"id": analysis_id, "limit": limit},
            ).all()
        return [each for row in rows if (each := _earlier(row)) is not None]

    def next_task(self, analysis_id: UUID) -> Task | None:
        """What to send for a fresh analysis; None if it has ended, or waits for another."""
        with self._transaction() as c:
            row = c.execute(
                text("""
                    SELECT a.leader_id, a.finished_at,
                           ARRAY(SELECT s.stage FROM stages s WHERE s.analysis_id = a.id AND s.status <> 'ok'
                                 AND s.stage IN ('fetch', 'ingest')) AS early
                    FROM analyses a WHERE a.id = :id
                """),
                {"id": analysis_id},
            ).one_or_none()
        if row is None or row.finished_at is not None or row.leader_id is not None:
            return None
        if Stage.FETCH in row.early:
            return Task.FETCH
        return Task.INGEST if Stage.INGEST in row.early else Task.FUSE

    def forget_upload(self, analysis_id: UUID) -> str | None:
        """Have an analysis name its file no more; returns the file's key if nothing names it now, to be deleted."""
        with self._transaction() as c:
            row = c.execute(
                text("SELECT tenant_id, sha256, upload_key FROM analyses WHERE id = :id"), {"id": analysis_id}
            ).one_or_none()
            if row is None or row.upload_key is None:
                return None
            lock_contents(c, [(row.tenant_id, row.sha256)])
            key = c.scalar(text("SELECT upload_key FROM analyses WHERE id = :id FOR UPDATE"), {"id": analysis_id})
            c.execute(text("UPDATE analyses SET upload_key = NULL WHERE id = :id"), {"id": analysis_id})
            named = c.scalar(
                text("""
                    SELECT EXISTS (SELECT 1 FROM analyses WHERE upload_key = :key)
                        OR EXISTS (SELECT 1 FROM uploads WHERE blob_key = :key)
                """),
                {"key": key},
            )
        return None if named or key is None else str(key)

    def lose_upload(self, key: str) -> None:
        """Note that a file is gone, so that no analysis to come is told to read it."""
        with self._transaction() as c:
            c.execute(text("UPDATE analyses SET upload_key = NULL WHERE upload_key = :key"), {"key": key})

    def release_stranded(self) -> int:
        """Go on with analyses that follow one that has ended, however that came about; returns how many leaders."""
        with self._transaction() as c:
            leaders = c.scalars(
                text("""
                    SELECT DISTINCT f.leader_id FROM analyses f LEFT JOIN analyses l ON l.id = f.leader_id
                    WHERE f.leader_id IS NOT NULL AND f.finished_at IS NULL
                      AND (l.id IS NULL OR l.state NOT IN ('queued', 'running'))
                """)
            ).all()
            for leader_id in leaders:
                release_followers(c, leader_id)
        return len(leaders)


def _earlier(row: Row[tuple[object, ...]]) -> Earlier | None:
    """None if the analysis is of another version, whose pipelines or files are told otherwise."""
    try:
        return Earlier(
            analysis_id=row.id,
            manifest=Manifest.model_validate(row.manifest).only(row.detectors),
            probe=MediaProbe.model_validate(row.probe),
            branches=frozenset(map(Branch, set(row.branches) & set(Branch))),
        )
    except ValidationError:
        return None
