"""Idempotency keys: the first request with one holds it, and what it opened answers those that repeat it."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A request's hold on a key; or, if `resource_id` is not None, what an earlier one with it opened."""

    tenant_id: UUID
    key: str
    fingerprint: str
    """Of the earlier request; while the first one runs, a token that only it knows."""
    resource_id: UUID | None = None


class Idempotency(Database):
    """Holds keys. A hold that is not renewed for `abandoned_s` is another's to take."""

    def claim_key(self, tenant_id: UUID, key: str, kept_s: float, abandoned_s: float) -> KeyClaim | None:
        """Take hold of a key, or learn what it opened within the last `kept_s`; None if another request holds it."""
        asked = {"tenant": tenant_id, "key": key}
        token = new_id().hex
        with self._transaction() as c:
            mine = c.scalar(
                text("""
                    INSERT INTO idempotency AS i (tenant_id, key, fingerprint) VALUES (:tenant, :key, :token)
                    ON CONFLICT (tenant_id, key) DO UPDATE
                    SET fingerprint = excluded.fingerprint, resource_id = NULL, created_at = clock_timestamp()
                    WHERE i.created_at < clock_timestamp() - make_interval(
                        secs => CASE WHEN i.resource_id IS NULL THEN :abandoned ELSE :kept END)
                    RETURNING fingerprint
                """),
                {**asked, "token": token, "kept": kept_s, "abandoned": abandoned_s},
            )
            if mine is not None:
                return KeyClaim(tenant_id, key, token)
            row = c.execute(
                text("""
                    SELECT fingerprint, resource_id FROM idempotency
                    WHERE tenant_id = :tenant AND key = :key AND resource_id IS NOT NULL
                """),
                asked,
            ).one_or_none()
        return None if row is None else KeyClaim(tenant_id, key, row.fingerprint, row.resource_id)

    def renew_claim(self, claim: KeyClaim) -> None:
        """Say that the request still runs."""
        with self._transaction() as c:
            c.execute(
                text(f"UPDATE idempotency SET created_at = clock_timestamp() WHERE {HELD}"),  # noqa: S608 - a constant
                _held(claim),
            )

    def drop_claim(self, claim: KeyClaim) -> None:
        """Give the key back if nothing was opened with it."""
        with self._transaction() as c:
            c.execute(text(f"DELETE FROM idempotency WHERE {HELD}"), _held(claim))  # noqa: S608 - a constant

    def drop_expired_keys(self, kept_s: float) -> None:
        with self._transaction() as c:
            c.execute(
                text("DELETE FROM idempotency WHERE created_at < clock_timestamp() - make_interval(secs => :kept)"),
                {"kept": kept_s},
            )


HELD = "tenant_id = :tenant AND key = :key AND fingerprint = :token AND resource_id IS NULL"


def settle_claim(c: Connection, claim: KeyClaim, fingerprint: str, resource_id: UUID) -> None:
    """Note what was opened, in the transaction that opens it. Raises ProblemError if the hold was lost."""
    settled = c.execute(
        text(f"""
            UPDATE idempotency SET fingerprint = :fingerprint, resource_id = :resource, created_at = clock_timestamp()
            WHERE {HELD}
        """),  # noqa: S608 - a constant
        {**_held(claim), "fingerprint": fingerprint, "resource": resource_id},
    )
    if settled.rowcount != 1:
        raise ProblemError(ProblemCode.IDEMPOTENCY_IN_PROGRESS, retry_after_s=1)


def _held(claim: KeyClaim) -> dict[str, object]:
    return {"tenant": claim.tenant_id, "key": claim.key, "token": claim.fingerprint}
