"""The gateway's side of the store: the installation, its pipelines, new analyses, and reading them back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from clipwarden.shared.contracts import Analysis, Manifest, Stage
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.idempotency import KeyClaim, settle_claim
from clipwarden.shared.store.reuse import lock_contents, share
from clipwarden.shared.store.rows import ANALYSIS, AWAITING, NewAnalysis, as_json, open_stages, to_analysis
from clipwarden.shared.store.uploads import hold_uploads
from clipwarden.shared.tables import SCHEMA


@dataclass(frozen=True, slots=True)
class Opened:
    """An analysis that was just opened. `alone`: no other is known of its content, and its first stage is open."""

    id: UUID
    pipeline: str
    created_at: datetime
    alone: bool


class Intake(Database):
    """Takes analyses in and shows them."""

    def check_schema(self) -> None:
        """Raises ConfigError unless the schema is this version's.

        For starts: what runs goes on while another version upgrades the schema under it.
        """
        with self._transaction() as c:
            check_revision(_text(c, "SELECT version_num FROM alembic_version"))

    def store_id(self) -> str | None:
        """The id of the blob store that belongs to this database, None before set-up."""
        with self._transaction() as c:
            return _text(c, "SELECT value FROM installation WHERE key = 'store_id'")

    def set_store_id(self, store_id: str) -> None:
        with self._transaction() as c:
            c.execute(
                text("""
                    INSERT INTO installation (key, value)
                    VALUES ('store_id', :id)
                    ON CONFLICT (key) DO UPDATE
                    SET value = excluded.value
                """),
                {"id": store_id},
            )

    def publish(self, pipeline_id: str, manifest: Manifest) -> None:
        """Make this the pipeline of new analyses. Publishing one again moves it back to the front."""
        with self._transaction() as c:
            c.execute(
                text("""
                    INSERT INTO pipelines (id, manifest)
                    VALUES (:id, CAST(:manifest AS jsonb))
                    ON CONFLICT (id) DO UPDATE
                    SET published_at = clock_timestamp()
                """),
                {"id": pipeline_id, "manifest": manifest.model_dump_json()},
            )

    def current_pipeline(self) -> str | None:
        with self._transaction() as c:
            return _text(c, "SELECT id FROM pipelines ORDER BY published_at DESC LIMIT 1")

    def manifest(self, pipeline_id: str) -> Manifest | None:
        with self._transaction() as c:
            found = c.scalar(text("SELECT manifest FROM pipelines WHERE id = :id"), {"id": pipeline_id})
        return None if found is None else Manifest.model_validate(found)

    def submit(
        self, new: NewAnalysis, upload_id: UUID | None = None, claim: KeyClaim | None = None, fingerprint: str = ""
    ) -> Opened:
        """Open an analysis, and its first stage unless its content was or is being examined already.

        The open row is also the outbox of the message to send, and counts as sent: see `mark_unsent`. Of the same bytes
        one file is kept: if the analysis does not name the one that it came with, whoever kept that deletes it.
        `upload_id` is the file that was sent ahead, if it was, `claim` the hold on the request's key. Raises BlobGone
        if the file has just expired, ProblemError if the hold was lost.
        """
        with self._transaction() as c:
            lock_contents(c, [(new.tenant_id, new.sha256)])
            if upload_id is not None:
                hold_uploads(c, [upload_id])
            opened = open_analysis(c, new)
            if claim is not None:
                settle_claim(c, claim, fingerprint, opened.id)
        return opened

    def mark_sent(self, analysis_id: UUID, stages: Sequence[Stage], resend_after_s: float) -> None:
        """Note that the messages of these stages are on their way; the sweeper doubles its patience each time."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages
                    SET sends = sends + 1, not_before = clock_timestamp() + make_interval(secs => :after
                        * 2 ^ least(sends, 4))
                    WHERE analysis_id = :id AND stage = ANY(:stages) AND status = 'open'
                """),
                {"id": analysis_id, "stages": [s.value for s in stages], "after": resend_after_s},
            )

    def mark_unsent(self, analysis_id: UUID) -> None:
        """Have the sweeper send at once what an analysis was opened with, for whoever opened it could not."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages SET sends = 0, not_before = clock_timestamp()
                    WHERE analysis_id = :id AND stage IN ('fetch', 'ingest') AND status = 'open'
                """),
                {"id": analysis_id},
            )

    def analysis(self, analysis_id: UUID, tenant_id: UUID | None = None) -> Analysis | None:
        """The whole analysis, None if the id is unknown, or not this tenant's."""
        with self._transaction() as c:
            asked = {"id": analysis_id, "tenant": tenant_id}
            row = c.execute(ANALYSIS, asked).one_or_none()
            if row is not None and row.leader_id is not None and row.finished_at is None:
                row = c.execute(AWAITING, asked).one_or_none()
        return None if row is None else to_analysis(row)


def open_analysis(c: Connection, new: NewAnalysis) -> Opened:
    """Open an analysis whose content is locked; see `Intake.submit`."""
    first = Stage.FETCH if new.upload_key is None else Stage.INGEST
    opened = c.execute(
        text("""
            WITH others AS (
                SELECT :sha256 <> '' AND EXISTS (
                    SELECT 1 FROM analyses WHERE tenant_id = :tenant_id AND sha256 = :sha256
                ) AS known
            ), opened AS (
                INSERT INTO analyses (id, tenant_id, key_id, pipeline_id, state, filename, size_bytes, sha256,
                    upload_key, tag, metadata, lane, policy, detectors, source_url, callback_url, batch_id,
                    rerun_of, reusable, deadline_at)
                VALUES (:id, :tenant_id, :key_id,
                    coalesce(:pipeline, (SELECT id FROM pipelines ORDER BY published_at DESC LIMIT 1)),
                    'queued', :filename, :size_bytes, :sha256,
                    :upload_key, :tag, CAST(:metadata AS jsonb), :lane, :policy, :detectors, :source_url,
                    :callback_url, :batch_id, :rerun_of, :reusable,
                    clock_timestamp() + make_interval(secs => :deadline_s))
                RETURNING id, pipeline_id, created_at
            ), staged AS (
                INSERT INTO stages (analysis_id, stage, status, sends, not_before)
                SELECT id, :first, 'open', 1, clock_timestamp() + make_interval(secs => :resend_after_s)
                FROM opened, others WHERE NOT known
            )
            SELECT id, pipeline_id, created_at, NOT known AS alone FROM opened, others
        """),
        {
            **{field.name: getattr(new, field.name) for field in fields(new)},
            "id": new_id(),
            "first": first.value,
            "metadata": as_json(dict(new.metadata)),
            "lane": new.lane.value,
            "detectors": None if new.detectors is None else list(new.detectors),
        },
    ).one()
    if not opened.alone and not share(c, opened.id):
        open_stages(c, opened.id, [first], new.resend_after_s, sends=1)
    return Opened(opened.id, opened.pipeline_id, opened.created_at, opened.alone)


def check_revision(found: str | None) -> None:
    """Raises ConfigError unless this is the schema of the code."""
    if found is not None and found > SCHEMA:
        raise ConfigError(
            f"the database schema is {found}, newer than this version's {SCHEMA}: run the Clipwarden that made it"
        )
    if found != SCHEMA:
        raise ConfigError(f"the database schema is {found}, older than {SCHEMA}: run `clipwarden db upgrade`")


def _text(c: Connection, statement: str) -> str | None:
    found = c.scalar(text(statement))
    return None if found is None else str(found)
