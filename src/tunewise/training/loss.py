"""Log-probabilities of the learnt predictions, in chunks, without keeping their logits.

``LinearCrossEntropy`` is for a loss whose weights are known beforehand: its gradient is computed
while a chunk's logits are at hand, as Liger's fused linear cross-entropy does (Hsu et al.,
2410.10989). ``LinearLogProbs`` is for any function of the log-probabilities, ``LinearTopK`` where
several tokens count at each place: they compute a chunk's logits a second time in the backward
pass. None needs memory for predictions × vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Logits of one chunk hold at most this many numbers (64 MB in float32).
CHUNK_LOGITS = 16 * 1024 * 1024


class _Chunk(NamedTuple):
    """A part of the predictions.

    Attributes:
        part: which.
        exponentials: of logits less their maximum, (chunk, vocabulary).
        total: their sums, (chunk,).
        at_tokens: logits of the wanted tokens less the maximum, (chunk, tokens of a prediction).
        slope: of the logits by the output layer's result, where these differ.
    """

    part: slice
    exponentials: Tensor
    total: Tensor
    at_tokens: Tensor
    slope: Tensor | float

    def gradient(self, targets: Tensor, share: Tensor) -> Tensor:
        """Of ``(share * loss).sum()`` by the output layer's result; destroys the exponentials."""
        grad = self.exponentials.mul_((share / self.total)[:, None])
        grad.scatter_add_(1, targets[self.part][:, None], -share[:, None])
        return self._outer(grad)

    def others(self, tokens: Tensor) -> Tensor:
        """Sum of the exponentials but those of ``tokens``, (chunk,); sets these to 0.

        Summed, not subtracted from the total: what is left may be far below its last digit.
        """
        rest = self.exponentials.scatter_(1, tokens, 0.0).sum(-1)
        return rest.clamp(min=torch.finfo(rest.dtype).tiny)

    def top_k_gradient(self, tokens: Tensor, by_tokens: Tensor, by_rest: Tensor) -> Tensor:
        """By the output layer's result, given those by ``LinearTopK``'s two log-probabilities."""
        share = (by_tokens.sum(-1) + by_rest) / self.total
        at_tokens = -share[:, None] * self.at_tokens.exp()
        grad = self.exponentials.mul_((by_rest / self.others(tokens) - share)[:, None])
        grad.scatter_(1, tokens, at_tokens).scatter_add_(1, tokens, by_tokens)
        return self._outer(grad)

    def _outer(self, grad: Tensor) -> Tensor:
        """From the logits to the output layer's result."""
        if isinstance(self.slope, Tensor) or self.slope != 1.0:
            grad.mul_(self.slope)
        return grad


def _chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    softcap: float | None,
    temperature: float,
) -> Iterator[_Chunk]:
    """The logits in parts; ``tokens``: those wanted at each place, (predictions, any number)."""
    wide = _wide(hidden)
    rows = max(1, CHUNK_LOGITS // weight.shape[0])
    for begin in range(0, len(hidden), rows):
        part = slice(begin, begin + rows)
        logits = torch.nn.functional.linear(hidden[part], weight, bias).to(wide)
        slope: Tensor | float = 1.0
        if softcap is not None:
            tanh = torch.tanh(logits / softcap)
            logits = tanh * softcap
            slope = 1 - tanh * tanh
        if temperature != 1.0:
            logits = logits / temperature
            slope = slope / temperature
        # In place from here: the logits are the largest tensor there is.
        logits.sub_(logits.amax(-1, keepdim=True))
        at_tokens = logits.gather(1, tokens[part])
        exponentials = logits.exp_()
        yield _Chunk(part, exponentials, exponentials.sum(-1), at_tokens, slope)


def _wide(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


class _Gradients:
    """Gradients of hidden states and output layer, gathered chunk by chunk."""

    def __init__(
        self, needed: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> None:
        wide = _wide(hidden)
        self._hidden, self._weight, self._bias = hidden, weight, bias
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        self.weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
        self.bias = torch.zeros_like(bias, dtype=wide) if needed[2] and bias is not None else None

    def add(self, part: slice, grad: Tensor) -> None:
        """Take the gradient by a chunk's logits, (chunk, vocabulary)."""
        inner = grad.to(self._hidden.dtype)
        if self.hidden is not None:
            self.hidden[part] = inner @ self._weight.to(self._hidden.dtype)
        if self.weight is not None:
            self.weight += (inner.T @ self._hidden[part]).to(self.weight.dtype)
        if self.bias is not None:
            self.bias += grad.sum(0)

    def finished(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of hidden states, weight and bias, each in its own type; None where not needed."""
        bias = self.bias
        if bias is not None and self._bias is not None:
            bias = bias.to(self._bias.dtype)
        weight = None if self.weight is None else self.weight.to(self._weight.dtype)
        return self.hidden, weight, bias


class LinearCrossEntropy(torch.autograd.Function):
    """Weighted cross-entropy of ``hidden @ weight.T``, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            hidden: (predictions, dim); weight: (vocabulary, dim); bias: (vocabulary,) or None.
            targets: (predictions,) wanted tokens; weights: (predictions,) their weights.
            softcap: logits are ``softcap * tanh(logits / softcap)``, as in Gemma 2.

        Returns:
            The weighted sum of losses; the plain loss of each prediction; whether its target has
            the highest logit (no gradient for the last two).
        """
        wide = _wide(hidden)
        found = _Gradients(ctx.needs_input_grad[:3], hidden, weight, bias)
        losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        right = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        for chunk in _chunks(hidden, weight, bias, targets[:, None], softcap, 1.0):
            losses[chunk.part] = chunk.total.log() - chunk.at_tokens[:, 0]
            right[chunk.part] = chunk.at_tokens[:, 0] == 0
            if any(ctx.needs_input_grad[:3]):
                share = weights[chunk.part].to(wide)
                found.add(chunk.part, chunk.gradient(targets, share))
        ctx.save_for_backward(found.hidden, found.weight, found.bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(losses, right)
        return (losses * weights.to(wide)).sum(), losses, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(weight_dtype),
            None if grad_bias is None else (grad_bias * grad).to(bias_dtype),
            None,
            None,
            None,
        )


class LinearLogProbs(torch.autograd.Function):
    """Log-probabilities of the targets by ``hidden @ weight.T``, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            temperature: logits are divided by it, last of all.

        Returns:
            (predictions,) log-probabilities, and whether the target has the highest logit.
        """
        logps = torch.empty(len(hidden), dtype=_wide(hidden), device=hidden.device)
        right = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        for chunk in _chunks(hidden, weight, bias, targets[:, None], softcap, temperature):
            logps[chunk.part] = chunk.at_tokens[:, 0] - chunk.total.log()
            right[chunk.part] = chunk.at_tokens[:, 0] == 0
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.softcap, ctx.temperature = softcap, temperature
        ctx.mark_non_differentiable(right)
        return logps, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        found = _Gradients(ctx.needs_input_grad[:3], hidden, weight, bias)
        temperature = ctx.temperature
        for chunk in _chunks(hidden, weight, bias, targets[:, None], ctx.softcap, temperature):
            found.add(chunk.part, chunk.gradient(targets, -grad[chunk.part]))
        return (*found.finished(), None, None, None)


class LinearTopK(torch.autograd.Function):
    """Log-probabilities of some tokens, and of all the others together, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            tokens: (predictions, k); one that stands there twice is one token for the rest.

        Returns:
            (predictions, k) log-probabilities of the tokens; (predictions,) that it is none of
            them; whether the first has the highest logit.
        """
        logps = torch.empty(tokens.shape, dtype=_wide(hidden), device=hidden.device)
        rest = torch.empty_like(logps[:, 0])
        right = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        for chunk in _chunks(hidden, weight, bias, tokens, softcap, 1.0):
            log_total = chunk.total.log()
            logps[chunk.part] = chunk.at_tokens - log_total[:, None]
            rest[chunk.part] = chunk.others(tokens[chunk.part]).log() - log_total
            right[chunk.part] = chunk.at_tokens[:, 0] == 0
        ctx.save_for_backward(hidden, weight, bias, tokens)
        ctx.softcap = softcap
        ctx.mark_non_differentiable(right)
        return logps, rest, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_rest: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens = ctx.saved_tensors
        found = _Gradients(ctx.needs_input_grad[:3], hidden, weight, bias)
        for chunk in _chunks(hidden, weight, bias, tokens, ctx.softcap, 1.0):
            part = chunk.part
            found.add(part, chunk.top_k_gradient(tokens[part], grad[part], grad_rest[part]))
        return (*found.finished(), None, None)


def linear_cross_entropy(
    hidden: Tensor, head: Any, targets: Tensor, weights: Tensor, softcap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``LinearCrossEntropy`` for an output layer, which may also be wrapped by an adapter.

    Returns:
        The weighted sum of losses, each prediction's plain loss, and whether it is right.
    """
    if type(head) is torch.nn.Linear:
        summed, each, right = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden.to(head.weight.dtype), head.weight, head.bias, targets, weights, softcap
        )
        return summed, each, right
    logps, right = log_probs_of(_logits(hidden, head, softcap), targets)
    return -(logps * weights.to(logps.dtype)).sum(), -logps.detach(), right


def linear_log_probs(
    hidden: Tensor,
    head: Any,
    targets: Tensor,
    softcap: float | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """``LinearLogProbs`` for an output layer, which may also be wrapped by an adapter."""
    if type(head) is torch.nn.Linear:
        logps, right = LinearLogProbs.apply(  # type: ignore[no-untyped-call]
            hidden.to(head.weight.dtype), head.weight, head.bias, targets, softcap, temperature
        )
        return logps, right
    return log_probs_of(_logits(hidden, head, softcap) / temperature, targets)


def linear_top_k(
    hidden: Tensor, head: Any, tokens: Tensor, softcap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``LinearTopK`` for an output layer, which may also be wrapped by an adapter."""
    if type(head) is torch.nn.Linear:
        logps, rest, right = LinearTopK.apply(  # type: ignore[no-untyped-call]
            hidden.to(head.weight.dtype), head.weight, head.bias, tokens, softcap
        )
        return logps, rest, right
    return top_k_of(_logits(hidden, head, softcap), tokens)


def top_k_of(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What ``LinearTopK`` gives, from logits."""
    logps = logits.log_softmax(-1)
    least = math.log(torch.finfo(logps.dtype).tiny)
    rest = logps.scatter(1, tokens, -math.inf).logsumexp(-1).clamp(min=least)
    at_first = logits.detach().gather(1, tokens[:, :1])[:, 0]
    return logps.gather(1, tokens), rest, at_first >= logits.detach().amax(-1)


def log_probs_of(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The targets' log-probabilities, and whether each has the highest logit."""
    logps = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    at_target = logits.detach().gather(1, targets[:, None])[:, 0]
    return logps, at_target >= logits.detach().amax(-1)


def _logits(hidden: Tensor, head: Any, softcap: float | None) -> Tensor:
    logits: Tensor = head(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
