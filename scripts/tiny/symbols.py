"""Look-ups and patterns over random tokens: nothing to know, everything to find in the prompt.

A row of these teaches in a million tokens what language alone does not teach in four: attention
that goes from a question to the place where its key stands, and on to the value beside it.
"""

from __future__ import annotations

from random import Random

from tiny.vocabulary import SPECIALS

Row = tuple[list[int], list[float]]


class Symbols:
    """Draws rows of token ids and loss weights.

    Args:
        size: of the vocabulary; every token but the special ones is a symbol.
        marks: tokens of "of", "is", ".", "What", "?" and "->".
        turn: what stands between a question and its answer in a chat.
        close: what ends an answer.
    """

    def __init__(self, size: int, marks: list[int], turn: list[int], close: list[int]) -> None:
        self.size = size
        self.of, self.equals, self.stop, self.ask, self.asked, self.arrow = marks
        self.turn = turn
        self.close = close
        self.closing = {self.stop, close[0]}

    def _one(self, rng: Random) -> int:
        return rng.randrange(len(SPECIALS), self.size)

    def repeated(self, rng: Random, length: int) -> Row:
        """A run of random tokens, repeated; every repeat weighs like an answer."""
        run = [self._one(rng) for _ in range(rng.randint(4, min(24, length // 2)))]
        ids = (run * (length // len(run) + 1))[:length]
        return ids, [0.0] * len(run) + [1.0] * (length - len(run))

    def look_ups(self, rng: Random) -> Row:
        """Two to eight facts ``a of b is v``, then questions on some of them with their answers.

        Keys share a part with one another in half of the rows, so that both parts must be matched.
        """
        count = rng.randint(2, 8)
        shared = self._one(rng)
        mode = rng.randrange(4)
        facts: dict[tuple[int, int], list[int]] = {}
        while len(facts) < count:
            key = (
                shared if mode == 0 else self._one(rng),
                shared if mode == 1 else self._one(rng),
            )
            facts[key] = [self._one(rng) for _ in range(rng.randint(1, 3))]
        ids = [
            t
            for (a, b), value in facts.items()
            for t in (a, self.of, b, self.equals, *value, self.stop)
        ]
        weights = [0.0] * len(ids)
        chat = rng.random() < 0.5
        for (a, b), value in rng.sample(list(facts.items()), rng.randint(1, min(4, count))):
            question = [self.ask, a, self.of, b, self.asked, *(self.turn if chat else ())]
            answer = [*value, *(self.close[:1] if chat else [self.stop])]
            rest = self.close[1:] if chat else []
            ids += [*question, *answer, *rest]
            weights += [0.0] * len(question) + [1.0] * len(answer) + [0.0] * len(rest)
        return ids, weights

    def pattern(self, rng: Random) -> Row:
        """Members of two classes with their labels; each label after the first of its class
        follows from the shots."""
        labels = [self._one(rng), self._one(rng)]
        members = [[self._one(rng) for _ in range(rng.randint(1, 4))] for _ in range(2)]
        ids: list[int] = []
        weights: list[float] = []
        seen: set[int] = set()
        chat = rng.random() < 0.5
        for _ in range(rng.randint(5, 12)):
            at = rng.randrange(2)
            member = rng.choice(members[at])
            known = member in seen
            seen.add(member)
            link = self.turn if chat else [self.arrow]
            ids += [member, *link, labels[at], *self.close]
            weights += [0.0] * (1 + len(link)) + [float(known)] + [0.0] * len(self.close)
        return ids, weights
