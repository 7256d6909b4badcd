"""Run by alembic for each command, on the connection that ``run.py`` gives."""

from __future__ import annotations

from alembic import context

from tunewise.server.database import Base, load_tables

load_tables()
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
