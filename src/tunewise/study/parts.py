"""The parts that a study names and packages bring: candidates, metrics, routes, trackers.

What the program asks of a kind before it makes a candidate are its ``Traits``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunewise.errors import StudyError, TrainingError
from tunewise.plugins import Group

KINDS = Group(
    "tunewise.candidates",
    what="kind of candidate",
    where="candidates",
    error=StudyError,
    needs=("traits", "from_study"),
)
"""Entry points that name a class; see :mod:`tunewise.candidates.base` for what it has."""


SCORERS = Group(
    "tunewise.scorers",
    what="metric",
    where="metric",
    error=StudyError,
    needs=("name", "binary", "corpus", "score", "aggregate"),
)
"""Entry points that name a class or function; called with the study's ``metric.options`` as
keywords, it returns a :class:`tunewise.scoring.base.Scorer`."""

ROUTES = Group(
    "tunewise.routes",
    what="route",
    where="fine_tune.route",
    error=TrainingError,
    needs=("name", "capabilities", "missing", "check", "forecast", "submit", "attach"),
)
"""Entry points that name a class or function; called with what it takes of ``servers`` (the
study's) and ``prices`` (of its price file, or None), by keyword, it returns a ``Route``."""

TRACKERS = Group(
    "tunewise.trackers",
    what="tracker",
    where="fine_tune.report_to",
    error=TrainingError,
    needs=("log", "finish"),
)
"""Entry points that name what is called with a ``TrackedRun`` and gives a ``Tracker``. It may
declare ``needs``: a module that it imports when it opens, and the package to install for it; and
``unattended_without()``: the environment variable that a server lacks to open it, or None."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a kind of candidate is, as its class declares it; nobody goes by a kind's name.

    The defaults are those of a kind of which nothing is known: it asks the study's model, and an
    answer costs what that model costs.

    Attributes:
        title: how a sentence calls a candidate of this kind; None is called by its name.
        needs_model: it asks a model: its own, or the study's.
        trained: the study's route fine-tunes that model for it; see ``Trained``.
        recorded: its answers were made elsewhere and stand in the files of ``answers``.
        free: an answer costs nothing worth counting, such as a classifier's on this machine.
        constant: it gives one answer to all rows. One such kind is measured in every study, and
            what does not beat it is of no use.
        plain: asks by instructions and the row alone. An untrained plain candidate is where
            learning curves begin; the rows of a trained one are written without the others.
        shows_examples: training rows stand in its prompts.
        retrieves: it searches the study's documents.
        dev_rounds: how often it asks all dev rows to choose its settings, at most.
        complexity: of candidates with equal scores and tokens, the one with the least wins.
        options: what it takes under ``options``.
    """

    title: str | None = None
    needs_model: bool = True
    trained: bool = False
    recorded: bool = False
    free: bool = False
    constant: bool = False
    plain: bool = False
    shows_examples: bool = False
    retrieves: bool = False
    dev_rounds: int = 1
    complexity: int = 100
    options: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether answering makes requests that cost time or money."""
        return not (self.free or self.recorded)


def traits_of(kind: str) -> Traits:
    """What a kind declares; its class is imported.

    Raises:
        StudyError: there is no such kind, two packages bring it, it cannot be imported, or it
            declares nothing.
    """
    made = KINDS.checked(kind, KINDS.load(kind))
    traits = made.traits
    if not isinstance(traits, Traits):
        raise KINDS.failed(KINDS.find(kind), TypeError("its `traits` are no `Traits`"))
    return traits
