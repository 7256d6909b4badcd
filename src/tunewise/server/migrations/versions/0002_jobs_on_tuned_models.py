"""Jobs on top of tuned models: which model a job begins with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parent", sa.String(length=512), nullable=True))
        batch_op.add_column(sa.Column("asked_model", sa.String(length=512), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_parent"), ["parent"], unique=False)
