"""Answers from any server that speaks OpenAI's chat completions, or completions of bare text."""

from __future__ import annotations

import difflib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunewise.data.chat import Completion, Progress, Request, text_of
from tunewise.data.thoughts import split_thoughts
from tunewise.errors import ModelError, TunewiseError
from tunewise.models.engine import LONGER_CONTEXT, in_order
from tunewise.models.hosted_form import WRAPPING, is_strict, unwrapped, wrapped
from tunewise.models.openai_client import open_client, reason_of
from tunewise.models.raw_form import RAW_STOP, Form, raw_text
from tunewise.models.retry import Patience, retry_after
from tunewise.study.keys import without_keys

Spend = Callable[[Completion], None]
"""Told of every answer that was paid for; raises ``BudgetError`` to stop."""

_MOST_STOPS = 4
"""That the servers take."""
FIRST_FAILURES = 10
"""Failures in a row, before any answer, after which a server is asked no more."""
MOST_FAILURES = 50
"""The same after others were answered: a few rows may be refused, so many in a row are not that."""
_CHOSEN_BY_SERVER = ("temperature", "seed")
_FORM = "form"


class OpenAIEngine:
    """One model behind an OpenAI-shaped API.

    Args:
        base_url: for instance ``https://api.openai.com/v1``.
        model: the model's or deployment's name.
        api_key: sent to ``base_url`` and nowhere else; None for servers without keys.
        concurrency: requests under way at once.
        timeout: seconds for one attempt.
        patience: how long failed attempts are repeated.
        spend: told of each answer, in the caller's thread.
        azure_api_version: speak Azure's classic URLs with this version; without it, Azure's v1
            endpoint (``https://NAME.openai.azure.com/openai/v1``) is a server like any other.
        name: under which answers are recorded; the model's by default.
        key_name: the variable that holds the key, for error messages.
        entra: the key is a token of Microsoft Entra.
        form: ``raw`` asks ``/completions`` with bare text (``raw_form.py``).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        patience: Patience | None = None,
        spend: Spend | None = None,
        azure_api_version: str | None = None,
        name: str | None = None,
        key_name: str | None = None,
        entra: bool = False,
        form: Form = "chat",
    ) -> None:
        self.model = name or model
        self.revision = f"{model} at {base_url.rstrip('/')}" + ("+raw" if form == "raw" else "")
        self.form = form
        self.context_length: int | None = None  # servers do not say
        self.wraps = True  # what is held to a form comes in an object (``hosted_form``)
        self.notes: list[str] = []
        self._model = model
        self._key = api_key
        self._key_name = key_name
        self._concurrency = concurrency
        self._patience = patience or Patience()
        self._spend = spend
        self._client = open_client(
            base_url, model, api_key, timeout, azure_api_version, entra=entra
        )
        hosted = "openai.com" in base_url or "azure.com" in base_url
        new = hosted and form == "chat"
        self._length_field = "max_completion_tokens" if new else "max_tokens"
        self._left_out: set[str] = set()
        self._adapting = threading.Lock()
        self._reached = threading.Event()
        self._answered, self._in_a_row = False, 0

    def answer(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[Completion]:
        """Answer all requests, in order; see ``Engine.answer``.

        Raises:
            ModelError: wrong key, no such model, a server that cannot be reached at all, or one
                whose every answer is a failure (``FIRST_FAILURES``, ``MOST_FAILURES``).
            BudgetError: from ``spend``; requests already under way may still be billed.
        """
        return in_order(self.iterate(requests), len(requests), progress)

    def iterate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answer as ``answer`` does, giving ``(index, completion)`` as they come."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(requests)):
            waiting.put(index)
        done: queue.SimpleQueue[tuple[int, Completion | BaseException]] = queue.SimpleQueue()
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((index, self._one(requests[index], stop)))
                except BaseException as error:  # handed to the caller's thread
                    done.put((index, error))

        # Daemons: after Ctrl-C the program ends without waiting for a slow server.
        for _ in range(min(self._concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in range(len(requests)):
                index, outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                self._count(outcome)
                yield index, outcome
                if self._spend is not None and outcome.error is None:
                    self._spend(outcome)
        finally:
            stop.set()

    def count_tokens(self, messages: Sequence[dict[str, object]]) -> int:
        """About how many tokens: four characters each, and four for each message's frame.

        A server's tokenizer is not known here; the usage in completions is exact.
        """
        return sum(4 + (len(text_of(m)) + 3) // 4 for m in messages)

    def close(self) -> None:
        self._client.close()

    def _count(self, outcome: Completion) -> None:
        """Stop where nothing but failures comes: what follows would fail as well, and the time
        that each is repeated for would be waited once more."""
        if outcome.error is None:
            self._answered, self._in_a_row = True, 0
            return
        self._in_a_row += 1
        if self._in_a_row < (MOST_FAILURES if self._answered else FIRST_FAILURES):
            return
        count, self._in_a_row = self._in_a_row, 0
        ever = "and none was answered" if not self._answered else "after others were answered"
        raise ModelError(
            f"{count} requests in a row failed, {ever}; the last: {outcome.error}",
            where=self.revision,
            hint="Mend that and run again: answers that came are kept. For a look at one answer: "
            f"tunewise chat {self.model}",
        )

    def _one(self, request: Request, stop: threading.Event) -> Completion:
        """One answer, repeated while the failure may pass."""
        import openai

        attempts = self._patience.start()
        while True:
            body = self._body(request)
            began = time.perf_counter()
            try:
                reply = self._ask(body)
                self._reached.set()
                return self._completion(request, reply, time.perf_counter() - began)
            except openai.APIConnectionError as error:
                reason, wait = self._reason(error), None
                if not self._reached.is_set() and attempts.count >= 2:
                    raise self._unreachable(error) from None
            except openai.APIStatusError as error:
                self._reached.set()
                if self._adapted(error, request, body):
                    continue
                self._raise_if_hopeless(error)
                reason, wait = self._reason(error), retry_after(error.response.headers)
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    return Completion(error=reason, advice=_advice(error), request_key=request.key)
            except TunewiseError:
                raise
            except Exception as error:  # replies that are no chat completion fail in many ways
                self._reached.set()
                return Completion(
                    error=f"the reply is no chat completion: {self._reason(error)}",
                    advice="Look at one answer with `tunewise chat`: the server speaks another API "
                    "than its `base_url` should.",
                    request_key=request.key,
                )
            pause = attempts.next_pause(wait)
            if pause is None or stop.wait(pause):
                return Completion(
                    error=f"{reason} (after {attempts.count} attempts)",
                    advice="Run again when the server is free: only these are asked. A lower "
                    "`concurrency` of the server may help.",
                    request_key=request.key,
                )

    def _ask(self, body: Mapping[str, Any]) -> Any:
        if self.form == "raw":
            return self._client.completions.create(**body)
        return self._client.chat.completions.create(**body)

    def _raw_body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": raw_text(request.messages),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "stop": [*request.stop, *RAW_STOP][:_MOST_STOPS],
        }
        if request.seed is not None:
            body["seed"] = request.seed
        return {k: v for k, v in body.items() if k not in self._left_out}

    def _body(self, request: Request) -> dict[str, Any]:
        if self.form == "raw":
            return self._raw_body(request)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{k: v for k, v in m.items() if k != "weight"} for m in request.messages],
            "temperature": request.temperature,
            self._length_field: request.max_tokens,
        }
        if request.tools:
            body["tools"] = [dict(tool) for tool in request.tools]
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        schema = self._schema(request)
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": is_strict(schema)},
            }
        if schema is not None and request.form is not None:
            body[self._length_field] += WRAPPING
        return {k: v for k, v in body.items() if k not in self._left_out}

    def _schema(self, request: Request) -> Mapping[str, Any] | None:
        """The schema to send; a form's is left out where this server takes none."""
        if request.json_schema is not None:
            return dict(request.json_schema)
        if request.form is None or _FORM in self._left_out:
            return None
        return wrapped(request.form)

    def _completion(self, request: Request, reply: Any, latency: float) -> Completion:
        choice, usage = reply.choices[0], reply.usage
        calls: tuple[dict[str, Any], ...] = ()
        thoughts = ""
        if self.form == "raw":
            text = choice.text
        else:
            message = choice.message
            refusal = getattr(message, "refusal", None)
            text = message.content or refusal or ""
            thoughts = _thoughts_of(message)
            calls = tuple(_call(call) for call in message.tool_calls or ())
        if not isinstance(text, str):
            raise TypeError(f"content is {type(text).__name__}")
        details = getattr(usage, "prompt_tokens_details", None)
        said = split_thoughts(text)
        if request.form is not None and request.json_schema is None and not calls:
            said = replace(said, answer=unwrapped(said.answer, request.form))
        cut = choice.finish_reason == "length" and not text and not calls
        return Completion(
            text=without_keys(said.answer),
            tool_calls=calls,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            cached_tokens=getattr(details, "cached_tokens", None),
            latency_s=latency,
            finish_reason=choice.finish_reason,
            request_key=request.key,
            thoughts=without_keys(said.thoughts or thoughts),
            unfinished=said.unfinished or (cut and (bool(thoughts) or _thought_tokens(usage) > 0)),
        )

    def _adapted(self, error: Any, request: Request, body: Mapping[str, Any]) -> bool:
        """Whether the request was changed to what this model takes (reasoning models take less)."""
        if error.status_code != 400:
            return False
        field = getattr(error, "param", None)
        text = str(error.message).lower()
        if self._form_refused(field, text, request, body):
            return True
        if field is None or not ("support" in text or "unrecognized" in text):
            return False
        lengths = ("max_tokens", "max_completion_tokens")
        with self._adapting:
            if field in body and field not in self._left_out:
                if field in lengths and field == self._length_field:
                    other = lengths[1 - lengths.index(field)]
                    if other in self._left_out:
                        return False  # refuses both; without any, answers would have no end
                    self._left_out.add(field)
                    self._length_field = other
                    return True
                if field in _CHOSEN_BY_SERVER:
                    self._left_out.add(field)
                    self.notes.append(f"{self._model} does not take `{field}`; it was left out")
                    return True
            # Sent before another thread's request changed it: the next attempt is without.
            return field in body and field in self._left_out

    def _form_refused(
        self, field: str | None, text: str, request: Request, body: Mapping[str, Any]
    ) -> bool:
        """Whether the server takes no form of answers that only we want: then it is left out."""
        if request.form is None or request.json_schema is not None:
            return False
        if "response_format" not in body or not any(
            word in f"{field or ''} {text}" for word in ("response_format", "schema", "grammar")
        ):
            return False
        with self._adapting:
            if _FORM not in self._left_out:
                self._left_out.add(_FORM)
                self.notes.append(
                    f"{self._model} cannot be held to a form of answers (`response_format`); it "
                    "was asked without"
                )
        return True

    def _raise_if_hopeless(self, error: Any) -> None:
        """Raise for what no repetition and no other request can mend."""
        where = self.revision
        reason = self._reason(error)
        if error.status_code in (401, 403):
            name = self._key_name or "the server's `api_key`"
            raise ModelError(
                f"the server refused the key: {reason}",
                where=where,
                hint=f"Check {name}: is it set, for this host, and allowed to use this model?",
            ) from None
        if error.status_code == 404:
            raise ModelError(
                f"no such model there: {reason}", where=where, hint=self._models_hint()
            ) from None
        if error.status_code == 429 and getattr(error, "code", None) == "insufficient_quota":
            raise ModelError(
                f"the account has no credit left: {reason}",
                where=where,
                hint="Add credit with the provider and run again; kept answers are not asked for "
                "a second time.",
            ) from None
        if 300 <= error.status_code < 400:
            raise ModelError(
                "the server sends elsewhere, which is not followed (the key belongs to this host)",
                where=where,
                hint="Write the final address as `base_url`.",
            ) from None

    def _unreachable(self, error: Exception) -> ModelError:
        return ModelError(
            f"the server cannot be reached: {self._reason(error)}",
            where=self.revision,
            hint="Is it running, and is `base_url` right (most end in /v1)?",
        )

    def _models_hint(self) -> str:
        try:
            names = [m.id for m in self._client.models.list()]
        except Exception:
            return "Check the model's name, and that `base_url` ends as the server wants (/v1)."
        near = difflib.get_close_matches(self._model, names, n=3, cutoff=0.3) or names[:5]
        return f"The server has {', '.join(near)}." if near else "The server lists no models."

    def _reason(self, error: Exception) -> str:
        return reason_of(error, self._key)


def _advice(error: Any) -> str:
    """What to do about a request that the server refuses, by the codes of OpenAI's API."""
    code = getattr(error, "code", None)
    if code == "context_length_exceeded":
        return LONGER_CONTEXT
    if code in ("content_filter", "content_policy_violation"):
        return "The provider refuses what these rows hold: leave them out, or ask another model."
    return "The server refuses these requests as they are: mend what it names in them."


def _call(call: Any) -> dict[str, Any]:
    """A tool call as JSON values; a key that the model echoes is kept out of it, too."""
    value = call.model_dump(exclude_none=True)
    function = value.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        function["arguments"] = without_keys(function["arguments"])
    return value  # type: ignore[no-any-return]


def _thoughts_of(message: Any) -> str:
    """What the server itself has taken apart as thoughts, by the names that servers give it."""
    found = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text.strip() for text in found if isinstance(text, str)), "")


def _thought_tokens(usage: Any) -> int:
    """Tokens of thoughts that the server does not show."""
    details = getattr(usage, "completion_tokens_details", None)
    return getattr(details, "reasoning_tokens", None) or 0
