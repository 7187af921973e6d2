"""`GET /v1/analyses`: the tenant's analyses, newest first, by what they are, page by page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from clipwarden.api.access import Reader
from clipwarden.api.fields import TAG_BYTES
from clipwarden.api.gateway import Services
from clipwarden.api.openapi import errors
from clipwarden.api.schemas import ListView, SummaryView
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import AnalysisState, Label, Lane
from clipwarden.shared.store import Wanted

MOST = 200

router = APIRouter(tags=["analyses"])


class Filters(BaseModel):
    """What to list; an unknown filter is refused, or a slip of the pen would list everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: AnalysisState | None = Field(None, description="Deleted analyses are listed only if asked for")
    label: Label | None = None
    tag: str | None = Field(None, max_length=TAG_BYTES, description="The whole tag")
    lane: Lane | None = None
    batch: UUID | None = None
    created_after: AwareDatetime | None = Field(None, description="RFC 3339; that moment is included")
    created_before: AwareDatetime | None = Field(None, description="RFC 3339; that moment is not included")
    probability_min: float | None = Field(None, ge=0, le=1)
    probability_max: float | None = Field(None, ge=0, le=1)
    reviewed: bool | None = Field(None, description="Whether anybody gave feedback")
    limit: int = Field(50, ge=1, le=MOST)
    cursor: str | None = Field(None, description="`next` of the page before, under the same filters")

    @field_validator("tag")
    @classmethod
    def _storable(cls, tag: str | None) -> str | None:
        if tag and "\0" in tag:
            raise ValueError("no tag holds a NUL character")
        return tag

    @field_validator("cursor")
    @classmethod
    def _ours(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            _id_of(cursor)
        return cursor

    def wanted(self, tenant_id: UUID) -> Wanted:
        """The question to the store: one analysis more than a page, which tells whether there is another."""
        return Wanted(
            tenant_id=tenant_id,
            limit=self.limit + 1,
            before=None if self.cursor is None else _id_of(self.cursor),
            state=self.state,
            label=self.label,
            tag=self.tag,
            lane=self.lane,
            batch_id=self.batch,
            created_after=self.created_after,
            created_before=self.created_before,
            probability_min=self.probability_min,
            probability_max=self.probability_max,
            reviewed=self.reviewed,
        )


def _id_of(cursor: str) -> UUID:
    try:
        return UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except ValueError as error:
        raise ValueError("this is no cursor of ours") from error


def _cursor_of(last: UUID) -> str:
    return urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


@router.get("/v1/analyses", response_model=ListView, responses=errors(ProblemCode.INVALID))
def list_analyses(filters: Annotated[Filters, Query()], gateway: Services, caller: Reader) -> ListView:
    """List analyses, newest first. Nothing is counted: read on until `next` is null."""
    found = gateway.store.listed(filters.wanted(caller.tenant_id))
    page = found[: filters.limit]
    return ListView(
        analyses=[SummaryView.from_domain(each) for each in page],
        next=_cursor_of(page[-1].id) if len(found) > len(page) else None,
    )
