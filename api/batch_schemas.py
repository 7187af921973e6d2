"""The JSON of files sent ahead and of batches: what both the gateway and its client read and write."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field

from clipwarden.api.links import address
from clipwarden.api.schema import View
from clipwarden.api.schemas import ErrorView
from clipwarden.shared.contracts import AnalysisState, Label
from clipwarden.shared.store import BatchItem, KeptBatch, KeptUpload


class UploadView(View):
    """A file that analyses may name until it expires."""

    id: UUID = Field(description="What `upload` of an analysis names")
    filename: str
    bytes: int
    sha256: str = Field(description="Hexadecimal SHA-256 of the file")
    expires_at: datetime

    @classmethod
    def from_domain(cls, kept: KeptUpload) -> Self:
        return cls(
            id=kept.id, filename=kept.filename, bytes=kept.size_bytes, sha256=kept.sha256, expires_at=kept.expires_at
        )


class ItemView(View):
    """An item by its place in the request: its analysis, or the error that refused it."""

    index: int
    id: UUID | None
    state: AnalysisState | None
    label: Label | None
    error: ErrorView | None
    links: dict[str, str]

    @classmethod
    def from_domain(cls, item: BatchItem) -> Self:
        return cls(
            index=item.index,
            id=item.analysis_id,
            state=item.state,
            label=item.label,
            error=ErrorView(code=item.refused.code, message=item.refused.detail) if item.refused else None,
            links={"self": address(item.analysis_id)} if item.analysis_id else {},
        )


class BatchView(View):
    """A batch: its analyses counted by state, the verdicts by label, and a page of its items."""

    id: UUID
    tag: str | None
    created_at: datetime
    total: int = Field(description="Items that were sent")
    accepted: int
    refused: int
    ended: int = Field(description="Analyses that have ended; all of them when it equals `accepted`")
    states: dict[AnalysisState, int]
    labels: dict[Label, int]
    items: list[ItemView]
    next: int | None = Field(description="`start` of the next page; null on the last one")
    links: dict[str, str]

    @classmethod
    def from_domain(cls, batch: KeptBatch) -> Self:
        accepted = sum(batch.states.values())
        underway = sum(batch.states.get(state, 0) for state in (AnalysisState.QUEUED, AnalysisState.RUNNING))
        last = batch.items[-1].index + 1 if batch.items else batch.total
        return cls(
            id=batch.id,
            tag=batch.tag,
            created_at=batch.created_at,
            total=batch.total,
            accepted=accepted,
            refused=batch.total - accepted,
            ended=accepted - underway,
            states=dict(batch.states),
            labels=dict(batch.labels),
            items=[ItemView.from_domain(item) for item in batch.items],
            next=last if last < batch.total else None,
            links={"self": f"/v1/batches/{batch.id}", "analyses": f"/v1/analyses?batch={batch.id}"},
        )
