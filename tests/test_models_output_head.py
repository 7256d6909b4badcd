"""The head of a 16-bit model gives exact logits where they decide."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models_support import save_model
from tunewise.data.chat import Request
from tunewise.models.loading import load_local
from tunewise.models.local_engine import LocalEngine
from tunewise.models.names import parse_model
from tunewise.models.output_head import sharpen


class OneHead(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.head.weight.data = weight

    def get_output_embeddings(self) -> nn.Linear:
        return self.head


def tied() -> tuple[OneHead, torch.Tensor]:
    """Two tokens whose logits are the same in bfloat16; the second is the higher one."""
    weight = torch.zeros(8, 4, dtype=torch.bfloat16)
    weight[2] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    weight[5] = torch.tensor([1.0, 1.0, 2.0**-9, 0.0])
    return OneHead(weight), torch.ones(1, 3, 4, dtype=torch.bfloat16)


def test_a_tie_of_bfloat16_is_broken_as_float32_breaks_it() -> None:
    model, hidden = tied()
    with torch.no_grad():
        assert model.head(hidden)[0, 0].argmax() == 2  # the tie, and the wrong one
        sharpen(model)
        sharpen(model)  # again: nothing changes
        found = model.head(hidden)
    assert found.dtype == torch.float32 and found.shape == (1, 3, 8)
    assert torch.equal(found, hidden.float() @ model.head.weight.float().T)
    assert (found.argmax(-1) == 5).all()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):  # as in training's answers
        assert torch.equal(model.head(hidden), found)


def test_training_and_float32_are_left_alone() -> None:
    model, hidden = tied()
    sharpen(model)
    assert model.head(hidden).dtype == torch.bfloat16  # gradients are on
    wide = OneHead(torch.randn(8, 4))
    sharpen(wide)
    inputs = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(wide.head(inputs), inputs @ wide.head.weight.T)


def test_the_highest_logits_of_a_model_are_exact(tmp_path: Path) -> None:
    loaded = load_local(parse_model(str(save_model(tmp_path / "model"))), dtype="bfloat16")
    LocalEngine(loaded)
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        hidden = loaded.model.get_decoder()(input_ids=ids).last_hidden_state.float()
        head = loaded.model.get_output_embeddings()
        exact = hidden @ head.weight.float().T
        found = loaded.model(ids).logits
    highest = exact.topk(8).indices
    assert torch.allclose(found.gather(-1, highest), exact.gather(-1, highest), atol=1e-5)
    assert torch.equal(found.argmax(-1), exact.argmax(-1))


def test_a_real_model_answers_as_in_float32(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct"
    request = Request(
        ({"role": "user", "content": "What is the capital of France?"},), max_tokens=8
    )
    answers = [
        LocalEngine(load_local(parse_model(str(folder)), dtype=dtype)).answer([request])[0].text
        for dtype in ("bfloat16", "float32")
    ]
    assert "Paris" in answers[0] and answers[0] == answers[1]
