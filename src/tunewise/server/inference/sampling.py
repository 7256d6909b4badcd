"""The next token of every running row, chosen for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from tunewise.server.inference.protocol import TokenLogprob
from tunewise.server.inference.sequence import Sampling, Sequence
from tunewise.server.inference.text import TokenTexts

_FORCED = 100.0
"""A ``logit_bias`` from here on, in either direction, decides alone (OpenAI's documentation)."""

_BANNED = 1e6
"""Finite, so that a schema which allows only banned tokens still finds the best of them."""


def choose(logits: torch.Tensor, rows: Rows[Sequence]) -> list[int]:
    """The next token of each row.

    Args:
        logits: ``[rows, vocabulary]`` in float32; changed in place.
        rows: in the same order.
    """
    drawn: list[int] = []
    for i, row in enumerate(rows):
        sampling = row.request.sampling
        if sampling.adjusted:
            _adjust(logits[i], row)
        if row.guide is not None:
            allowed = row.guide.allowed(logits.shape[1])
            logits[i].masked_fill_(~allowed.to(logits.device), -torch.inf)
        if sampling.temperature > 0:
            drawn.append(i)
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    if drawn:
        some = logits if len(drawn) == len(rows) else logits[drawn]
        for i, token in zip(drawn, _draw(some, [rows[i] for i in drawn]), strict=True):
            tokens[i] = token
    return tokens


def _draw(logits: torch.Tensor, rows: Rows[Sequence]) -> list[int]:
    """Inverse transform sampling: one uniform number a row and token, from the row's own source."""
    device = logits.device
    samplings = [row.request.sampling for row in rows]
    scale = torch.tensor([[s.temperature] for s in samplings], device=device)
    # A temperature of nearly nothing would overflow: the largest logit becomes 0 first.
    chances = torch.softmax((logits - logits.amax(-1, keepdim=True)) / scale, dim=-1)
    narrow = [i for i, s in enumerate(samplings) if s.narrowed]
    if narrow:
        chances[narrow] = _narrowed(chances[narrow], [samplings[i] for i in narrow])
    below = chances.double().cumsum(-1)
    point = torch.tensor([[row.random.random()] for row in rows], dtype=torch.float64)
    # In (0, total]: a token without a chance is never hit, since its step has no width.
    point = (1.0 - point.to(device)) * below[:, -1:]
    found: list[int] = torch.searchsorted(below, point).squeeze(1).tolist()
    return found


def _narrowed(chances: torch.Tensor, samplings: Rows[Sampling]) -> torch.Tensor:
    """The chances with those at 0 that ``min_p``, ``top_k``, then ``top_p`` leave out."""

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=chances.device)[:, None]

    ordered, order = chances.sort(dim=-1, descending=True)
    ordered[ordered < column([s.min_p for s in samplings]) * ordered[:, :1]] = 0
    size = ordered.shape[1]
    most = column([s.top_k or size for s in samplings])
    ordered[torch.arange(size, device=chances.device) >= most] = 0
    # The token that crosses the line belongs to the nucleus; the first one always does.
    sums = ordered.cumsum(-1)
    ordered[sums - ordered > column([s.top_p for s in samplings]) * sums[:, -1:]] = 0
    ordered[:, 0].clamp_(min=torch.finfo(ordered.dtype).tiny)
    return torch.zeros_like(chances).scatter_(-1, order, ordered)


def _adjust(logits: torch.Tensor, row: Sequence) -> None:
    sampling = row.request.sampling
    if row.seen:
        seen = torch.tensor(list(row.seen), device=logits.device)
        found = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(found > 0, found / penalty, found * penalty)
    if row.counts:
        ids = torch.tensor(list(row.counts), device=logits.device)
        times = torch.tensor(list(row.counts.values()), device=logits.device, dtype=logits.dtype)
        logits[ids] -= times * sampling.frequency_penalty + sampling.presence_penalty
    if sampling.bias:
        forced = [t for t, b in sampling.bias.items() if b >= _FORCED]
        if forced:
            kept = logits[forced]
            logits -= _BANNED
            logits[forced] = kept
        for token, bias in sampling.bias.items():
            if bias <= -_FORCED:
                logits[token] -= _BANNED
            elif bias < _FORCED:
                logits[token] += bias


def logprobs_of(
    logits: torch.Tensor, tokens: Rows[int], counts: Rows[int], texts: TokenTexts
) -> list[TokenLogprob]:
    """Log-probabilities of chosen tokens under the unchanged distribution.

    Args:
        logits: ``[n, vocabulary]`` in float32, as the model gave them.
        tokens: what was chosen (or stands in the prompt), one a row.
        counts: alternatives to report, one a row.
    """
    all_of = torch.log_softmax(logits, dim=-1)
    chosen = all_of.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    values, ids = all_of.topk(min(max(counts), logits.shape[1]), dim=-1)
    tops = zip(values.tolist(), ids.tolist(), strict=True)
    return [
        TokenLogprob(
            *texts(token),
            value,
            tuple((*texts(i), v) for v, i in zip(vs[:count], top[:count], strict=True)),
        )
        for token, value, count, (vs, top) in zip(tokens, chosen, counts, tops, strict=True)
    ]
