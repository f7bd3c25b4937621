"""The tables and the two views."""

import sqlalchemy as sa
from alembic import op

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
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("first_used_at", sa.Text, nullable=False),
    )
    op.create_table(
        "study",
        sa.Column("study_uid", sa.Text, primary_key=True),
        sa.Column("patient_id", sa.Text),
        sa.Column("study_date", sa.Text),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("classified", sa.Integer, nullable=False),
        sa.Column("fractured", sa.Integer, nullable=False),
        sa.Column("max_probability", sa.Double),
        sa.Column("prediction", sa.Text),
        sa.Column("last_result_at", sa.Text, nullable=False, index=True),
    )
    op.create_table(
        "file",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("received_at", sa.Text, nullable=False, index=True),
        sa.Column("completed_at", sa.Text, nullable=False),
        sa.Column("source_path", sa.Text, nullable=False),
        sa.Column("source_size", sa.BigInteger, nullable=False),
        sa.Column("source_modified_ns", sa.BigInteger, nullable=False),
        sa.Column("source_inode", sa.BigInteger, nullable=False),
        sa.Column("filed_path", sa.Text),
        sa.Column("filed", sa.Boolean, nullable=False, comment="whether the file is where filed_path says"),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("notes", sa.Text, comment="JSON array"),
        sa.Column("sha256", sa.Text, index=True),
        sa.Column("duplicate_of", sa.Integer, sa.ForeignKey("file.id")),
        sa.Column("patient_id", sa.Text, index=True),
        sa.Column("study_uid", sa.Text),
        sa.Column(
            "study_key",
            sa.Text,
            sa.ForeignKey("study.study_uid"),
            index=True,
            comment="study_uid, or sha256:... for a file without one",
        ),
        sa.Column("series_uid", sa.Text),
        sa.Column("sop_instance_uid", sa.Text, index=True),
        sa.Column("accession_number", sa.Text),
        sa.Column("modality", sa.Text),
        sa.Column("body_part", sa.Text),
        sa.Column("laterality", sa.Text),
        sa.Column("view_position", sa.Text),
        sa.Column("study_date", sa.Text),
        sa.Column("rows", sa.Integer),
        sa.Column("columns", sa.Integer),
        sa.Column("frame", sa.Integer),
        sa.Column("prediction", sa.Text),
        sa.Column("probability", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("model_id", sa.Text, sa.ForeignKey("model.id")),
        sa.Column("heatmap_path", sa.Text),
    )
    op.create_index("file_source", "file", ["source_path"])
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
