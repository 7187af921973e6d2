"""Callbacks in the store: the rows that are owed, leased and logged like stages, and the secrets that sign them."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row

from clipwarden.shared.contracts import StageStatus
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.rows import as_json

SECRET_BYTES: Final = 32
LOGGED: Final = 20
"""Attempts that a delivery's log holds; the oldest are dropped."""


class Event(StrEnum):
    """What callbacks tell."""

    DONE = "analysis.done"
    REJECTED = "analysis.rejected"
    FAILED = "analysis.failed"
    CANCELLED = "analysis.cancelled"
    PING = "webhook.ping"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt: the receiver's status, or in words why there is none."""

    at: str
    elapsed_ms: int
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something to be told to an address. Skipped: the address had said before that it wants to hear nothing."""

    id: UUID
    tenant_id: UUID
    analysis_id: UUID | None
    event: Event
    url: str
    status: StageStatus
    attempts: int
    not_before: datetime
    created_at: datetime
    finished_at: datetime | None
    log: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Secret:
    """What a tenant's callbacks are signed with; until it expires, if another took its place."""

    id: UUID
    secret: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class WantedDeliveries:
    """Which deliveries of a tenant to list; what is None does not matter."""

    tenant_id: UUID
    limit: int
    before: UUID | None = None
    status: StageStatus | None = None
    event: Event | None = None
    analysis_id: UUID | None = None


class Deliveries(Database):
    """Callbacks that are owed, under way, or done with."""

    def owed(self, analysis_id: UUID) -> Sequence[UUID]:
        """Deliveries that could be made now, of this analysis and of those that ended with it."""
        with self._transaction() as c:
            return c.scalars(
                text("""
                    SELECT id FROM deliveries
                    WHERE analysis_id IN (SELECT id FROM analyses WHERE id = :id OR leader_id = :id)
                      AND status = 'open' AND not_before <= clock_timestamp()
                """),
                {"id": analysis_id},
            ).all()

    def due_deliveries(self, limit: int = 500) -> Sequence[UUID]:
        """Deliveries whose time has come, and those whose worker was lost, the longest waiting first."""
        with self._transaction() as c:
            return c.scalars(
                text("""
                    SELECT id FROM deliveries
                    WHERE (status = 'open' AND not_before <= clock_timestamp())
                       OR (status = 'leased' AND lease_until < clock_timestamp())
                    ORDER BY not_before LIMIT :limit
                """),
                {"limit": limit},
            ).all()

    def claim_delivery(self, delivery_id: UUID, lease_s: float) -> tuple[Delivery, UUID, datetime] | None:
        """The delivery, its lease's token, and the time; None if it is not due, done with, or another worker's."""
        token = uuid4()
        with self._transaction() as c:
            row = c.execute(
                text("""
                    UPDATE deliveries SET status = 'leased', attempts = attempts + 1, lease_token = :token,
                        lease_until = clock_timestamp() + make_interval(secs => :lease)
                    WHERE id = :id AND ((status = 'open' AND not_before <= clock_timestamp())
                                        OR (status = 'leased' AND lease_until < clock_timestamp()))
                    RETURNING *, clock_timestamp() AS claimed_at
                """),
                {"id": delivery_id, "token": token, "lease": lease_s},
            ).one_or_none()
        return None if row is None else (_delivery(row), token, row.claimed_at)

    def settle_delivery(
        self, delivery_id: UUID, token: UUID, status: StageStatus, attempt: Attempt, again_after_s: float = 0
    ) -> bool:
        """Note an attempt; `open` makes the delivery due again later. False if the lease was lost."""
        with self._transaction() as c:
            return (
                c.execute(
                    text(f"""
                        UPDATE deliveries SET status = :status, lease_token = NULL, lease_until = NULL,
                            not_before = clock_timestamp() + make_interval(secs => :after),
                            finished_at = CASE WHEN :status = 'open' THEN NULL ELSE clock_timestamp() END,
                            log = CASE WHEN jsonb_array_length(log) < {LOGGED} THEN log ELSE log - 0 END
                                || CAST(:attempt AS jsonb)
                        WHERE id = :id AND lease_token = :token AND status = 'leased'
                    """),  # noqa: S608 - a number of ours
                    {
                        "id": delivery_id,
                        "token": token,
                        "status": status.value,
                        "after": again_after_s,
                        "attempt": as_json([{f.name: getattr(attempt, f.name) for f in fields(attempt)}]),
                    },
                ).rowcount
                == 1
            )

    def silence(self, tenant_id: UUID, url: str) -> None:
        """Owe this address nothing more: what is still open is skipped, what comes is skipped when it comes."""
        with self._transaction() as c:
            given = {"tenant": tenant_id, "url": url}
            c.execute(
                text("INSERT INTO silenced (tenant_id, url) VALUES (:tenant, :url) ON CONFLICT DO NOTHING"), given
            )
            c.execute(
                text("""
                    UPDATE deliveries SET status = 'skipped', finished_at = clock_timestamp()
                    WHERE tenant_id = :tenant AND url = :url AND status = 'open'
                """),
                given,
            )

    def replay(self, delivery_id: UUID, tenant_id: UUID) -> Delivery | None:
        """Make a delivery due again from its first attempt, and its address one that is told; None for an unknown id.

        One that a worker is just making is left to it.
        """
        with self._transaction() as c:
            row = c.execute(
                text("""
                    UPDATE deliveries SET
                        status = CASE WHEN status = 'leased' THEN status ELSE 'open' END,
                        attempts = CASE WHEN status = 'leased' THEN attempts ELSE 0 END,
                        finished_at = NULL, not_before = clock_timestamp()
                    WHERE id = :id AND tenant_id = :tenant
                    RETURNING *
                """),
                {"id": delivery_id, "tenant": tenant_id},
            ).one_or_none()
            if row is None:
                return None
            c.execute(
                text("DELETE FROM silenced WHERE tenant_id = :tenant AND url = :url"),
                {"tenant": tenant_id, "url": row.url},
            )
        return _delivery(row)

    def open_ping(self, tenant_id: UUID, url: str) -> Delivery:
        """Owe this address a message that tells nothing."""
        with self._transaction() as c:
            row = c.execute(
                text("""
                    INSERT INTO deliveries (id, tenant_id, event, url) VALUES (:id, :tenant, :event, :url)
                    RETURNING *
                """),
                {"id": new_id(), "tenant": tenant_id, "event": Event.PING, "url": url},
            ).one()
        return _delivery(row)

    def delivery(self, delivery_id: UUID, tenant_id: UUID) -> Delivery | None:
        with self._transaction() as c:
            row = c.execute(
                text("SELECT * FROM deliveries WHERE id = :id AND tenant_id = :tenant"),
                {"id": delivery_id, "tenant": tenant_id},
            ).one_or_none()
        return None if row is None else _delivery(row)

    def listed_deliveries(self, wanted: WantedDeliveries) -> list[Delivery]:
        """At most `limit` deliveries that are older than `before`, newest first."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT * FROM deliveries
                    WHERE tenant_id = :tenant_id
                      AND (CAST(:before AS uuid) IS NULL OR id < :before)
                      AND (CAST(:status AS text) IS NULL OR status = :status)
                      AND (CAST(:event AS text) IS NULL OR event = :event)
                      AND (CAST(:analysis_id AS uuid) IS NULL OR analysis_id = :analysis_id)
                    ORDER BY id DESC LIMIT :limit
                """),
                {field.name: getattr(wanted, field.name) for field in fields(wanted)},
            ).all()
        return [_delivery(row) for row in rows]

    def tenant_named(self, name: str) -> UUID | None:
        with self._transaction() as c:
            found: UUID | None = c.scalar(text("SELECT id FROM tenants WHERE name = :name"), {"name": name})
        return found

    def signing_secrets(self, tenant_id: UUID) -> list[Secret]:
        """The secrets in force, newest first; the first is made when it is first asked for."""
        with self._transaction() as c:
            if found := _in_force(c, tenant_id):
                return found
            c.execute(text("SELECT 1 FROM tenants WHERE id = :tenant FOR NO KEY UPDATE"), {"tenant": tenant_id})
            return _in_force(c, tenant_id) or _with_new(c, tenant_id)  # of several who find none, one makes it

    def rotate_secret(self, tenant_id: UUID, overlap_s: float) -> list[Secret]:
        """Make a new secret; the others stay in force for the overlap at most. Returns those in force, newest first."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE webhook_secrets
                    SET expires_at = least(expires_at, clock_timestamp() + make_interval(secs => :overlap))
                    WHERE tenant_id = :tenant
                """),
                {"tenant": tenant_id, "overlap": overlap_s},
            )
            return _with_new(c, tenant_id)


def _in_force(c: Connection, tenant_id: UUID) -> list[Secret]:
    rows = c.execute(
        text("""
            SELECT id, secret, created_at, expires_at FROM webhook_secrets
            WHERE tenant_id = :tenant AND (expires_at IS NULL OR expires_at > clock_timestamp())
            ORDER BY id DESC
        """),
        {"tenant": tenant_id},
    ).all()
    return [Secret(row.id, row.secret, row.created_at, row.expires_at) for row in rows]


def _with_new(c: Connection, tenant_id: UUID) -> list[Secret]:
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")
    c.execute(
        text("INSERT INTO webhook_secrets (id, tenant_id, secret) VALUES (:id, :tenant, :secret)"),
        {"id": new_id(), "tenant": tenant_id, "secret": secret},
    )
    return _in_force(c, tenant_id)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        tenant_id=row.tenant_id,
        analysis_id=row.analysis_id,
        event=Event(row.event),
        url=row.url,
        status=StageStatus(row.status),
        attempts=row.attempts,
        not_before=row.not_before,
        created_at=row.created_at,
        finished_at=row.finished_at,
        log=tuple(Attempt(**entry) for entry in row.log),
    )
