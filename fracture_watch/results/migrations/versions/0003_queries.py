"""Indexes for the documented filters, newest first; the worklist's order; which maker's device a picture is of."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import TEXT

revision = "0003"
down_revision = "0002"

_RESULTS = """
CREATE VIEW results AS
SELECT file.id, file.received_at, file.completed_at, file.source_path, file.filed_path, file.status, file.code,
       file.detail, file.notes, file.sha256, file.duplicate_of, file.patient_id, file.study_uid, file.series_uid,
       file.sop_instance_uid, file.accession_number, file.modality, file.body_part, file.laterality,
       file.view_position, file.study_date, file.rows, file.columns, file.frame, file.prediction, file.probability,
       file.threshold, model.name AS model_name, model.version AS model_version, file.model_id, file.heatmap_path,
       file.manufacturer
FROM file LEFT JOIN model ON model.id = file.model_id
"""
# What SQLite's planner is told about the indexes: rows, then rows for one value of the first column, of the first two,
# and so on. Without it all indexes look alike, and it may walk every classified row instead of looking up one UID.
# https://sqlite.org/fileformat2.html#stat1tab; an ANALYZE by anybody puts what it counts in place of these.
_STATISTICS = {
    ("model", "sqlite_autoindex_model_1"): "100 1",
    ("study", "sqlite_autoindex_study_1"): "400000 1",
    ("study", "ix_study_last_result_at"): "400000 1",
    ("study", "study_patient"): "400000 5",
    ("study", "study_worklist"): "400000 20000 2 1 1",
    ("file", "ix_file_sha256"): "1000000 2",
    ("file", "ix_file_sop_instance_uid"): "1000000 2",
    ("file", "ix_file_study_key"): "1000000 4",
    ("file", "one_result_per_content_and_model"): "900000 2 1",
    ("file", "file_accession_number"): "1000000 4",
    ("file", "file_completed"): "1000000 1 1 1",
    ("file", "file_duplicate_of"): "1000000 20",
    ("file", "file_filed"): "1000000 2",
    ("file", "file_patient"): "1000000 10 1 1",
    ("file", "file_prediction"): "900000 20000 1 1 1",
    ("file", "file_probability"): "900000 1 1",
    ("file", "file_series_uid"): "1000000 4",
    ("file", "file_source"): "1000000 2",
    ("file", "file_status"): "1000000 20000 1 1",
    ("file", "file_study_uid"): "1000000 4",
}


def upgrade() -> None:
    op.execute("DROP VIEW results")
    op.add_column("file", sa.Column("manufacturer", TEXT))
    op.execute(_RESULTS)
    # Nothing asks for a patient or a time alone: newest first goes along. By reception nothing is asked.
    op.drop_index("ix_file_received_at", "file")
    op.drop_index("ix_file_patient_id", "file")
    op.drop_index("file_completed_at", "file")
    op.create_index("file_completed", "file", ["completed_at", "id", "probability"])
    op.create_index("file_patient", "file", ["patient_id", "completed_at", "id"])
    op.create_index("file_status", "file", ["status", "completed_at", "id"])
    for name, columns in (
        ("prediction", ["prediction", "completed_at", "id", "probability"]),
        ("probability", ["probability", "completed_at"]),
    ):
        some = sa.text(f"{name} IS NOT NULL")
        op.create_index(f"file_{name}", "file", columns, sqlite_where=some, postgresql_where=some)
    op.create_index("study_worklist", "study", ["prediction", "max_probability", "last_result_at", "study_uid"])
    op.create_index("study_patient", "study", ["patient_id"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ANALYZE model")  # makes the table of statistics
        op.execute("DELETE FROM sqlite_stat1")
        rows = [{"tbl": table, "idx": index, "stat": stat} for (table, index), stat in _STATISTICS.items()]
        op.bulk_insert(sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat")), rows)
        op.execute("ANALYZE sqlite_schema")  # this connection goes by them, too


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DELETE FROM sqlite_stat1")
    for name in ("study_patient", "study_worklist"):
        op.drop_index(name, "study")
    for name in ("probability", "prediction", "status", "patient", "completed"):
        op.drop_index(f"file_{name}", "file")
    op.create_index("file_completed_at", "file", ["completed_at"])
    op.create_index("ix_file_patient_id", "file", ["patient_id"])
    op.create_index("ix_file_received_at", "file", ["received_at"])
    op.execute("DROP VIEW results")
    op.drop_column("file", "manufacturer")
    op.execute(_RESULTS.replace(",\n       file.manufacturer", ""))
