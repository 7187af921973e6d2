"""Batches: many analyses that are opened together, and what has become of them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from clipwarden.shared.contracts import AnalysisState, Label
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.idempotency import KeyClaim, settle_claim
from clipwarden.shared.store.intake import open_analysis
from clipwarden.shared.store.reuse import lock_contents
from clipwarden.shared.store.rows import NewAnalysis, as_json
from clipwarden.shared.store.uploads import hold_uploads


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an item of a batch has no analysis."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Items in the order they came; `upload_ids` are the files sent ahead that they name."""

    tenant_id: UUID
    items: Sequence[NewAnalysis | Refused]
    upload_ids: Collection[UUID] = ()
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An item: its analysis and how that is, or why there is none."""

    index: int
    analysis_id: UUID | None
    state: AnalysisState | None
    label: Label | None
    refused: Refused | None


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch, its analyses counted, and some of its items."""

    id: UUID
    tag: str | None
    created_at: datetime
    total: int
    states: Mapping[AnalysisState, int]
    labels: Mapping[Label, int]
    items: tuple[BatchItem, ...]


class Batches(Database):
    """Opens and shows batches."""

    def open_batch(self, new: NewBatch, claim: KeyClaim | None = None, fingerprint: str = "") -> UUID:
        """Open all analyses of a batch or, if anything is raised, none. See `Intake.submit` for what is raised."""
        batch_id = new_id()
        opening = [item for item in new.items if isinstance(item, NewAnalysis)]
        with self._transaction() as c:
            lock_contents(c, [(item.tenant_id, item.sha256) for item in opening])
            hold_uploads(c, new.upload_ids)
            c.execute(
                text("INSERT INTO batches (id, tenant_id, tag, items) VALUES (:id, :tenant, :tag, '[]')"),
                {"id": batch_id, "tenant": new.tenant_id, "tag": new.tag},
            )
            entries = [
                {"code": item.code, "detail": item.detail}
                if isinstance(item, Refused)
                else {"id": str(open_analysis(c, replace(item, batch_id=batch_id)).id)}
                for item in new.items
            ]
            c.execute(
                text("UPDATE batches SET items = CAST(:items AS jsonb) WHERE id = :id"),
                {"id": batch_id, "items": as_json(entries)},
            )
            if claim is not None:
                settle_claim(c, claim, fingerprint, batch_id)
        return batch_id

    def batch(self, batch_id: UUID, tenant_id: UUID, start: int, limit: int) -> KeptBatch | None:
        """A batch with the items from index `start`; None if the id is unknown, or not this tenant's."""
        with self._transaction() as c:
            row = c.execute(
                text("SELECT * FROM batches WHERE id = :id AND tenant_id = :tenant"),
                {"id": batch_id, "tenant": tenant_id},
            ).one_or_none()
            if row is None:
                return None
            found = c.execute(
                text("""
                    SELECT a.id, coalesce(l.state, a.state) AS state, v.verdict->>'label' AS label
                    FROM analyses a LEFT JOIN verdicts v ON v.analysis_id = a.id
                    LEFT JOIN analyses l ON l.id = a.leader_id AND a.finished_at IS NULL
                    WHERE a.batch_id = :id
                """),
                {"id": batch_id},
            ).all()
        known = {str(a.id): (AnalysisState(a.state), a.label and Label(a.label)) for a in found}
        return KeptBatch(
            id=row.id,
            tag=row.tag,
            created_at=row.created_at,
            total=len(row.items),
            states=Counter(state for state, _ in known.values()),
            labels=Counter(label for _, label in known.values() if label),
            items=tuple(_item(i, row.items[i], known) for i in range(start, min(start + limit, len(row.items)))),
        )


def _item(index: int, entry: dict[str, Any], known: Mapping[str, tuple[AnalysisState, Label | None]]) -> BatchItem:
    if "id" not in entry:
        return BatchItem(index, None, None, None, Refused(entry["code"], entry["detail"]))
    state, label = known.get(entry["id"], (None, None))
    return BatchItem(index, UUID(entry["id"]), state, label, None)
