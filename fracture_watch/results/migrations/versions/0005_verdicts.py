"""What readers say of results; indexes for the worklist's filters and for what needs somebody's attention."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import NUMBER, TEXT

revision = "0005"
down_revision = "0004"

_PROBLEM = "status IN ('failed', 'rejected', 'stalled') AND (status = 'stalled' OR filed_path IS NOT NULL)"
# What SQLite's planner is told about these indexes, as 0003 does for the others.
_STATISTICS = {
    ("file", "file_modality"): "900000 90000 2",
    ("file", "file_body_part"): "900000 20000 2",
    ("file", "file_problem"): "50000 20000 1 1",
    ("verdict", "ix_verdict_file_id"): "10000 1",
}


def upgrade() -> None:
    op.create_table(
        "verdict",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("at", TEXT, nullable=False),
        sa.Column("file_id", NUMBER, sa.ForeignKey("file.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("verdict", TEXT, nullable=False, comment="agree, disagree or unsure; the latest of a file counts"),
    )
    for name in ("modality", "body_part"):
        some = sa.text(f"{name} IS NOT NULL")
        op.create_index(f"file_{name}", "file", [name, "study_key"], sqlite_where=some, postgresql_where=some)
    columns, problem = ["status", "completed_at", "id"], sa.text(_PROBLEM)
    op.create_index("file_problem", "file", columns, sqlite_where=problem, postgresql_where=problem)
    if op.get_bind().dialect.name == "sqlite":
        rows = [{"tbl": table, "idx": index, "stat": stat} for (table, index), stat in _STATISTICS.items()]
        op.bulk_insert(sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat")), rows)
        op.execute("ANALYZE sqlite_schema")


def downgrade() -> None:
    for name in ("problem", "body_part", "modality"):
        op.drop_index(f"file_{name}", "file")
    op.drop_table("verdict")
