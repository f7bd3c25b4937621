"""What happens to a file beside its result: stalled, tried again, put back."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import NUMBER, TEXT

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "event",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("file_id", NUMBER, sa.ForeignKey("file.id", ondelete="CASCADE"), index=True),
        sa.Column("source_path", TEXT, nullable=False),
        sa.Column("what", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
    )
    op.create_index("ix_event_source_path", "event", ["source_path"], postgresql_using="hash")
    # Where a file ended up is what people ask for, and what retention looks for.
    op.create_index("file_filed", "file", ["filed_path"], postgresql_using="hash")
    op.create_index("file_study_uid", "file", ["study_uid"])
    op.create_index("file_series_uid", "file", ["series_uid"])
    op.create_index("file_accession_number", "file", ["accession_number"])
    op.create_index("file_duplicate_of", "file", ["duplicate_of"])
    op.create_index("file_completed_at", "file", ["completed_at"])


def downgrade() -> None:
    for name in ("completed_at", "duplicate_of", "accession_number", "series_uid", "study_uid", "filed"):
        op.drop_index(f"file_{name}", "file")
    op.drop_table("event")
