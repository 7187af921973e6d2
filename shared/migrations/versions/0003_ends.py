"""Find what ended by the time it did: what is counted, and what is past its age."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("analyses_finished", "analyses", ["finished_at"])
    op.create_index("deliveries_finished", "deliveries", ["finished_at"])


def downgrade() -> None:
    op.drop_index("deliveries_finished", "deliveries")
    op.drop_index("analyses_finished", "analyses")
