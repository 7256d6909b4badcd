"""Deployments, and copies of checkpoints."""

from __future__ import annotations

from alembic import op

from tunewise.server.database import Base

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A new database has them from the first step already, which makes all tables of the code.
    tables = [Base.metadata.tables[name] for name in ("deployments", "checkpoint_copies")]
    Base.metadata.create_all(op.get_bind(), tables=tables)
