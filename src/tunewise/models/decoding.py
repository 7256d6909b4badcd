"""The decode loop: batches of answers, token by token, on transformers' own model forward."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import DynamicCache

from tunewise.models.prefix_attention import (
    IMPLEMENTATION,
    FlatPass,
    OwnTokens,
    PrefixCache,
    window,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewise.models.constraint import SchemaGuide


log = logging.getLogger(__name__)


def cache_keyword(model: PreTrainedModel) -> str:
    """What the model's forward calls its cache of keys and values.

    ``cache`` from transformers 5.24 on; ``past_key_values`` before, and in models that kept it.
    """
    named = inspect.signature(model.forward).parameters
    return "cache" if "cache" in named else "past_key_values"


@dataclass(slots=True)
class Row:
    """One answer in the making.

    Attributes:
        prompt: all token ids of the prompt.
        budget: most tokens of the answer.
        stop: strings that end it.
        temperature: 0 is greedy.
        seed: of its own random numbers, so that an answer does not depend on its batch.
        guide: keeps it within a JSON Schema.
        ids: the answer so far, without an end token.
        generated: tokens computed for it, an end token included.
        end: the end token, where there was one.
        reason: why it ended (``stop``, ``length``), or None.
        error: why it failed.
    """

    prompt: list[int]
    budget: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: str = ""
    guide: SchemaGuide | None = None
    ids: list[int] = field(default_factory=list)
    generated: int = 0
    end: int | None = None
    reason: str | None = None
    error: str | None = None
    _random: torch.Generator | None = None

    @property
    def random(self) -> torch.Generator:
        if self._random is None:
            digest = hashlib.sha256(self.seed.encode()).digest()
            self._random = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return self._random


class _Layout(Protocol):
    """How a batch's tokens lie in the cache; passes give logits after each row's last token."""

    def first(self, rows: Sequence[Row]) -> torch.Tensor: ...
    def step(self, tokens: Sequence[int]) -> torch.Tensor: ...
    def select(self, order: Sequence[int]) -> None: ...


class Decoder:
    """Computes shared prefixes and answers for one model.

    Args:
        model: in ``eval`` mode.
        tokenizer: turns an answer's tokens back into text, to find stop strings.
        end_ids: tokens that end an answer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.window = window(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._shares: bool | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    def can_share(self, tokens: int) -> bool:
        """Whether conversations of up to ``tokens`` may share prefixes with this model."""
        if self.window is not None and tokens > self.window:
            return False
        if self._shares is None:
            self._shares = self._probe()
        return self._shares

    @torch.no_grad()
    def prefix(self, tokens: Sequence[int], parent: PrefixCache | None) -> PrefixCache:
        """The cache of ``tokens`` after ``parent``, with which any number of rows can go on."""
        layout = _SharedLayout(self, parent)
        with self._attention():
            layout.read([tokens])
        return layout.own.after(parent, len(tokens))

    @torch.no_grad()
    def run(self, rows: Sequence[Row], prefix: PrefixCache | None, *, shared: bool) -> None:
        """Write the answers of a batch into its rows.

        Args:
            rows: prompts that all begin with ``prefix``'s tokens.
            prefix: what they share, or None.
            shared: use the layout that shares prefixes (``can_share``), else transformers' own.
        """
        layout: _Layout = _SharedLayout(self, prefix) if shared else _PlainLayout(self)
        with self._attention() if shared else contextlib.nullcontext():
            live = list(rows)
            logits = layout.first(live)
            while True:
                tokens = self._choose(logits, live)
                kept = [
                    i
                    for i, (row, token) in enumerate(zip(live, tokens, strict=True))
                    if self._goes_on(row, token)
                ]
                if not kept:
                    return
                order = _closed_up(kept)
                if len(order) < len(live):
                    layout.select(order)
                    live = [live[i] for i in order]
                logits = layout.step([tokens[i] for i in order])

    def forward(self, tokens: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """Logits after each row's last token, ``[batch, vocabulary]``, in float32.

        Args:
            tokens: ``[batch, tokens]``.
        """
        keep: dict[str, Any] = {"logits_to_keep": 1} if self._keeps else {}
        output = self.model(input_ids=tokens, use_cache=True, **arguments, **keep)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def forward_flat(
        self, tokens: torch.Tensor, positions: torch.Tensor, flat: FlatPass, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Logits after the tokens ``wanted`` of a flat pass, ``[wanted, vocabulary]``, in float32.

        Args:
            tokens, positions: ``[tokens]``.
            wanted: places in the pass.
        """
        keep: dict[str, Any] = {"logits_to_keep": wanted} if self._keeps else {}
        output = self.model(
            input_ids=tokens[None], position_ids=positions[None], use_cache=False, flat=flat, **keep
        )
        logits: torch.Tensor = output.logits[0] if self._keeps else output.logits[0, wanted]
        return logits.float()

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation(IMPLEMENTATION)
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)

    def _choose(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        for i, row in enumerate(rows):
            if row.guide is not None:
                allowed = row.guide.allowed(logits.shape[1])
                logits[i].masked_fill_(~allowed.to(logits.device), -torch.inf)
        tokens: list[int] = logits.argmax(dim=-1).tolist()
        for i, row in enumerate(rows):
            if row.temperature > 0:
                chances = torch.softmax(logits[i].cpu() / row.temperature, dim=-1)
                tokens[i] = int(torch.multinomial(chances, 1, generator=row.random))
        return tokens

    def _goes_on(self, row: Row, token: int) -> bool:
        """Add ``token`` to the answer; False when the answer is at its end."""
        row.generated += 1
        if row.guide is not None:
            row.guide.accept(token)
            row.error = row.guide.error or None
        if row.error or token in self.end_ids:
            row.reason = "stop" if row.error is None else None
            row.end = token if row.error is None else None
            return False
        row.ids.append(token)
        if row.guide is not None and not row.guide.complete:
            self._end_what_is_certain(row, row.guide)
        if (row.guide is not None and row.guide.complete) or self._stopped(row):
            row.reason = "stop"
        elif len(row.ids) >= row.budget:
            row.reason = "length"
        return row.reason is None

    def _end_what_is_certain(self, row: Row, guide: SchemaGuide) -> None:
        """Write the rest of an answer that can only be one: nobody needs to compute it."""
        rest = guide.rest()
        if len(row.ids) + len(rest) > row.budget:
            return
        for token in rest:
            guide.accept(token)
        row.ids += rest
        row.generated += len(rest)

    def _stopped(self, row: Row) -> bool:
        if not row.stop:
            return False
        # A token is at least one byte, so this tail holds any stop string that ends now.
        tail = max(len(s.encode()) for s in row.stop) + 4
        text = self.tokenizer.decode(row.ids[-tail:], skip_special_tokens=True)
        return any(s in text for s in row.stop)

    @torch.no_grad()
    def _probe(self) -> bool:
        """Whether sharing gives this model's own logits, tried on two short rows.

        Models whose attention takes arguments that ours does not know (sinks, soft caps) or whose
        layers keep another state differ, and then answer in the plain way.
        """
        if self.window == 0:
            return False
        size = int(self.model.config.get_text_config(decoder=True).vocab_size)
        tokens = [(7 * i * i + 3 * i + 1) % size for i in range(24)]
        long, short = Row(tokens, 1), Row(tokens[:19], 1)
        try:
            wanted = torch.cat(
                [self.forward(torch.tensor([r.prompt], device=self.device)) for r in (long, short)]
            )
            parent = self.prefix(tokens[:6], None)
            prefix = self.prefix(tokens[6:11], parent)
            layout = _SharedLayout(self, prefix)
            with self._attention():
                layout.read([row.prompt[11:-1] for row in (long, short)])
                found = layout.step([row.prompt[-1] for row in (long, short)])
        except Exception as error:  # another attention's arguments fail in ways of their own
            log.debug("no shared prefixes: %s: %s", type(error).__name__, error)
            return False
        exact = self.model.dtype == torch.float32
        tolerance = (1e-3 if exact else 0.2) * float(wanted.std())
        difference = float((wanted - found).abs().max())
        log.debug("shared prefixes: logits differ by %.2g, allowed %.2g", difference, tolerance)
        return difference <= tolerance


def _closed_up(kept: Sequence[int]) -> list[int]:
    """The kept rows' numbers in an order that moves the fewest: the last ones fill the gaps."""
    order = list(range(len(kept)))
    gaps = sorted(set(order).difference(kept))
    for gap, row in zip(gaps, kept[len(kept) - len(gaps) :], strict=True):
        order[gap] = row
    return order


class _SharedLayout:
    """The prefix once, each row's own tokens after it, all in one flat pass without padding."""

    def __init__(self, decoder: Decoder, prefix: PrefixCache | None) -> None:
        self.own = OwnTokens()
        self._decoder = decoder
        self._prefix = prefix
        self._before = prefix.length if prefix is not None else 0
        self._lengths: list[int] = []

    def first(self, rows: Sequence[Row]) -> torch.Tensor:
        return self.read([row.prompt[self._before :] for row in rows])

    def read(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Take in what each row has after the prefix; logits after each one's end."""
        device = self._decoder.device
        self._lengths = [len(ids) for ids in prompts]
        lengths = torch.tensor(self._lengths, device=device)
        ends = lengths.cumsum(0)
        rows = torch.repeat_interleave(lengths)
        places = torch.arange(len(rows), device=device) - (ends - lengths)[rows]
        width = max(self._lengths)
        return self._decoder.forward_flat(
            torch.tensor([token for ids in prompts for token in ids], device=device),
            self._before + places,
            FlatPass(self._prefix, self.own, len(prompts), rows, places, width),
            ends - 1,
        )

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        device, dtype = self._decoder.device, self._decoder.model.dtype
        count, width = len(tokens), max(self._lengths) + 1
        rows = torch.arange(count, device=device)
        places = torch.tensor(self._lengths, device=device)
        mask = torch.zeros((count, width), dtype=dtype, device=device)
        mask.masked_fill_(torch.arange(width, device=device) > places[:, None], -torch.inf)
        self._lengths = [length + 1 for length in self._lengths]
        return self._decoder.forward_flat(
            torch.tensor(tokens, device=device),
            self._before + places,
            FlatPass(self._prefix, self.own, count, rows, places, width, mask[:, None, None]),
            rows,
        )

    def select(self, order: Sequence[int]) -> None:
        self.own.select(order)
        self._lengths = [self._lengths[i] for i in order]


class _PlainLayout:
    """transformers' own cache and masks, padded on the left: right for every architecture."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._cache = DynamicCache(config=decoder.model.config)
        self._mask = torch.empty(0)
        self._positions = torch.empty(0)

    def first(self, rows: Sequence[Row]) -> torch.Tensor:
        width = max(len(row.prompt) for row in rows)
        pads = [width - len(row.prompt) for row in rows]
        ids = [[0] * pad + row.prompt for pad, row in zip(pads, rows, strict=True)]
        tokens = torch.tensor(ids, device=self._decoder.device)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        start = torch.tensor(pads, device=tokens.device)[:, None]
        self._mask = (place >= start).long()
        self._positions = tokens.shape[1] - start
        return self._decoder.forward(
            tokens,
            attention_mask=self._mask,
            position_ids=(place - start).clamp(min=0),
            **{cache_keyword(self._decoder.model): self._cache},
        )

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        logits = self._decoder.forward(
            torch.tensor(tokens, device=self._mask.device)[:, None],
            attention_mask=self._mask,
            position_ids=self._positions,
            **{cache_keyword(self._decoder.model): self._cache},
        )
        self._positions = self._positions + 1
        return logits

    def select(self, order: Sequence[int]) -> None:
        kept = torch.tensor(order, device=self._mask.device)
        self._cache.reorder_cache(kept)  # type: ignore[arg-type]
        self._mask = self._mask.index_select(0, kept)
        self._positions = self._positions.index_select(0, kept)
