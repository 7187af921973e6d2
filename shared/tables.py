"""The tables; `migrations/` creates them, `store` is the only module that reads and writes them."""

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()
SCHEMA = "0002"
"""The last migration; a process starts on no other schema."""
NOW = text("clock_timestamp()")
DEFAULT_TENANT = UUID(int=0)
"""Whose analyses are where no keys are in use."""

CHANGES = "clipwarden"
"""The channel on which Postgres names every analysis that a stage or the state of changed."""

installation = Table(
    "installation",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

pipelines = Table(
    "pipelines",
    metadata,
    Column("id", Text, primary_key=True),
    Column("manifest", JSONB, nullable=False),
    Column("published_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("callback_hosts", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("requests_per_minute", Integer),
    Column("concurrent", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("tag", Text),
    Column("items", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)
"""`items` has an entry for each item sent, in order: its analysis, or the code and sentence that refused it."""

analyses = Table(
    "analyses",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False, server_default=text(f"'{DEFAULT_TENANT}'")),
    Column("pipeline_id", Text, ForeignKey("pipelines.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("upload_key", Text),
    Column("probe", JSONB(none_as_null=True)),
    Column("code", Text),
    Column("message", Text),
    Column("tag", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("rerun_of", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("key_id", Uuid),
    Column("lane", Text, nullable=False, server_default=text("'realtime'")),
    Column("policy", Text),
    Column("detectors", ARRAY(Text)),
    Column("source_url", Text),
    Column("callback_url", Text),
    Column("batch_id", Uuid, ForeignKey("batches.id")),
    Column("leader_id", Uuid),
    Column("from_cache", Boolean, nullable=False, server_default=text("false")),
    Column("reusable", Boolean, nullable=False, server_default=text("true")),
    Column("deleted_at", DateTime(timezone=True)),
    Index("analyses_of_tenant", "tenant_id", "id"),
    Index("analyses_of_key", "key_id", postgresql_where=text("finished_at IS NULL")),
    Index("analyses_by_state", "tenant_id", "state", "id"),
    Index("analyses_by_tag", "tenant_id", "tag", "id", postgresql_where=text("tag IS NOT NULL")),
    Index("analyses_of_content", "tenant_id", "sha256"),
    Index("analyses_of_upload", "upload_key"),
    Index("analyses_of_batch", "batch_id"),
    Index("analyses_led", "leader_id", postgresql_where=text("leader_id IS NOT NULL")),
    Index("analyses_unfinished", "deadline_at", postgresql_where=text("finished_at IS NULL")),
    Index("analyses_finished", "finished_at"),
    Index("analyses_with_upload", "finished_at", postgresql_where=text("upload_key IS NOT NULL")),
)

"""`leader_id` names the analysis of the same content whose run this one waits for and takes over; `reusable` says
whether others may do so with this one. `policy` and `detectors` are null where the default was asked for.
"""

stages = Table(
    "stages",
    metadata,
    Column("analysis_id", Uuid, ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("sends", Integer, nullable=False, server_default=text("0")),
    Column("not_before", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("lease_token", Uuid),
    Column("leased_at", DateTime(timezone=True)),
    Column("lease_until", DateTime(timezone=True)),
    Column("worker", Text),
    Column("code", Text),
    Column("message", Text),
    Column("so_far", JSONB(none_as_null=True)),
    Column("outcome", JSONB(none_as_null=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Index("stages_finished", "stage", "finished_at"),
    Index("stages_with_evidence", "finished_at", postgresql_where=text("(outcome ->> 'folder') IS NOT NULL")),
    Index("stages_unsettled", "not_before", postgresql_where=text("status IN ('open', 'leased')")),
)

"""`so_far` is what a branch has found while it is leased, for those who watch; nothing is judged by it."""

verdicts = Table(
    "verdicts",
    metadata,
    Column("analysis_id", Uuid, ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
    Column("verdict", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("analysis_id", Uuid, ForeignKey("analyses.id", ondelete="CASCADE"), nullable=False),
    Column("label", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("comment", Text),
    Column("key_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Index("feedback_of_analysis", "analysis_id"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("sha256", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("finished_at", DateTime(timezone=True)),
    Index("uploads_of_blob", "blob_key"),
)
"""Files sent ahead of the analyses that will name them; `finished_at` is null until all bytes are there."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("resource_id", Uuid),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)
"""`resource_id` is null while the first request with the key still runs."""

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("secret", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("expires_at", DateTime(timezone=True)),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), nullable=False),
    Column("analysis_id", Uuid, ForeignKey("analyses.id", ondelete="CASCADE")),
    Column("event", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("status", Text, nullable=False, server_default=text("'open'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("not_before", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("lease_token", Uuid),
    Column("lease_until", DateTime(timezone=True)),
    Column("log", JSONB, nullable=False, server_default=text("'[]'")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("finished_at", DateTime(timezone=True)),
    Index("deliveries_unsettled", "not_before", postgresql_where=text("status IN ('open', 'leased')")),
    Index("deliveries_of_analysis", "analysis_id"),
    Index("deliveries_finished", "finished_at"),
)
"""`log` has an entry for each attempt: when, how long, and what the receiver answered."""

silenced = Table(
    "silenced",
    metadata,
    Column("tenant_id", Uuid, ForeignKey("tenants.id"), primary_key=True),
    Column("url", Text, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)
"""Callback addresses that answered 410 and are told nothing more."""
