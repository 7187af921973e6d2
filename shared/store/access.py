"""Tenants and the keys by which they are known, and how many analyses are under way."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Row

from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text

KEY = """
    SELECT * FROM (
        SELECT k.*, t.name AS tenant,
               k.revoked_at IS NULL AND coalesce(k.expires_at > clock_timestamp(), true) AS live
        FROM keys k JOIN tenants t ON t.id = k.tenant_id
    ) AS known
"""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made. `expires_in_s` counts from now; None in a limit is no limit."""

    tenant: str
    name: str
    digest: str
    scopes: Sequence[str]
    callback_hosts: Sequence[str] = ()
    requests_per_minute: int | None = None
    concurrent: int | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. `live` says whether it was neither revoked nor past its time when it was read."""

    id: UUID
    tenant_id: UUID
    tenant: str
    name: str
    scopes: tuple[str, ...]
    callback_hosts: tuple[str, ...]
    requests_per_minute: int | None
    concurrent: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    live: bool


class Access(Database):
    """Makes, lists and recognises keys; the secrets themselves are never here, only their digests."""

    def any_key(self) -> bool:
        """Whether a key was ever made: revoking the last one does not open the gateway again."""
        with self._transaction() as c:
            return bool(c.scalar(text("SELECT EXISTS (SELECT 1 FROM keys)")))

    def create_key(self, new: NewKey) -> Key:
        """Keep a key, and its tenant if this is the first of it."""
        key_id = new_id()
        with self._transaction() as c:
            c.execute(
                text("""
                    INSERT INTO keys (id, tenant_id, name, digest, scopes, callback_hosts, requests_per_minute,
                        concurrent, expires_at)
                    VALUES (:id, :tenant_id, :name, :digest, :scopes, :callback_hosts, :requests_per_minute,
                        :concurrent, clock_timestamp() + make_interval(secs => CAST(:expires_in_s AS float8)))
                """),
                {
                    "id": key_id,
                    "tenant_id": _tenant(c, new.tenant),
                    "name": new.name,
                    "digest": new.digest,
                    "scopes": list(new.scopes),
                    "callback_hosts": list(new.callback_hosts),
                    "requests_per_minute": new.requests_per_minute,
                    "concurrent": new.concurrent,
                    "expires_in_s": new.expires_in_s,
                },
            )
            return _key(c.execute(text(f"{KEY} WHERE id = :id"), {"id": key_id}).one())

    def live_key(self, digest: str) -> Key | None:
        """The key whose secret has this digest, unless it is unknown, revoked or expired."""
        with self._transaction() as c:
            row = c.execute(text(f"{KEY} WHERE digest = :digest AND live"), {"digest": digest}).one_or_none()
        return None if row is None else _key(row)

    def keys(self, tenant: str | None = None) -> list[Key]:
        """All keys, or a tenant's, oldest first; revoked and expired ones too."""
        with self._transaction() as c:
            rows = c.execute(
                text(f"{KEY} WHERE tenant = coalesce(CAST(:tenant AS text), tenant) ORDER BY id"), {"tenant": tenant}
            ).all()
        return [_key(row) for row in rows]

    def revoke_key(self, key_id: UUID) -> bool:
        """End a key for good; revoked again it keeps its first time. False if there is no such key."""
        with self._transaction() as c:
            found = c.execute(
                text("UPDATE keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id"),
                {"id": key_id},
            )
            return found.rowcount == 1

    def unfinished_count(self, key_id: UUID | None = None) -> int:
        """How many analyses have not ended, of all or of those that came with a key."""
        with self._transaction() as c:
            if key_id is None:
                found = c.scalar(text("SELECT count(*) FROM analyses WHERE finished_at IS NULL"))
            else:
                found = c.scalar(
                    text("SELECT count(*) FROM analyses WHERE finished_at IS NULL AND key_id = :key"), {"key": key_id}
                )
            return int(found or 0)


def _tenant(c: Connection, name: str) -> UUID:
    """The tenant's id; made on first use."""
    c.execute(
        text("INSERT INTO tenants (id, name) VALUES (:id, :name) ON CONFLICT (name) DO NOTHING"),
        {"id": new_id(), "name": name},
    )
    found: UUID = c.scalars(text("SELECT id FROM tenants WHERE name = :name"), {"name": name}).one()
    return found


def _key(row: Row[tuple[object, ...]]) -> Key:
    return Key(
        id=row.id,
        tenant_id=row.tenant_id,
        tenant=row.tenant,
        name=row.name,
        scopes=tuple(row.scopes),
        callback_hosts=tuple(row.callback_hosts),
        requests_per_minute=row.requests_per_minute,
        concurrent=row.concurrent,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        live=row.live,
    )
