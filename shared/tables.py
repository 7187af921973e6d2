"""The tables; `migrations/` creates them, `store` is the only module that reads and writes them."""

from sqlalchemy import (
    BigInteger,
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
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()
NOW = text("clock_timestamp()")

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

analyses = Table(
    "analyses",
    metadata,
    Column("id", Uuid, primary_key=True),
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
    Index("analyses_unfinished", "deadline_at", postgresql_where=text("finished_at IS NULL")),
    Index("analyses_with_upload", "finished_at", postgresql_where=text("upload_key IS NOT NULL")),
)

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
    Column("outcome", JSONB(none_as_null=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Index("stages_unsettled", "not_before", postgresql_where=text("status IN ('open', 'leased')")),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("analysis_id", Uuid, ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
    Column("verdict", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW),
)
