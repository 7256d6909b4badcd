"""Tokens that a tokenizer has and its model has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewise.errors import ModelError


def require_embedded(tokenizer: Any, ids: Sequence[int], rows: int) -> None:
    """Stop at a token beyond the model's embedding, which torch would tell as an IndexError.

    Looked for in what is really used, not in the tokenizer: some models (Gemma 3, whose tokenizer
    serves images too) are published with tokens that their embedding lacks and no text needs.

    Args:
        ids: of one prompt or row.
        rows: of the embedding (``LoadedModel.embedded``).

    Raises:
        ModelError: naming the token.
    """
    highest = max(ids, default=0)
    if highest < rows:
        return
    raise ModelError(
        f"the tokenizer knows more tokens than the model: {tokenizer.decode([highest])!r} is "
        f"token {highest}, and the embedding ends with {rows - 1}",
        hint="If tokens were added to the tokenizer, resize the model too "
        "(transformers: model.resize_token_embeddings(len(tokenizer))), save both, and use those.",
    )
