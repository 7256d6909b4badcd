"""How the text of a stored response came, so that it can be streamed again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("stored_responses", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deltas", sa.JSON(), nullable=True))
