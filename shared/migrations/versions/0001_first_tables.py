"""Installation, pipelines, analyses, leased stages and verdicts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "installation", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
    )
    op.create_table(
        "pipelines",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("manifest", JSONB, nullable=False),
        sa.Column("published_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "analyses",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("pipeline_id", sa.Text, sa.ForeignKey("pipelines.id"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("upload_key", sa.Text),
        sa.Column("probe", JSONB),
        sa.Column("code", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("tag", sa.Text),
        sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("rerun_of", sa.Uuid),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("deadline_at", TIME, nullable=False),
    )
    op.create_index("analyses_unfinished", "analyses", ["deadline_at"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_index(
        "analyses_with_upload", "analyses", ["finished_at"], postgresql_where=sa.text("upload_key IS NOT NULL")
    )
    op.create_table(
        "stages",
        sa.Column("analysis_id", sa.Uuid, sa.ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("sends", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("not_before", TIME, nullable=False, server_default=NOW),
        sa.Column("lease_token", sa.Uuid),
        sa.Column("leased_at", TIME),
        sa.Column("lease_until", TIME),
        sa.Column("worker", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("outcome", JSONB),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
    )
    op.create_index(
        "stages_unsettled", "stages", ["not_before"], postgresql_where=sa.text("status IN ('open', 'leased')")
    )
    op.create_table(
        "verdicts",
        sa.Column("analysis_id", sa.Uuid, sa.ForeignKey("analyses.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("verdict", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
