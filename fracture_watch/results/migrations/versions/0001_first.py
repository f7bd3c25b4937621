"""The tables and the two views."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import NUMBER, TEXT

revision = "0001"
down_revision = None

_RESULTS = """
CREATE VIEW results AS
SELECT file.id, file.received_at, file.completed_at, file.source_path, file.filed_path, file.status, file.code,
       file.detail, file.notes, file.sha256, file.duplicate_of, file.patient_id, file.study_uid, file.series_uid,
       file.sop_instance_uid, file.accession_number, file.modality, file.body_part, file.laterality,
       file.view_position, file.study_date, file.rows, file.columns, file.frame, file.prediction, file.probability,
       file.threshold, model.name AS model_name, model.version AS model_version, file.model_id, file.heatmap_path
FROM file LEFT JOIN model ON model.id = file.model_id
"""
_STUDIES = """
CREATE VIEW studies AS
SELECT study_uid, patient_id, study_date, files, classified, fractured, max_probability, prediction, last_result_at
FROM study
"""


def upgrade() -> None:
    op.create_table(
        "model",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("first_used_at", TEXT, nullable=False),
    )
    op.create_table(
        "study",
        sa.Column("study_uid", TEXT, primary_key=True),
        sa.Column("patient_id", TEXT),
        sa.Column("study_date", TEXT),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("classified", sa.Integer, nullable=False),
        sa.Column("fractured", sa.Integer, nullable=False),
        sa.Column("max_probability", sa.Double),
        sa.Column("prediction", TEXT),
        sa.Column("last_result_at", TEXT, nullable=False, index=True),
    )
    op.create_table(
        "file",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("received_at", TEXT, nullable=False, index=True),
        sa.Column("completed_at", TEXT, nullable=False),
        sa.Column("source_path", TEXT, nullable=False),
        sa.Column("source_size", sa.BigInteger, nullable=False),
        sa.Column("source_modified_ns", sa.BigInteger, nullable=False),
        sa.Column("source_inode", sa.BigInteger, nullable=False),
        sa.Column("filed_path", TEXT),
        sa.Column("filed", sa.Boolean, nullable=False, comment="whether the file is where filed_path says"),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("code", TEXT),
        sa.Column("detail", TEXT),
        sa.Column("notes", TEXT, comment="JSON array"),
        sa.Column("sha256", TEXT, index=True),
        sa.Column("duplicate_of", NUMBER, sa.ForeignKey("file.id")),
        sa.Column("patient_id", TEXT, index=True),
        sa.Column("study_uid", TEXT),
        sa.Column(
            "study_key",
            TEXT,
            sa.ForeignKey("study.study_uid"),
            index=True,
            comment="study_uid, or sha256:... for a file without one",
        ),
        sa.Column("series_uid", TEXT),
        sa.Column("sop_instance_uid", TEXT, index=True),
        sa.Column("accession_number", TEXT),
        sa.Column("modality", TEXT),
        sa.Column("body_part", TEXT),
        sa.Column("laterality", TEXT),
        sa.Column("view_position", TEXT),
        sa.Column("study_date", TEXT),
        sa.Column("rows", sa.Integer),
        sa.Column("columns", sa.Integer),
        sa.Column("frame", sa.Integer),
        sa.Column("prediction", TEXT),
        sa.Column("probability", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("model_id", TEXT, sa.ForeignKey("model.id")),
        sa.Column("heatmap_path", TEXT),
    )
    op.create_index("file_source", "file", ["source_path"], postgresql_using="hash")  # as long as paths may be
    classified = sa.text("status = 'classified'")
    op.create_index(
        "one_result_per_content_and_model",
        "file",
        ["sha256", "model_id"],
        unique=True,
        sqlite_where=classified,
        postgresql_where=classified,
    )
    op.execute(_RESULTS)
    op.execute(_STUDIES)


def downgrade() -> None:
    op.execute("DROP VIEW studies")
    op.execute("DROP VIEW results")
    for table in ("file", "study", "model"):
        op.drop_table(table)
