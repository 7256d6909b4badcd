"""One answer in the making, and the request it belongs to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewise.server.inference.protocol import TokenLogprob

if TYPE_CHECKING:
    from tunewise.models.constraint import SchemaGuide
    from tunewise.server.inference.serving import Serving
    from tunewise.server.inference.text import TextStream


@dataclass(slots=True, eq=False)
class Sampling:
    """How the next token is chosen.

    Attributes:
        logprobs: alternatives to report; None reports nothing.
    """

    temperature: float
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    bias: Mapping[int, float]
    logprobs: int | None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def plain(self) -> bool:
        """The likeliest token, with nothing done to the logits."""
        return self.temperature <= 0 and not self.adjusted

    @property
    def adjusted(self) -> bool:
        """Whether logits are changed for what the answer holds or the request says."""
        penalties = self.frequency_penalty or self.presence_penalty
        return bool(self.bias or penalties or self.repetition_penalty != 1)

    @property
    def narrowed(self) -> bool:
        """Whether some tokens are not drawn from at all."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


@dataclass(slots=True, eq=False)
class RequestState:
    """A request while it is answered.

    Attributes:
        serving: the model that answers, held in memory for it.
        adapter: the adapter's number in the model, 0 for none.
        prompt: token ids.
        budget: most tokens of each answer.
        open: answers that are not at their end.
        prompt_logprobs: of the prompt's tokens, where ``echo`` asks for them.
        warning: what of the request has no effect.
    """

    id: str
    serving: Serving
    adapter: int
    scope: str
    prompt: list[int]
    budget: int
    sampling: Sampling
    echo: str | None
    sequences: list[Sequence] = field(default_factory=list)
    open: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    cancelled: bool = False
    warning: str = ""

    @property
    def wants_prompt_logprobs(self) -> bool:
        return self.echo is not None and self.sampling.logprobs is not None


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer.

    Attributes:
        tokens: the prompt's and the answer's ids; the last one is not in the cache yet.
        fed: how many of ``tokens`` are in the cache.
        end: up to where they are to be computed before the answer goes on; beyond the prompt's
            end for an answer that was put back.
        held: where its keys and values lie; the model's backend knows.
        guide: keeps it within a JSON Schema.
        counts: how often each token of the answer was written, where penalties need it.
        seen: the tokens of prompt and answer, where a penalty for repetition needs them.
    """

    request: RequestState
    choice: int
    text: TextStream
    random: random.Random
    tokens: list[int]
    guide: SchemaGuide | None = None
    counts: dict[int, int] | None = None
    seen: set[int] | None = None
    fed: int = 0
    end: int = 0
    held: Any = None
    started: bool = False
    first_choice: bool = True
    age: int = 0

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)


def random_of(seed: int | None, choice: int) -> random.Random:
    """An answer's own random numbers: equal seeds give equal answers, whatever else is computed."""
    if seed is None:
        return random.Random()
    digest = hashlib.sha256(f"{seed}:{choice}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
