"""Verdicts that come from a file of labels say which."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import TEXT

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    comment = "the imported file of labels that said it; null: a reader"
    op.add_column("verdict", sa.Column("source", TEXT, comment=comment))


def downgrade() -> None:
    op.drop_column("verdict", "source")
