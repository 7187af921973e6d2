"""Find the evidence that is past its age."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "stages_with_evidence",
        "stages",
        ["finished_at"],
        postgresql_where=sa.text("(outcome ->> 'folder') IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("stages_with_evidence", "stages")
