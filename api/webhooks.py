"""`/v1/webhooks`: the log of callbacks, making one again, a test message, and the secrets that sign them."""

from contextvars import copy_context
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from clipwarden.api.access import Admin
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.openapi import errors
from clipwarden.api.routes import parse_id
from clipwarden.api.schema import View
from clipwarden.api.targets import callback_of
from clipwarden.shared import queue
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import StageStatus
from clipwarden.shared.errors import ProblemError, Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.store import Delivery, Event, Secret, WantedDeliveries

MOST = 200

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
log = logger(__name__)


class AttemptView(View):
    """One attempt: the status that the receiver answered, or why there is none."""

    at: datetime
    elapsed_ms: int
    status: int | None
    error: str | None


class DeliveryView(View):
    """A callback: `open` until it is answered with success; `skipped` if its address wants to hear nothing."""

    id: UUID = Field(description="Sent as `webhook-id`, the same with every attempt")
    event: Event
    analysis_id: UUID | None
    url: str
    status: StageStatus
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    log: list[AttemptView] = Field(description="The last attempts, oldest first")

    @classmethod
    def from_domain(cls, delivery: Delivery) -> Self:
        return cls(
            id=delivery.id,
            event=delivery.event,
            analysis_id=delivery.analysis_id,
            url=delivery.url,
            status=delivery.status,
            attempts=delivery.attempts,
            next_attempt_at=delivery.not_before if delivery.status is StageStatus.OPEN else None,
            created_at=delivery.created_at,
            finished_at=delivery.finished_at,
            log=[
                AttemptView(at=datetime.fromisoformat(a.at), elapsed_ms=a.elapsed_ms, status=a.status, error=a.error)
                for a in delivery.log
            ],
        )


class DeliveriesView(View):
    """A page of callbacks, newest first."""

    deliveries: list[DeliveryView]
    next: UUID | None = Field(description="`cursor` of the page after; null at the end")


class SecretView(View):
    """What callbacks are signed with, as Standard Webhooks 1.0 says."""

    id: UUID
    secret: str
    created_at: datetime
    expires_at: datetime | None = Field(description="When callbacks are no more signed with it; null for the current")

    @classmethod
    def from_domain(cls, secret: Secret) -> Self:
        return cls(id=secret.id, secret=secret.secret, created_at=secret.created_at, expires_at=secret.expires_at)


class SecretsView(View):
    """The secrets in force, newest first."""

    secrets: list[SecretView]


class Filters(BaseModel):
    """What to list; an unknown filter is refused, or a slip of the pen would list everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: StageStatus | None = None
    event: Event | None = None
    analysis_id: UUID | None = None
    limit: int = Field(50, ge=1, le=MOST)
    cursor: UUID | None = Field(None, description="`next` of the page before, under the same filters")


class Ping(BaseModel):
    """Where to send a test message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str


@router.get("/deliveries", response_model=DeliveriesView, responses=errors(ProblemCode.INVALID))
def list_deliveries(filters: Annotated[Filters, Query()], gateway: Services, caller: Admin) -> DeliveriesView:
    """List callbacks, newest first, with what came of each attempt."""
    found = gateway.store.listed_deliveries(
        WantedDeliveries(
            tenant_id=caller.tenant_id,
            limit=filters.limit + 1,
            before=filters.cursor,
            status=filters.status,
            event=filters.event,
            analysis_id=filters.analysis_id,
        )
    )
    page = found[: filters.limit]
    return DeliveriesView(
        deliveries=[DeliveryView.from_domain(each) for each in page],
        next=page[-1].id if len(found) > len(page) else None,
    )


@router.get("/deliveries/{delivery_id}", response_model=DeliveryView, responses=errors(ProblemCode.NOT_FOUND))
def show_delivery(delivery_id: str, gateway: Services, caller: Admin) -> DeliveryView:
    """Read a callback."""
    return DeliveryView.from_domain(_known(gateway.store.delivery(parse_id(delivery_id), caller.tenant_id)))


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=202,
    response_model=DeliveryView,
    responses=errors(ProblemCode.NOT_FOUND),
)
def replay(delivery_id: str, gateway: Services, caller: Admin) -> DeliveryView:
    """Make a callback again, as if for the first time, also to an address that had answered 410 before."""
    delivery = _known(gateway.store.replay(parse_id(delivery_id), caller.tenant_id))
    _send(gateway, delivery)
    return DeliveryView.from_domain(delivery)


@router.post("/test", status_code=202, response_model=DeliveryView, responses=errors(ProblemCode.INVALID))
def test(ping: Ping, gateway: Services, caller: Admin) -> DeliveryView:
    """Send a message that tells nothing, signed like any other, to see it arrive."""
    url = callback_of(gateway.settings, caller, ping.url)
    delivery = gateway.store.open_ping(caller.tenant_id, url)
    _send(gateway, delivery)
    return DeliveryView.from_domain(delivery)


@router.get("/secrets", response_model=SecretsView, responses=errors())
def show_secrets(gateway: Services, caller: Admin) -> SecretsView:
    """Read the secrets that callbacks are signed with; the first is made on the way."""
    found = gateway.store.signing_secrets(caller.tenant_id)
    return SecretsView(secrets=[SecretView.from_domain(each) for each in found])


@router.post("/secrets/rotate", response_model=SecretsView, responses=errors())
def rotate_secret(gateway: Services, caller: Admin) -> SecretsView:
    """Make a new secret. Until the old one expires, callbacks carry a signature of each."""
    found = gateway.store.rotate_secret(caller.tenant_id, gateway.settings.webhook_overlap_s)
    return SecretsView(secrets=[SecretView.from_domain(each) for each in found])


def _known(delivery: Delivery | None) -> Delivery:
    if delivery is None:
        raise ProblemError(ProblemCode.NOT_FOUND)
    return delivery


def _send(gateway: Gateway, delivery: Delivery) -> None:
    """Send the message in a thread that may hang; what is not sent, the sweeper sends."""

    def send() -> None:
        try:
            queue.send(gateway.settings, queue.Task.NOTIFY, delivery.id)
        except Unavailable as error:
            log.warning("callback not sent, left to the sweeper", reason=str(error))

    gateway.senders.submit(copy_context().run, send)
