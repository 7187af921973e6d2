"""Files sent ahead of the analyses that name them: kept for a while, and as long as an analysis names them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Row

from clipwarden.shared.errors import BlobGone
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.idempotency import KeyClaim, settle_claim


@dataclass(frozen=True, slots=True)
class NewUpload:
    """A file in the blob store; one that is not `whole` is still to be put there under its key."""

    tenant_id: UUID
    filename: str
    blob_key: str
    size_bytes: int
    sha256: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class KeptUpload:
    """A file that analyses may name until it expires."""

    id: UUID
    tenant_id: UUID
    filename: str
    blob_key: str
    size_bytes: int
    sha256: str
    expires_at: datetime
    whole: bool


class Uploads(Database):
    """Keeps files sent ahead, and finds them again."""

    def keep_upload(
        self, new: NewUpload, kept_s: float, claim: KeyClaim | None = None, fingerprint: str = ""
    ) -> KeptUpload:
        """Note a file. `claim` is the hold on the request's key; raises ProblemError if it was lost."""
        with self._transaction() as c:
            row = c.execute(
                text("""
                    INSERT INTO uploads (id, tenant_id, filename, blob_key, size_bytes, sha256, finished_at)
                    VALUES (:id, :tenant_id, :filename, :blob_key, :size_bytes, :sha256,
                        CASE WHEN :whole THEN clock_timestamp() END)
                    RETURNING *, created_at + make_interval(secs => :kept_s) AS expires_at
                """),
                {
                    "id": new_id(),
                    "tenant_id": new.tenant_id,
                    "filename": new.filename,
                    "blob_key": new.blob_key,
                    "size_bytes": new.size_bytes,
                    "sha256": new.sha256,
                    "whole": new.whole,
                    "kept_s": kept_s,
                },
            ).one()
            if claim is not None:
                settle_claim(c, claim, fingerprint, row.id)
        return _upload(row)

    def kept_uploads(self, ids: Collection[UUID], tenant_id: UUID, kept_s: float) -> dict[UUID, KeptUpload]:
        """Those of the ids that are the tenant's and have not expired."""
        with self._transaction() as c:
            rows = c.execute(
                text("""
                    SELECT *, created_at + make_interval(secs => :kept_s) AS expires_at FROM uploads
                    WHERE id = ANY(:ids) AND tenant_id = :tenant
                      AND created_at > clock_timestamp() - make_interval(secs => :kept_s)
                """),
                {"ids": list(ids), "tenant": tenant_id, "kept_s": kept_s},
            ).all()
        return {row.id: _upload(row) for row in rows}

    def bytes_ahead(self, tenant_id: UUID, kept_s: float) -> int:
        """The size of a tenant's files that have not expired and that no analysis names."""
        with self._transaction() as c:
            found = c.scalar(
                text("""
                    SELECT sum(u.size_bytes) FROM uploads u
                    WHERE u.tenant_id = :tenant AND u.created_at > clock_timestamp() - make_interval(secs => :kept_s)
                      AND NOT EXISTS (SELECT 1 FROM analyses a WHERE a.upload_key = u.blob_key)
                """),
                {"tenant": tenant_id, "kept_s": kept_s},
            )
        return int(found or 0)

    def finish_upload(self, upload_id: UUID, blob_key: str) -> bool:
        """Note that all bytes are there, under this key. False if that was noted before, or the upload is gone."""
        with self._transaction() as c:
            found = c.execute(
                text("""
                    UPDATE uploads SET finished_at = clock_timestamp(), blob_key = :key
                    WHERE id = :id AND finished_at IS NULL
                """),
                {"id": upload_id, "key": blob_key},
            )
        return found.rowcount == 1

    def drop_expired_uploads(self, kept_s: float, limit: int = 500) -> Sequence[str]:
        """Forget files that were sent ahead and have expired; returns the blobs of those that no analysis names.

        An analysis that names one holds its row while it is opened, so that it comes either before this or too late.
        """
        with self._transaction() as c:
            dropped = c.scalars(
                text("""
                    DELETE FROM uploads WHERE id IN (
                        SELECT id FROM uploads WHERE created_at < clock_timestamp() - make_interval(secs => :kept_s)
                        ORDER BY id LIMIT :limit)
                    RETURNING blob_key
                """),
                {"kept_s": kept_s, "limit": limit},
            ).all()
        with self._transaction() as c:
            named = c.scalars(
                text("SELECT upload_key FROM analyses WHERE upload_key = ANY(:keys)"), {"keys": list(dropped)}
            ).all()
        return sorted(set(dropped) - set(named))


def hold_uploads(c: Connection, ids: Collection[UUID]) -> None:
    """Keep these rows until the transaction ends. Raises BlobGone if one was dropped since it was read."""
    held = c.execute(
        text("SELECT id FROM uploads WHERE id = ANY(:ids) ORDER BY id FOR SHARE"), {"ids": list(ids)}
    ).all()
    if len(held) < len(set(ids)):
        raise BlobGone("a file that was sent ahead has just expired")


def _upload(row: Row[tuple[object, ...]]) -> KeptUpload:
    return KeptUpload(
        id=row.id,
        tenant_id=row.tenant_id,
        filename=row.filename,
        blob_key=row.blob_key,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        expires_at=row.expires_at,
        whole=row.finished_at is not None,
    )
