"""Answers from a model on this machine, in batches that share their prompts' beginning."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewise.data.chat import Completion, Progress, Request
from tunewise.data.thoughts import closing_of, opens_thought, split_thoughts, thinks
from tunewise.data.tool_calls import parse_tool_calls
from tunewise.errors import ModelError
from tunewise.models.batching import BatchLimits, SharedPrefix, cut_batches, share_prefixes
from tunewise.models.chat_format import render_prompt
from tunewise.models.constraint import SchemaCompiler, SchemaError
from tunewise.models.embedding import require_embedded
from tunewise.models.engine import LONGER_CONTEXT, in_order
from tunewise.models.loading import LoadedModel
from tunewise.models.template_date import today
from tunewise.models.tool_calls import decode_answer
from tunewise.models.trained_as import trained_as

if TYPE_CHECKING:
    from tunewise.models.constraint import SchemaGuide
    from tunewise.models.decoding import Row
    from tunewise.models.prefix_attention import PrefixCache

_CACHE_BYTES = 1 << 30
"""Most memory for one batch's keys and values on a processor; on a GPU, a quarter of the free."""

_STEP_WEIGHTS = 1 << 30
"""Weights that a step of decoding meets on a processor, all rows together. A small model's step
takes longer to arrange than to compute, so more rows share it; a large one's batches stay short,
for progress is told, and answers are kept, batch by batch."""

_THINKING = "enable_thinking"
"""The variable by which templates of families that may think switch it off."""

_FLAT_WASTE = 0.5
"""Rows that share a prefix are padded in the attention to their own tokens alone."""


class LocalEngine:
    """One model, with or without an adapter.

    Several engines may share one ``LoadedModel``: the weights are in memory once, and each engine
    switches its own adapter on while it answers.

    Args:
        loaded: from ``load_local``.
        adapter: the folder of a peft adapter.
        date: what a template that asks for today's date is given: ISO 8601, or None for the day
            on which the engine is made. Tuned weights keep the one that they were trained with.
        batch_tokens: most prompt tokens of one forward pass, padding included.
        threads: processor threads that torch uses (for the whole process).

    Attributes:
        thinks: its chat template knows thoughts, so that an answer may begin with some.

    Raises:
        ModelError: the adapter is missing, pickled, or does not fit.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        adapter: Path | None = None,
        date: str | None = None,
        batch_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        import torch

        from tunewise.models.decoding import Decoder
        from tunewise.models.output_head import sharpen

        if threads is not None:
            torch.set_num_threads(threads)
        self.loaded = loaded
        self._adapter = loaded.attach(adapter) if adapter is not None else None
        self.model = loaded.name
        self.context_length: int | None = loaded.context_length
        trained = trained_as(adapter).date if adapter is not None else None
        self.date = trained or loaded.date or date or today()
        self.revision = loaded.revision + (f"+{self._adapter}" if self._adapter else "")
        if loaded.asks_for_date:
            self.revision += f"@{self.date}"
        self.thinks = thinks(str(loaded.tokenizer.chat_template))
        if self.thinks:
            # Kept answers of earlier releases have thoughts without the marks that tell them.
            self.revision += "+thoughts"
        self._limits = _limits(loaded, batch_tokens)
        self._flat_limits = replace(self._limits, waste=_FLAT_WASTE)
        sharpen(loaded.model)
        self._decoder = Decoder(loaded.model, loaded.tokenizer, loaded.end_ids)
        head: Any = loaded.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._schemas = SchemaCompiler(loaded.tokenizer, int(head.weight.shape[0]), loaded.end_ids)

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        """Answer all requests, in order; see ``Engine.answer``.

        A request that is longer than the context, or whose schema cannot be enforced, gives a
        completion with ``error``. An answer may be cut at the end of the context
        (``finish_reason`` is then ``length``); a prompt never is.
        """
        return in_order(self.iterate(requests), len(requests), progress)

    def iterate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer as ``answer`` does, giving ``(index, completion)`` as batches are done."""
        for index, completion, _ in self.iterate_rows(requests):
            yield index, completion

    def iterate_rows(
        self, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Completion, Row | None]]:
        """``iterate`` with each answer's tokens; None for a request that failed."""
        rows: dict[int, Row] = {}
        texts = self._texts(requests)
        for index, prompt in enumerate(self._prompts(texts)):
            try:
                rows[index] = self._row(requests[index], prompt)
            except ModelError as error:
                yield index, self._failed(requests[index], error), None
        opened = {
            i for i, text in enumerate(texts) if isinstance(text, str) and opens_thought(text)
        }
        for chosen, latency, cached in self._batches(rows):
            for index in chosen:
                row = rows.pop(index)
                completion = self._completion(
                    requests[index], row, latency, cached, opened=index in opened
                )
                yield index, completion, row

    def why_not(self, requests: Sequence[Request]) -> dict[int, str]:
        """See ``Foreseeing.why_not``: template, context, or a form that cannot be enforced."""
        found: dict[int, str] = {}
        for index, prompt in enumerate(self._prompts(self._texts(requests))):
            try:
                self._room(prompt)
                self._guide(requests[index])
            except ModelError as error:
                found[index] = error.message
        return found

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        """Tokens of the conversation as the model sees it when asked for an answer."""
        text = render_prompt(self.loaded.tokenizer, messages, date=self.date)
        return len(
            self.loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        )

    def close(self) -> None:
        """Forget the model; its memory is free when no other engine holds it."""
        self._decoder = None  # type: ignore[assignment]
        self.loaded = None  # type: ignore[assignment]

    def _texts(self, requests: Sequence[Request]) -> list[str | ModelError]:
        """What the model is given, or why it cannot be."""
        result: list[str | ModelError] = []
        for request in requests:
            try:
                result.append(self._text(request))
            except ModelError as error:
                result.append(error)
        return result

    def _text(self, request: Request) -> str:
        """One prompt. An answer that is held to a form has no room for thoughts: it has none."""
        tokenizer = self.loaded.tokenizer
        held = request.json_schema is not None or request.form is not None
        variables = {_THINKING: False} if held and _THINKING in str(tokenizer.chat_template) else {}
        text = render_prompt(
            tokenizer, request.messages, request.tools, date=self.date, variables=variables
        )
        closing = closing_of(text) if held else None
        return text if closing is None else f"{text.rstrip()}\n\n{closing}\n\n"

    def _prompts(self, texts: Sequence[str | ModelError]) -> list[list[int] | ModelError]:
        known = [text for text in texts if isinstance(text, str)]
        if not known:
            return [text for text in texts if isinstance(text, ModelError)]
        encoded = iter(
            self.loaded.tokenizer(known, add_special_tokens=False, verbose=False)["input_ids"]
        )
        return [list(next(encoded)) if isinstance(text, str) else text for text in texts]

    def _room(self, prompt: list[int] | ModelError) -> tuple[list[int], int]:
        """The prompt, and how many tokens of context it leaves.

        Raises:
            ModelError: none, or it has tokens that the model does not know.
        """
        if isinstance(prompt, ModelError):
            raise prompt
        room = self.loaded.context_length - len(prompt)
        if room < 1 or not prompt:
            raise ModelError(
                f"the prompt has {len(prompt):,} tokens, and the model's context is "
                f"{self.loaded.context_length:,}",
                hint=LONGER_CONTEXT,
            )
        require_embedded(self.loaded.tokenizer, prompt, self.loaded.embedded)
        return prompt, room

    def _row(self, request: Request, prompt: list[int] | ModelError) -> Row:
        from tunewise.models.decoding import Row

        tokens, room = self._room(prompt)
        return Row(
            prompt=tokens,
            budget=min(request.max_tokens, room),
            stop=(*request.stop, *self.loaded.stop),
            temperature=request.temperature,
            seed=f"{request.seed}:{request.key}" if request.temperature > 0 else "",
            guide=self._guide(request),
        )

    def _guide(self, request: Request) -> SchemaGuide | None:
        """What holds the answer to its form.

        Raises:
            SchemaError: the form cannot be enforced.
        """
        if request.json_schema is not None:
            return self._schemas.guide(request.json_schema)
        return self._schemas.form(request.form) if request.form is not None else None

    def _batches(self, rows: dict[int, Row]) -> Iterator[tuple[list[int], float, int]]:
        """Compute answers batch by batch: which rows, seconds a row, shared tokens a row."""
        need = {i: len(row.prompt) + row.budget for i, row in rows.items()}
        with self.loaded.using(self._adapter):
            sharing = [i for i in rows if self._decoder.can_share(need[i])]
        if sharing:
            tree = share_prefixes([rows[i].prompt for i in sharing])
            yield from self._walk(tree, sharing, rows, None, 0.0)
        lone = sorted(set(rows) - set(sharing))
        for batch in self._cut(lone, rows, self._limits, equal=self._decoder.window == 0):
            yield batch, self._run(batch, rows, None, shared=False), 0

    def _walk(
        self,
        node: SharedPrefix,
        index: Sequence[int],
        rows: dict[int, Row],
        parent: PrefixCache | None,
        overhead: float,
    ) -> Iterator[tuple[list[int], float, int]]:
        """Answer the rows of a node, then its children's; ``overhead`` is prefix time a row."""
        prefix = parent
        if node.end > node.start:
            began = time.perf_counter()
            tokens = rows[index[node.any_row]].prompt[node.start : node.end]
            with self.loaded.using(self._adapter):
                prefix = self._decoder.prefix(tokens, parent)
            overhead += (time.perf_counter() - began) / node.size
        for child in node.children:
            yield from self._walk(child, index, rows, prefix, overhead)
        mine = [index[i] for i in node.rows]
        for batch in self._cut(mine, rows, self._flat_limits, skip=node.end):
            yield batch, overhead + self._run(batch, rows, prefix, shared=True), node.end

    def _cut(
        self,
        chosen: Sequence[int],
        rows: dict[int, Row],
        limits: BatchLimits,
        *,
        skip: int = 0,
        equal: bool = False,
    ) -> list[list[int]]:
        lengths = {i: len(rows[i].prompt) - skip for i in chosen}
        budgets = {i: rows[i].budget for i in chosen}
        return list(cut_batches(chosen, lengths, budgets, limits, equal_lengths=equal))

    def _run(
        self,
        batch: Sequence[int],
        rows: dict[int, Row],
        prefix: PrefixCache | None,
        *,
        shared: bool,
    ) -> float:
        began = time.perf_counter()
        with self.loaded.using(self._adapter):
            self._decoder.run([rows[i] for i in batch], prefix, shared=shared)
        return (time.perf_counter() - began) / len(batch)

    def _completion(
        self, request: Request, row: Row, latency: float, cached: int, *, opened: bool
    ) -> Completion:
        text = decode_answer(self.loaded.tokenizer, row.ids, calls=bool(request.tools))
        ends = [at for s in row.stop if (at := text.find(s)) >= 0]
        text = text[: min(ends)] if ends else text
        said = split_thoughts("" if row.error else text, opened=opened)
        answer = said.answer
        calls: tuple[dict[str, object], ...] = ()
        if request.tools and not row.error:
            answer, calls = parse_tool_calls(said.answer, request.tools)
        return Completion(
            text=answer,
            tool_calls=calls,
            prompt_tokens=len(row.prompt),
            completion_tokens=row.generated,
            cached_tokens=cached,
            latency_s=latency,
            finish_reason="tool_calls" if calls else row.reason,
            error=row.error,
            request_key=request.key,
            thoughts=said.thoughts,
            unfinished=said.unfinished and not row.error,
        )

    def _failed(self, request: Request, error: ModelError) -> Completion:
        kind = "json_schema" if isinstance(error, SchemaError) else "prompt"
        return Completion(
            error=f"{kind}: {error.message}", advice=error.hint, request_key=request.key
        )


def _limits(loaded: LoadedModel, batch_tokens: int | None) -> BatchLimits:
    import torch

    config = loaded.model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * heads * size * loaded.dtype.itemsize
    if loaded.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(loaded.device)
        limits = BatchLimits(tokens=65536, rows=256, cache_tokens=max(1, free // 4 // per_token))
    else:
        rows = _STEP_WEIGHTS // loaded.model.num_parameters()
        limits = BatchLimits(
            rows=min(256, max(64, rows)), cache_tokens=max(1, _CACHE_BYTES // per_token)
        )
    return replace(limits, tokens=batch_tokens) if batch_tokens else limits
