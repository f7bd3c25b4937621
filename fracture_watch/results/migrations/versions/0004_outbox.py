"""What is to be told to others, written in the transaction of the result that it is about."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import NUMBER, TEXT

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("delivery_id", TEXT, nullable=False, unique=True, comment="the same at every attempt"),
        sa.Column("kind", TEXT, nullable=False, comment="result or study"),
        sa.Column("destination", TEXT, nullable=False, comment="webhook:NAME"),
        sa.Column(
            "file_id",
            NUMBER,
            sa.ForeignKey("file.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
            comment="the result it is about, or the latest of the study; what is sent is built when it is sent",
        ),
        sa.Column(
            "study_uid",
            TEXT,
            sa.ForeignKey("study.study_uid", ondelete="CASCADE"),
            index=True,
            comment="the study it is about, as the view studies names it; null for a result",
        ),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", TEXT, comment="null: delivered or given up"),
        sa.Column("delivered_at", TEXT),
        sa.Column("last_error", TEXT),
    )
    # Delivered rows stay, so what is asked every second looks at the others only.
    waiting = sa.text("next_attempt_at IS NOT NULL")
    given_up = sa.text("next_attempt_at IS NULL AND delivered_at IS NULL")
    columns = ["destination", "next_attempt_at"]
    op.create_index("outbox_waiting", "outbox", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("outbox_given_up", "outbox", ["destination"], sqlite_where=given_up, postgresql_where=given_up)


def downgrade() -> None:
    op.drop_table("outbox")
