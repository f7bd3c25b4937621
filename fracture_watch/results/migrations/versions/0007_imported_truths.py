"""Verdicts that come from a file of labels say which; the outbox holds DICOM objects, too."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import TEXT

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    comment = "the imported file of labels that said it; null: a reader"
    op.add_column("verdict", sa.Column("source", TEXT, comment=comment))
    _describe_outbox("result, study, sr or sc", "webhook:NAME or dicom:NAME")


def downgrade() -> None:
    op.drop_column("verdict", "source")
    _describe_outbox("result or study", "webhook:NAME")


def _describe_outbox(kind: str, destination: str) -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no comments
        op.alter_column("outbox", "kind", comment=kind, existing_type=TEXT, existing_nullable=False)
        op.alter_column("outbox", "destination", comment=destination, existing_type=TEXT, existing_nullable=False)
