"""One model's requests: who is read in next, who runs, and what each step's tokens mean.

A step is one forward pass over all running rows and as much of new prompts as fits beside them, so
that a long prompt delays running answers by little (chunked prefill, Sarathi-Serve, 2403.02310).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from tunewise.server.inference.backend import Part, Stepped
from tunewise.server.inference.memory import OutOfMemory
from tunewise.server.inference.protocol import Done, Event, Failed, Piece, TokenLogprob
from tunewise.server.inference.sampling import choose, logprobs_of
from tunewise.server.inference.sequence import RequestState, Sequence
from tunewise.server.inference.serving import Serving

Emit = Callable[[str, Event], None]
"""``emit(request id, event)``."""

_LOGIT_ELEMENTS = 1 << 24
"""Most logits computed at once for an echoed prompt's log-probabilities."""


class Runner:
    """Answers the requests of one model.

    Args:
        serving: the model.
        emit: takes events.
        ended: called with each request that is over.
        free: frees a little memory held by other models; False when there is none.
        rows: most rows that are computed at once.
        chunk: most tokens of new prompts in one step.
    """

    def __init__(
        self,
        serving: Serving,
        emit: Emit,
        ended: Callable[[RequestState], None],
        free: Callable[[], bool],
        rows: int,
        chunk: int,
    ) -> None:
        self._serving, self._backend = serving, serving.backend
        self._emit, self._ended, self._free = emit, ended, free
        self._rows, self._chunk = rows, chunk
        self._echo_chunk = max(1, min(chunk, _LOGIT_ELEMENTS // serving.vocabulary))
        self._waiting: deque[Sequence] = deque()
        self._reading: list[Sequence] = []
        self._requests: dict[str, RequestState] = {}
        self._end_ids = serving.end_ids
        self._age = 0

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    @property
    def requests(self) -> list[RequestState]:
        return list(self._requests.values())

    def add(self, request: RequestState) -> None:
        """Take a request in."""
        self._requests[request.id] = request
        if request.warning:
            self._emit(request.id, Piece(0, "", warning=request.warning))
        # The other choices follow when the prompt is read, and find it kept.
        self._waiting.append(request.sequences[0])

    def cancel(self, id: str) -> None:
        """Stop a request; nothing more is told of it."""
        request = self._requests.get(id)
        if request is not None:
            self._close(request, None)

    def step(self) -> None:
        """One forward pass, and what follows from it."""
        self._admit()
        self._make_room()
        parts = self._parts()
        if not parts and not self._backend.running:
            return
        stepped = self._backend.step(parts)
        self._prompt_logprobs(parts, stepped)
        self._choose(parts, stepped)

    def _admit(self) -> None:
        while self._waiting and len(self._reading) + len(self._backend.running) < self._rows:
            row = self._waiting[0]
            row.end = len(row.tokens)
            request = row.request
            fresh = not row.started and row.choice == 0
            try:
                self._with_memory(
                    lambda row=row, reuse=not (fresh and request.wants_prompt_logprobs): (  # type: ignore[misc]
                        self._backend.begin(row, reuse=reuse)
                    )
                )
            except OutOfMemory:
                if self._reading or self._backend.running:
                    return
                self._fail_for_memory(request)
                continue
            self._waiting.popleft()
            if fresh:
                request.cached_tokens = row.fed
            self._age += 1
            row.age = self._age
            self._reading.append(row)

    def _make_room(self) -> None:
        for row in self._backend.running:
            while row.held is not None:
                try:
                    self._with_memory(lambda row=row: self._backend.make_room(row))  # type: ignore[misc]
                    break
                except OutOfMemory:
                    # The youngest goes back and is read in again later: least work is lost.
                    last = max(self._backend.running, key=lambda r: r.age)
                    if last is row and len(self._backend.running) == 1 and not self._reading:
                        self._fail_for_memory(row.request)
                        break
                    self._put_back(last)

    def _put_back(self, row: Sequence) -> None:
        self._backend.drop(row)
        self._waiting.appendleft(row)

    def _with_memory(self, action: Callable[[], None]) -> None:
        while True:
            try:
                return action()
            except OutOfMemory:
                if not self._backend.shrink() and not self._free():
                    raise

    def _parts(self) -> list[Part]:
        left, parts = self._chunk, []
        for row in self._reading:
            if left <= 0:
                break
            every = row.choice == 0 and not row.started and row.request.wants_prompt_logprobs
            end = row.end
            if self._backend.cuts_prompts:
                end = min(end, row.fed + min(left, self._echo_chunk if every else left))
            left -= end - row.fed
            parts.append(Part(row, end, "all" if every else "last" if end == row.end else "none"))
        return parts

    def _prompt_logprobs(self, parts: list[Part], stepped: Stepped) -> None:
        for part, logits in zip(parts, stepped.parts, strict=True):
            if part.logits != "all":
                continue
            row, request = part.row, part.row.request
            start = part.end - logits.shape[0]
            found = request.prompt_logprobs
            top = request.sampling.logprobs or 0
            if start == 0:
                found.append(TokenLogprob(*self._serving.texts(row.tokens[0]), float("nan"), ()))
            targets = row.tokens[start + 1 : part.end + 1]
            if targets:
                found += logprobs_of(
                    logits[: len(targets)], targets, [top] * len(targets), self._serving.texts
                )

    def _choose(self, parts: list[Part], stepped: Stepped) -> None:
        rows, logits = list(stepped.rows), [stepped.logits]
        for part, found in zip(parts, stepped.parts, strict=True):
            if part.end == part.row.end:
                self._read(part.row)
                if part.row.held is not None:
                    rows.append(part.row)
                    logits.append(found[-1:])
        if not rows:
            return
        joined = torch.cat(logits) if len(logits) > 1 else logits[0]
        told = [i for i, r in enumerate(rows) if r.request.sampling.logprobs is not None]
        raw = joined[told] if told else joined
        tokens = choose(joined, rows)
        logprobs: dict[int, TokenLogprob] = {}
        if told:
            counts = [rows[i].request.sampling.logprobs or 0 for i in told]
            chosen = logprobs_of(raw, [tokens[i] for i in told], counts, self._serving.texts)
            logprobs = dict(zip(told, chosen, strict=True))
        read = len(stepped.rows)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if self._take(row, token, logprobs.get(i)) and i >= read:
                try:
                    self._with_memory(lambda row=row: self._backend.admit(row))  # type: ignore[misc]
                except OutOfMemory:
                    self._put_back(row)

    def _read(self, row: Sequence) -> None:
        """A prompt is read in: keep it, let the request's other choices follow."""
        self._reading.remove(row)
        self._backend.keep(row)
        request = row.request
        if row.started:
            return
        row.started = True
        if row.choice == 0:
            self._waiting.extendleft(reversed(request.sequences[1:]))
        if request.echo is not None:
            told = tuple(request.prompt_logprobs)
            self._emit(request.id, Piece(row.choice, request.echo, told))
        if request.budget == 0:
            self._finish(row, "", (), "length")

    def _take(self, row: Sequence, token: int, logprob: TokenLogprob | None) -> bool:
        """Add a token to an answer; False when that is at its end."""
        request = row.request
        if request.cancelled:
            return False
        row.tokens.append(token)
        request.completion_tokens += 1
        if row.guide is not None:
            row.guide.accept(token)
            if row.guide.error:
                why = row.guide.error.splitlines()[0]
                self._close(request, Failed(f"the JSON Schema was lost: {why}", "invalid_schema"))
                return False
        if token in self._end_ids:
            self._finish(row, "", (), "stop")
            return False
        if row.counts is not None:
            row.counts[token] = row.counts.get(token, 0) + 1
        if row.seen is not None:
            row.seen.add(token)
        text = row.text.add(token)
        thoughts = row.text.take_thoughts()
        told = (logprob,) if logprob is not None else ()
        if row.text.stopped or (row.guide is not None and row.guide.complete):
            self._finish(row, text, told, "stop", thoughts)
        elif row.generated >= request.budget:
            self._finish(row, text, told, "length", thoughts)
        else:
            if text or told or thoughts:
                self._emit(request.id, Piece(row.choice, text, told, thoughts=thoughts))
            return True
        return False

    def _finish(
        self,
        row: Sequence,
        text: str,
        told: tuple[TokenLogprob, ...],
        reason: str,
        thoughts: str = "",
    ) -> None:
        rest, calls = row.text.finish(cut=reason == "length")
        thoughts += row.text.take_thoughts()
        request = row.request
        reason = "tool_calls" if calls and not row.text.cut_in_call else reason
        self._emit(
            request.id, Piece(row.choice, text + rest, told, reason, calls, thoughts=thoughts)
        )
        self._backend.drop(row)
        request.open -= 1
        if request.open == 0:
            done = Done(len(request.prompt), request.completion_tokens, request.cached_tokens)
            self._close(request, done)

    def _close(self, request: RequestState, last: Event | None) -> None:
        request.cancelled = True
        for row in request.sequences:
            if row.held is not None:
                self._backend.drop(row)
        self._waiting = deque(r for r in self._waiting if r.request is not request)
        self._reading = [r for r in self._reading if r.request is not request]
        del self._requests[request.id]
        if last is not None:
            self._emit(request.id, last)
        self._ended(request)

    def fail_all(self, failed: Failed) -> None:
        """End all requests."""
        for request in self.requests:
            self._close(request, failed)

    def _fail_for_memory(self, request: RequestState) -> None:
        self._close(
            request,
            Failed(
                "the keys and values of this conversation need more memory than the engine may "
                "take; shorten it, or raise the limit in the server's settings",
                "context_length_exceeded",
            ),
        )
