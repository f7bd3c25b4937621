"""Verdicts that come from a file of labels say which."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    comment = "the imported file of labels that said it; null: a reader"
    op.add_column("verdict", sa.Column("source", sa.Text, comment=comment))


def downgrade() -> None:
    op.drop_column("verdict", "source")
