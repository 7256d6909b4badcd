"""What the library's functions give: the results, which print as the commands print them, and show
themselves in a notebook.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewise.data.audit import AuditReport
    from tunewise.data.findings import Finding
    from tunewise.pipeline.alone import Tuned
    from tunewise.pipeline.audits import AuditOutcome
    from tunewise.pipeline.propose import Written
    from tunewise.pipeline.run import Outcome, Plan
    from tunewise.report.card import Card
    from tunewise.report.comparison import Comparison
    from tunewise.report.document import TrainingRun, Verdict


class Shown:
    """A result that prints as its command does."""

    def _show(self) -> None:
        raise NotImplementedError

    def __str__(self) -> str:
        return _printed(self._show)

    __repr__ = __str__

    def _card(self) -> Card:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        from tunewise.report.card import render_card

        return render_card(self._card())


def _printed(show: Callable[[], None]) -> str:
    """What a function prints, without colours."""
    with redirect_stdout(io.StringIO()) as printed:
        show()
    return printed.getvalue().rstrip("\n")


class Verdicted(Shown):
    """A finished run.

    Attributes:
        verdict: the whole document (see ``docs/verdict-json.md``).
        report: the page, ``verdict_json`` the document on disk; ``folder`` holds both.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.verdict: Verdict = outcome.verdict
        self.report: Path = outcome.report
        self.verdict_json: Path = outcome.verdict_json
        self.folder: Path = outcome.folder

    def _show(self) -> None:
        from tunewise.cli.show import show_outcome

        show_outcome(self._outcome, as_json=False)

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()

    @property
    def study(self) -> str:
        """The study's name."""
        return self.verdict.study


class SideBySide(Shown):
    """Studies side by side.

    Attributes:
        comparison: the whole document, as ``tunewise compare --json`` prints it.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison

    def _show(self) -> None:
        from tunewise.cli.show import show_comparison

        show_comparison(self.comparison, None, as_json=False)

    def _repr_html_(self) -> str:
        from tunewise.report.comparison import render_comparison
        from tunewise.report.html import page_in_frame

        return page_in_frame(render_comparison(self.comparison), "Studies side by side")


class Audited(Shown):
    """An audit of rows.

    Attributes:
        report: all that was found. findings: the same, errors first.
        mde: the smallest gain in points that a test on these test rows shows; None without any.
    """

    def __init__(self, outcome: AuditOutcome, fixed: Path | None) -> None:
        self._outcome, self._fixed = outcome, fixed
        self.report: AuditReport = outcome.report
        self.findings: tuple[Finding, ...] = outcome.report.findings
        self.mde = outcome.mde

    def _show(self) -> None:
        from tunewise.cli.show import show_audit

        show_audit(self._outcome, self._fixed, as_json=False)

    def _card(self) -> Card:
        from tunewise.python.cards import audit_card

        return audit_card(self._outcome, self._fixed)


class Proposed(Shown):
    """A study file that was written, and why it looks so.

    Attributes:
        path: of the file. reasons, warnings: sentences. text: what the file says.
    """

    def __init__(self, written: Written) -> None:
        self._written = written
        self.path = written.path
        self.reasons = tuple(written.proposal.reasons)
        self.warnings = tuple(written.proposal.warnings)

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    def _show(self) -> None:
        from tunewise.cli.show import show_proposal

        show_proposal(self._written)

    def _card(self) -> Card:
        from tunewise.python.cards import proposal_card

        return proposal_card(self._written)


class Forecasted(Shown):
    """A run before anything is spent.

    Attributes:
        plan: rows, candidates with what each takes, the smallest gain that the test shows.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def _show(self) -> None:
        from tunewise.cli.show import show_plan

        show_plan(self.plan, as_json=False)

    def _card(self) -> Card:
        from tunewise.python.cards import plan_card

        return plan_card(self.plan)


class Trained(Shown):
    """A fine-tune alone; give it to ``generate`` to ask it.

    Attributes:
        run: settings, losses, seconds, memory.
        model: that training began with; the tuned one itself where all weights were trained.
        adapter: the tuned adapter's folder; None where all weights were trained.
        instructions: the system message of the rows, where all have the same.
    """

    def __init__(self, tuned: Tuned) -> None:
        self._tuned = tuned
        self.run: TrainingRun = tuned.run
        self.adapter = tuned.adapter
        self.instructions = tuned.instructions
        whole = tuned.adapter is None and tuned.run.tuned_model
        self.model: str = str(tuned.run.tuned_model) if whole else tuned.run.model

    def _show(self) -> None:
        from tunewise.cli.show_training import show_training

        show_training(self._tuned, False)

    def _card(self) -> Card:
        from tunewise.python.cards import training_card

        return training_card(self._tuned)
