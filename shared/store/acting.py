"""What a tenant does to an analysis once it is there: stop it, remove it, say what it really was."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Row

from clipwarden.shared.blobs import evidence_folder
from clipwarden.shared.contracts import TERMINAL_STATES, AnalysisState
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.ending import end_analysis
from clipwarden.shared.store.idempotency import KeyClaim, settle_claim
from clipwarden.shared.store.reuse import lock_contents

CANCELLED: Final = "The analysis was cancelled."


@dataclass(frozen=True, slots=True)
class Doomed:
    """What only one analysis refers to in the blob store."""

    upload_key: str | None
    folders: tuple[str, ...]


Remove = Callable[[Doomed], None]
"""Deletes from the blob store what nothing else refers to."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says of an analysis."""

    id: UUID
    label: str
    category: str
    comment: str | None
    created_at: datetime


class Acting(Database):
    """Changes that a tenant asks for. All locks are taken in the same order: content, stages, then the analysis."""

    def cancel(self, analysis_id: UUID, tenant_id: UUID) -> bool:
        """End an analysis that has not ended, and settle its stages; what workers still report is dropped.

        False if it has ended, or is not this tenant's.
        """
        with self._transaction() as c:
            row = _locked(c, analysis_id, tenant_id)
            if row is None or AnalysisState(row.state) in TERMINAL_STATES:
                return False
            _cancel(c, analysis_id)
        return True

    def delete(self, analysis_id: UUID, tenant_id: UUID, remove: Remove) -> bool:
        """Forget an analysis but for a tombstone; a running one is cancelled first. False if it is not this tenant's.

        `remove` deletes what nothing else refers to. If it raises, nothing is forgotten, so that it can be done again.
        """
        with self._transaction() as c:
            row = locked(c, analysis_id, tenant_id)
            if row is None:
                return False
            if row.state == AnalysisState.DELETED:
                return True
            if AnalysisState(row.state) not in TERMINAL_STATES:
                _cancel(c, analysis_id)
            remove(Doomed(own_upload(c, row), own_folders(c, row)))
            for table in ("stages", "verdicts", "feedback", "deliveries"):
                c.execute(text(f"DELETE FROM {table} WHERE analysis_id = :id"), {"id": analysis_id})  # noqa: S608
            c.execute(
                text("""
                    UPDATE analyses
                    SET state = 'deleted', deleted_at = clock_timestamp(), filename = '', size_bytes = 0, sha256 = '',
                        upload_key = NULL, probe = NULL, code = NULL, message = NULL, tag = NULL, metadata = '{}',
                        source_url = NULL, callback_url = NULL, leader_id = NULL, reusable = false
                    WHERE id = :id
                """),
                {"id": analysis_id},
            )
        return True

    def add_feedback(
        self,
        analysis_id: UUID,
        label: str,
        category: str,
        comment: str | None,
        key_id: UUID | None,
        claim: KeyClaim | None = None,
        fingerprint: str = "",
    ) -> Feedback:
        """Keep what somebody says. `claim` is the hold on the request's key; raises ProblemError if it was lost."""
        with self._transaction() as c:
            row = c.execute(
                text("""
                    INSERT INTO feedback (id, analysis_id, label, category, comment, key_id)
                    VALUES (:id, :analysis_id, :label, :category, :comment, :key_id)
                    RETURNING *
                """),
                {
                    "id": new_id(),
                    "analysis_id": analysis_id,
                    "label": label,
                    "category": category,
                    "comment": comment,
                    "key_id": key_id,
                },
            ).one()
            if claim is not None:
                settle_claim(c, claim, fingerprint, row.id)
        return _feedback(row)

    def feedback(self, analysis_id: UUID) -> Sequence[Feedback]:
        """Oldest first."""
        with self._transaction() as c:
            rows = c.execute(
                text("SELECT * FROM feedback WHERE analysis_id = :id ORDER BY id"), {"id": analysis_id}
            ).all()
        return [_feedback(row) for row in rows]


Found = Row[tuple[object, ...]]


def _feedback(row: Found) -> Feedback:
    return Feedback(row.id, row.label, row.category, row.comment, row.created_at)


def locked(c: Connection, analysis_id: UUID, tenant_id: UUID | None = None) -> Found | None:
    """An analysis with its content's lock, to act on who else names its files; None if it is not this tenant's."""
    owned = c.execute(
        text("SELECT tenant_id, sha256 FROM analyses WHERE id = :id AND tenant_id = coalesce(:tenant, tenant_id)"),
        {"id": analysis_id, "tenant": tenant_id},
    ).one_or_none()
    if owned is None:
        return None
    lock_contents(c, [(owned.tenant_id, owned.sha256)])
    return _locked(c, analysis_id, owned.tenant_id)


def _locked(c: Connection, analysis_id: UUID, tenant_id: UUID) -> Found | None:
    """The analysis, with its stages locked before it, which is the order of the workers.

    Stages that were opened while we waited for the analysis may be a worker's by now, who waits for it too: then both
    are let go and locked anew.
    """
    key = {"id": analysis_id, "tenant": tenant_id}
    while True:
        attempt = c.begin_nested()
        held = c.execute(text("SELECT 1 FROM stages WHERE analysis_id = :id ORDER BY stage FOR UPDATE"), key).all()
        row = c.execute(
            text("SELECT * FROM analyses WHERE id = :id AND tenant_id = :tenant FOR UPDATE"), key
        ).one_or_none()
        if c.scalar(text("SELECT count(*) FROM stages WHERE analysis_id = :id"), key) == len(held):
            attempt.commit()
            return row
        attempt.rollback()


def _cancel(c: Connection, analysis_id: UUID) -> None:
    end_analysis(c, analysis_id, AnalysisState.CANCELLED, None, None)
    c.execute(
        text("""
            UPDATE stages
            SET status = 'skipped', message = :message, lease_token = NULL, lease_until = NULL,
                finished_at = clock_timestamp()
            WHERE analysis_id = :id AND status IN ('open', 'leased')
        """),
        {"id": analysis_id, "message": CANCELLED},
    )


def own_upload(c: Connection, row: Found) -> str | None:
    """The file, unless another analysis names it too; a file sent ahead is not kept for a later one."""
    if row.upload_key is None:
        return None
    named = {"key": row.upload_key, "id": row.id}
    if c.scalar(text("SELECT EXISTS (SELECT 1 FROM analyses WHERE upload_key = :key AND id <> :id)"), named):
        return None
    c.execute(text("DELETE FROM uploads WHERE blob_key = :key"), named)
    return str(row.upload_key)


def own_folders(c: Connection, row: Found) -> tuple[str, ...]:
    """Folders of evidence to remove. Analyses of the same content may have taken over each other's results.

    A folder stays while a result names it. The folder of an analysis goes with the last result that names something in
    it, together with what no result ever named.
    """
    named = c.execute(
        text("""
            SELECT s.analysis_id, s.outcome->>'folder' AS folder
            FROM stages s JOIN analyses a ON a.id = s.analysis_id
            WHERE (a.id = :id OR (a.tenant_id = :tenant AND a.sha256 = :sha256 AND a.sha256 <> ''))
              AND s.outcome->>'folder' IS NOT NULL
        """),
        {"id": row.id, "tenant": row.tenant_id, "sha256": row.sha256},
    ).all()
    mine = {n.folder for n in named if n.analysis_id == row.id}
    others = {n.folder for n in named if n.analysis_id != row.id}
    roots = {row.id, *(UUID(folder.split("/")[1]) for folder in mine)}
    doomed: list[str] = []
    for root in map(evidence_folder, roots):
        kept = any(folder.startswith(f"{root}/") for folder in others)
        doomed += [f for f in mine - others if f.startswith(f"{root}/")] if kept else [root]
    return tuple(sorted(doomed))
