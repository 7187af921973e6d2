"""Tenants and their keys; how an analysis was asked for; uploads, batches, deliveries, feedback; news of changes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOW = sa.text("clock_timestamp()")
TIME = sa.DateTime(timezone=True)
NO_TEXTS = sa.text("'{}'")
DEFAULT_TENANT = "00000000-0000-0000-0000-000000000000"

TELL = """
CREATE FUNCTION clipwarden_tell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed text := to_jsonb(NEW)->>TG_ARGV[0];
BEGIN
    PERFORM pg_notify('clipwarden', changed);
    PERFORM pg_notify('clipwarden', CAST(f.id AS text)) FROM analyses f
    WHERE f.leader_id = CAST(changed AS uuid) AND f.finished_at IS NULL;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    _tenants()
    _analyses()
    _uploads()
    _deliveries()
    op.execute(TELL)
    op.execute("""
        CREATE TRIGGER tell AFTER INSERT OR UPDATE OF status, so_far ON stages
        FOR EACH ROW EXECUTE FUNCTION clipwarden_tell('analysis_id')
    """)
    op.execute("""
        CREATE TRIGGER tell AFTER UPDATE OF state ON analyses
        FOR EACH ROW EXECUTE FUNCTION clipwarden_tell('id')
    """)


def _tenants() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    default = sa.text("INSERT INTO tenants (id, name) VALUES (CAST(:id AS uuid), 'default')")
    op.execute(default.bindparams(id=DEFAULT_TENANT))
    op.create_table(
        "keys",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        sa.Column("callback_hosts", ARRAY(sa.Text), nullable=False, server_default=NO_TEXTS),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("concurrent", sa.Integer),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
    )


def _analyses() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("tag", sa.Text),
        sa.Column("items", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.add_column(
        "analyses",
        sa.Column(
            "tenant_id",
            sa.Uuid,
            sa.ForeignKey("tenants.id"),
            nullable=False,
            server_default=sa.text(f"'{DEFAULT_TENANT}'"),
        ),
    )
    op.add_column("analyses", sa.Column("key_id", sa.Uuid))
    op.add_column("analyses", sa.Column("lane", sa.Text, nullable=False, server_default=sa.text("'realtime'")))
    op.add_column("analyses", sa.Column("policy", sa.Text))
    op.add_column("analyses", sa.Column("detectors", ARRAY(sa.Text)))
    op.add_column("analyses", sa.Column("source_url", sa.Text))
    op.add_column("analyses", sa.Column("callback_url", sa.Text))
    op.add_column("analyses", sa.Column("batch_id", sa.Uuid, sa.ForeignKey("batches.id")))
    op.add_column("analyses", sa.Column("leader_id", sa.Uuid))
    op.add_column("analyses", sa.Column("from_cache", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.add_column("analyses", sa.Column("reusable", sa.Boolean, nullable=False, server_default=sa.text("true")))
    op.add_column("analyses", sa.Column("deleted_at", TIME))
    op.create_index("analyses_of_tenant", "analyses", ["tenant_id", "id"])
    op.create_index("analyses_of_key", "analyses", ["key_id"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_index("analyses_by_state", "analyses", ["tenant_id", "state", "id"])
    op.create_index(
        "analyses_by_tag", "analyses", ["tenant_id", "tag", "id"], postgresql_where=sa.text("tag IS NOT NULL")
    )
    op.create_index("analyses_finished", "analyses", ["finished_at"])
    op.add_column("stages", sa.Column("so_far", JSONB))
    op.create_index("stages_finished", "stages", ["stage", "finished_at"])
    evidence = sa.text("(outcome ->> 'folder') IS NOT NULL")
    op.create_index("stages_with_evidence", "stages", ["finished_at"], postgresql_where=evidence)
    op.create_index("analyses_of_content", "analyses", ["tenant_id", "sha256"])
    op.create_index("analyses_of_upload", "analyses", ["upload_key"])
    op.create_index("analyses_of_batch", "analyses", ["batch_id"])
    op.create_index("analyses_led", "analyses", ["leader_id"], postgresql_where=sa.text("leader_id IS NOT NULL"))
    op.create_table(
        "feedback",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("analysis_id", sa.Uuid, sa.ForeignKey("analyses.id", ondelete="CASCADE"), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("comment", sa.Text),
        sa.Column("key_id", sa.Uuid),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("feedback_of_analysis", "feedback", ["analysis_id"])


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("sha256", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("finished_at", TIME),
    )
    op.create_index("uploads_of_blob", "uploads", ["blob_key"])
    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Uuid),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )


def _deliveries() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("expires_at", TIME),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("analysis_id", sa.Uuid, sa.ForeignKey("analyses.id", ondelete="CASCADE")),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'open'")),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("not_before", TIME, nullable=False, server_default=NOW),
        sa.Column("lease_token", sa.Uuid),
        sa.Column("lease_until", TIME),
        sa.Column("log", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("finished_at", TIME),
    )
    op.create_index(
        "deliveries_unsettled", "deliveries", ["not_before"], postgresql_where=sa.text("status IN ('open', 'leased')")
    )
    op.create_index("deliveries_of_analysis", "deliveries", ["analysis_id"])
    op.create_index("deliveries_finished", "deliveries", ["finished_at"])
    op.create_table(
        "silenced",
        sa.Column("tenant_id", sa.Uuid, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("url", sa.Text, primary_key=True),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
