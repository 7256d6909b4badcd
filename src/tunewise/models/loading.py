"""Loads a model and its tokenizer from files that cannot run anything."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewise.errors import ModelError
from tunewise.models.adapters import ADAPTER_FILES, WEIGHTS, Adapters
from tunewise.models.chat_format import PLAIN_STOP, PLAIN_TEMPLATE
from tunewise.models.names import ModelRef
from tunewise.models.raw_form import RAW_STOP, Form, raw_template
from tunewise.models.template_date import asks_for_date
from tunewise.models.trained_as import trained_as
from tunewise.models.weights import MODEL_FILES, locate, require_safetensors, revision_of
from tunewise.processes import prepare_computing
from tunewise.releases import import_failed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DType = Literal["auto", "float32", "bfloat16", "float16"]

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>", "<turn|>")
_PADS = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|endoftext|>", "<|fim_pad|>")


@dataclass(slots=True, weakref_slot=True, eq=False)
class LoadedModel:
    """A model in memory, shared by the engines that ask it with and without adapters.

    Attributes:
        name: under which its answers are recorded.
        model: ready to answer (``eval``), on ``device``.
        tokenizer: with a chat template: its own, or the plain one for base models.
        folder: where its files lie.
        revision: identifies weights, tokenizer and numeric type.
        context_length: most tokens of a conversation, answer included.
        end_ids: tokens that end an answer.
        stop: strings that end an answer (only with the plain template and raw text).
        pad_id: a token for padding that differs from all ``end_ids`` where the vocabulary has one,
            so that training on the end token survives the masking of padding.
        plain_template: the model brought no chat template.
        form: by which text of a conversation it is asked (``raw_form.py``).
        brought: the chat template that it came with.
        date: the day that a tuned model's template wrote as today's (``TrainedAs``).
        adapters: revisions of those attached, in the order of their loading.
        active: the one that is switched on.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    revision: str
    context_length: int
    end_ids: tuple[int, ...]
    stop: tuple[str, ...]
    pad_id: int
    plain_template: bool
    form: Form = "chat"
    brought: str | None = None
    date: str | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    active: str | None = None
    adapters: list[str] = field(default_factory=list)
    _switch: Adapters = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._switch = Adapters(self.model)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def asks_for_date(self) -> bool:
        """Whether its chat template writes the day's date."""
        return asks_for_date(self.tokenizer.chat_template)

    @property
    def embedded(self) -> int:
        """How many tokens the model has an embedding for: the ids below this number."""
        embedding: Any = self.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    def attach(self, adapter: Path) -> str:
        """Load a LoRA (or other peft) adapter beside the weights, switched off.

        The same files are loaded once; an adapter trained anew at the same place is another one.

        Returns:
            The adapter's name for ``using``, which also identifies its content.

        Raises:
            ModelError: for a missing or pickled adapter, or one made for another model.
        """
        if not (adapter / "adapter_config.json").is_file():
            raise ModelError("no adapter_config.json, so this is no adapter", where=str(adapter))
        require_safetensors(adapter, WEIGHTS)
        revision = revision_of(adapter, ADAPTER_FILES)
        with self.lock:
            if revision not in self.adapters:
                self._load_adapter(adapter, _adapter_name(revision))
                self.adapters.append(revision)
        return revision

    def _load_adapter(self, adapter: Path, name: str) -> None:
        try:
            self._switch.load(adapter, name)
        except ImportError as error:
            raise import_failed("An adapter", "local", error) from error
        except ModelError as error:
            raise ModelError(error.message, where=str(adapter), hint=error.hint) from error
        except Exception as error:  # peft raises what it pleases for a bad adapter
            raise ModelError(
                f"the adapter does not fit {self.name}: {_first_line(error)}",
                where=str(adapter),
                hint="Use it with the model that it was trained on.",
            ) from error
        self.active = None

    @contextlib.contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Hold the model with this adapter (or none) switched on; others wait."""
        with self.lock:
            if self.active != adapter:
                self._switch.use(None if adapter is None else _adapter_name(adapter))
                self.active = adapter
            yield


def load_local(
    ref: ModelRef,
    adapter: Path | None = None,
    dtype: DType = "auto",
    *,
    digest_file: Path | None = None,
    quantization: Any = None,
    form: Form | None = None,
) -> LoadedModel:
    """Load a model from a folder or the hub: safetensors only, and never code that comes with it.

    Args:
        ref: a local model (``parse_model``).
        adapter: also load this adapter (switched off; see ``LoadedModel.attach``).
        dtype: ``auto`` keeps the type that the weights were saved in, except that 16-bit weights
            become float32 on a processor without bfloat16 instructions.
        digest_file: where digests of large files are remembered.
        form: of the text by which it is asked; None is that of its training, else ``chat``.
        quantization: a configuration of transformers that holds the weights in fewer bits, on a
            GPU.

    Raises:
        ModelError: it is not there, cannot be read safely, or is of an unknown kind.
        TunewiseError: torch and transformers are not installed, or do not load.
    """
    prepare_computing()
    try:
        folder = locate(ref)  # first: a wrong name need not wait seconds for torch
        import torch
        import transformers
    except ImportError as error:
        raise import_failed(f"The model {ref.spec}", "local", error) from error
    from tunewise.models.quiet import quiet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    source: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **source)
            config = transformers.AutoConfig.from_pretrained(folder, **source)
            chosen = numeric_type(dtype, getattr(config, "dtype", None), device)
            if quantization is not None:
                source |= {"quantization_config": quantization, "device_map": {"": device}}
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, config=config, use_safetensors=True, dtype=chosen, **source
            )
            if quantization is None:  # else it lies in its place already
                model.to(device)  # type: ignore[arg-type]
            model.eval()  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise import_failed(f"The model {ref.spec}", "local", error) from error
    except Exception as error:  # a broken folder fails in many ways; each is the user's to mend
        hint = "Check that the folder is complete; `tunewise/tiny` shows what a good one holds."
        if "trust_remote_code" in str(error):
            hint = (
                "It needs code from its own folder, which Tunewise never runs. Use another model."
            )
        raise ModelError(
            f"the model cannot be loaded: {_first_line(error)}", where=str(folder), hint=hint
        ) from error
    model.requires_grad_(False)
    trained = trained_as(folder)
    raw = (form or trained.form) == "raw"
    brought = tokenizer.chat_template or None
    plain = brought is None and not raw
    if raw:
        tokenizer.chat_template = raw_template(tokenizer)
    elif plain:
        tokenizer.chat_template = PLAIN_TEMPLATE
    end_ids = _end_ids(model, tokenizer)
    suffix = "" if chosen == torch.float32 else f"-{str(chosen).removeprefix('torch.')}"
    suffix += "+raw" if raw else ""
    loaded = LoadedModel(
        name=ref.spec,
        model=model,
        tokenizer=tokenizer,
        folder=folder,
        revision=revision_of(folder, MODEL_FILES, digest_file) + suffix,
        context_length=_context_length(model, tokenizer),
        end_ids=end_ids,
        stop=RAW_STOP if raw else PLAIN_STOP if plain else (),
        pad_id=_pad_id(tokenizer, end_ids),
        plain_template=plain,
        form="raw" if raw else "chat",
        brought=brought,
        date=trained.date,
    )
    if adapter is not None:
        loaded.attach(adapter)
    return loaded


def weights_changed(loaded: LoadedModel) -> bool:
    """Whether the model's files were replaced since it was loaded."""
    return not loaded.revision.startswith(revision_of(loaded.folder, MODEL_FILES))


@cache
def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return False
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return bool({"amx_bf16", "avx512_bf16", "bf16"} & set(line.split()))
    return False


def numeric_type(wanted: DType, saved: Any, device: str) -> torch.dtype:
    """The type of a model's numbers in memory.

    Args:
        wanted: see ``load_local``.
        saved: the type that its configuration names.
        device: ``cuda`` or ``cpu``.
    """
    import torch

    if wanted != "auto":
        found: torch.dtype = getattr(torch, wanted)
        return found
    if saved not in (torch.bfloat16, torch.float16):
        return torch.float32
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if processor_has_bfloat16() else torch.float32


def _context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    config = model.config.get_text_config(decoder=True)
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    # Tokenizers without a limit say 10**30.
    sane = [int(limit) for limit in limits if limit and limit < 1 << 24]
    return min(sane, default=2048)


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """End-of-sequence ids, and the end of a turn where the template uses one.

    Many chat models on the hub name only the one or the other as their end token.
    """
    found: set[int] = set()
    for value in (
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        found.update([value] if isinstance(value, int) else value or ())
    vocabulary = tokenizer.get_vocab()
    template = str(tokenizer.chat_template or "")
    ends = [t for t in _TURN_ENDS if t in template and t in vocabulary]
    if "<|channel|>" in template:  # gpt-oss ends each thought so, and says its answer after that
        ends = [t for t in ends if t != "<|end|>"]
    found.update(vocabulary[t] for t in ends)
    return tuple(sorted(found))


def _pad_id(tokenizer: PreTrainedTokenizerBase, end_ids: tuple[int, ...]) -> int:
    vocabulary = tokenizer.get_vocab()
    candidates = [tokenizer.pad_token_id, *(vocabulary.get(t) for t in _PADS)]
    candidates.append(tokenizer.unk_token_id)
    distinct = [c for c in candidates if c is not None and c not in end_ids]
    pad = distinct[0] if distinct else (end_ids[0] if end_ids else 0)
    if tokenizer.pad_token_id != pad:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return int(pad)


def _adapter_name(revision: str) -> str:
    """Under which peft knows an adapter: a module's name, so it does not begin with a digit."""
    return f"a{revision}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300].rstrip(".")
