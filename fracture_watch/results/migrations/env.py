"""Alembic's entry: the store hands its own connection over."""

from alembic import context

from fracture_watch.results.schema import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
