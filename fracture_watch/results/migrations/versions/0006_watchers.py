"""Several watchers may have one database: whose inbox a file came to, since paths are of one machine."""

import sqlalchemy as sa
from alembic import op

from fracture_watch.results.types import TEXT

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    comment = "whose inbox it came to, where several watchers have one database: its paths are of that machine"
    op.add_column("file", sa.Column("watcher", TEXT, comment=comment))
    if op.get_bind().dialect.name == "postgresql":  # whose hashes of whole paths say nothing of how one begins
        op.create_index("file_source_start", "file", [sa.text("substr(source_path, 1, 256)")])


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("file_source_start", "file")
    op.drop_column("file", "watcher")
