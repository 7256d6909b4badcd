"""What the server remembers of deployments."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tunewise.server.database import Base, Listed

ACCEPTED, CREATING, SUCCEEDED, FAILED = "Accepted", "Creating", "Succeeded", "Failed"


class Deployment(Listed, Base):
    """A name under which a model answers.

    Attributes:
        name: in requests; unique in its project, whatever account it was made in, since the URLs
            that ask it name no account.
        resource: Resource Manager's path of the deployment, as it was made.
        model: name of the model behind it, as ``jobs.resolve`` knows it.
        requested: the request's body; shown again as it was.
        state: ``Accepted``, ``Creating`` while the model is loaded, ``Succeeded`` or ``Failed``.
        error: why it failed.
    """

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("project", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    resource: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(512), index=True)
    requested: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16), default=ACCEPTED, index=True)
    error: Mapped[str | None] = mapped_column(Text)


class CheckpointCopy(Listed, Base):
    """That a checkpoint was copied; the leave itself is a ``CheckpointPermission``.

    Attributes:
        model: our name of the checkpoint.
        destination, region: as requested.
    """

    __tablename__ = "checkpoint_copies"
    __table_args__ = (UniqueConstraint("model", "destination"),)

    model: Mapped[str] = mapped_column(String(512))
    destination: Mapped[str] = mapped_column(String(1024))
    region: Mapped[str] = mapped_column(String(64))
