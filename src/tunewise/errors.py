"""The errors a user can meet. Each says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping


class TunewiseError(Exception):
    """A failure that the user can understand and mend; never shown as a traceback.

    Attributes:
        message: what is wrong, one sentence without a full stop at the end.
        where: the place, for instance ``data.jsonl:17``, a row id or ``study.yaml:4: metric``.
        hint: what to do about it.
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            parts.append(self.hint)
        return "\n".join(parts)


class UsageError(TunewiseError):
    """A command or option that cannot be meant as written."""

    exit_code = 2


class StudyError(TunewiseError):
    """A study file that cannot be read or does not make sense."""

    exit_code = 2


class UntrustedCodeError(StudyError):
    """A study names code to be run, and its user has not said that it may be."""


class DataError(TunewiseError):
    """A data set that cannot be read.

    Attributes:
        options: options of ``audit``, ``init`` and ``train`` with which it probably can be.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.options = dict(options or {})

    def at(self, where: str) -> DataError:
        """The same about another place."""
        return DataError(self.message, where=where, hint=self.hint, options=self.options)


class ModelError(TunewiseError):
    """A model that cannot be loaded or asked."""


class MissingExtraError(TunewiseError):
    """An optional part of Tunewise that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed",
            hint=f'Install them with: pip install "tunewise[{extra}]"',
        )


class TrainingError(TunewiseError):
    """Training that cannot start or had to stop."""


class WorkspaceError(TunewiseError):
    """The folder where results lie cannot be used: locked, full, or damaged."""


class BudgetError(TunewiseError):
    """Going on would spend more than the study's ``costs.max_usd``."""
