"""What chat completions, completions and responses say alike: log-probabilities, usage, print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tunewise import __version__
from tunewise.data.chat import canonical_hash
from tunewise.server.inference.protocol import Done, ModelRef, TokenLogprob

_LEAST = -9999.0
"""What the API writes for a probability of zero: JSON has no infinity."""


def finite(logprob: float) -> float:
    """A log-probability that JSON can hold."""
    return max(logprob, _LEAST) if math.isfinite(logprob) else _LEAST


def token_logprob(token: TokenLogprob) -> dict[str, Any]:
    """A token in chat completions' form."""
    return {
        "token": token.token,
        "logprob": finite(token.logprob),
        "bytes": list(token.bytes),
        "top_logprobs": [
            {"token": text, "logprob": finite(logprob), "bytes": list(data)}
            for text, data, logprob in token.top
        ],
    }


def total(counts: Sequence[Done]) -> Done:
    """The counts of several requests together."""
    return Done(
        sum(one.prompt_tokens for one in counts),
        sum(one.completion_tokens for one in counts),
        sum(one.cached_tokens for one in counts),
    )


def usage(done: Done) -> dict[str, Any]:
    """Token counts as chat completions and completions give them."""
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": done.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def fingerprint(model: ModelRef) -> str:
    """``fp_…``: changes when other weights or another version of the server answer."""
    return "fp_" + canonical_hash([model.base, model.adapter, __version__])[:10]
