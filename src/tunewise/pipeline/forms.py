"""In which form a study's rows are trained and asked: by a chat template, or as bare text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunewise.data.chat import Example
from tunewise.models.names import ModelRef
from tunewise.models.raw_form import Form, has_chat_template, is_completions_name
from tunewise.models.trained_as import trained_as
from tunewise.models.weights import locate


def form_of(wanted: Form | None, ref: ModelRef, rows: Callable[[], Sequence[Example]]) -> Form:
    """What ``data.form`` says; else the form in which a model of this kind is asked.

    Rows of a prompt and its completion are raw for a model with the name of one of completions,
    and for one without a chat template; tuned weights keep the form of their training.

    Args:
        wanted: ``data.form`` of the study.
        ref: the model.
        rows: that are trained on, read only where it hangs on them.

    Raises:
        ModelError: when a local model is not there.
    """
    if wanted is not None:
        return wanted
    train = rows()
    if not len(train) or not train[0].completion:
        return "chat"
    if not ref.is_local:
        return "raw" if is_completions_name(ref.name) else "chat"
    folder = locate(ref)
    return trained_as(folder).form or ("chat" if has_chat_template(folder) else "raw")
