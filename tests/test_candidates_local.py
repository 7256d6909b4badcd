"""Candidates with a real model on this machine and real rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from candidates_kit import jsonl
from tunewise.candidates.base import Candidate
from tunewise.candidates.build import build_candidate
from tunewise.candidates.context import BuildContext
from tunewise.candidates.prompting import Limits, answer_limit, text_counter
from tunewise.data.chat import Example
from tunewise.scoring.registry import get_scorer
from tunewise.study.schema import CandidateSpec


def test_recipes_with_a_pretrained_model(shared: Path) -> None:
    """Too weak to follow instructions; but every row is asked, answered and accounted for."""
    pytest.importorskip("torch")
    from tunewise.models.loading import load_local
    from tunewise.models.local_engine import LocalEngine
    from tunewise.models.names import parse_model

    values = jsonl(shared / "data" / "recipes" / "train.jsonl")
    rows = [Example(f"r{i}", tuple(v["messages"])) for i, v in enumerate(values)]
    short = sorted(rows, key=lambda row: len(row.user_text))[:16]
    model = parse_model(str(shared / "models" / "stories260k-hf"))
    engine = LocalEngine(load_local(model), threads=1)
    try:
        limit = answer_limit(short, text_counter(engine.count_tokens))
        assert 16 <= limit <= 300
        context = BuildContext(
            scorer=get_scorer("list_f1"), limits=Limits(max_tokens=8), engine=engine
        )
        for kind, more in (("zero_shot", {}), ("few_shot", {"k": [1], "orders": 1})):
            spec = CandidateSpec.model_validate({"name": kind, "kind": kind, **more})
            candidate: Candidate = build_candidate(spec, context=context)
            fitted = candidate.fit(short[:12], short[12:])
            chosen = fitted.chosen()
            assert 0.0 <= chosen["dev_score"] <= 1.0
            assert fitted.dev_completions is not None and len(fitted.dev_completions) == 4
            assert all(c.prompt_tokens for c in fitted.dev_completions if c.error is None)
            assert [c.text for c in fitted.answer(short[12:])] == [
                c.text for c in fitted.dev_completions
            ]
    finally:
        engine.close()
