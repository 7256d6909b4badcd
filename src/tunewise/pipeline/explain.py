"""What the numbers mean in words: the checklist, the worked examples, the next steps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

from tunewise.data.chat import Example, answer_of, text_of
from tunewise.data.thoughts import UNFINISHED
from tunewise.pipeline.store import Item
from tunewise.report.document import Answer, CandidateRow, Verdict, WorkedAnswer, WorkedExample
from tunewise.study.schema import CandidateSpec, Study
from tunewise.verdict.planning import MOST_LOOKS
from tunewise.verdict.sentence import chance, rounded
from tunewise.words import level, plural

_MOST_EXAMPLES = 6
_NOTHING_FIT = "Use none of these: try a better prompt, a larger model, or more and better data."


def checklist(study: Study, verdict: Verdict, specs: Sequence[CandidateSpec]) -> list[Answer]:
    """The questions to ask before fine-tuning, each answered from what was measured."""
    return [
        Answer(
            group="use_case",
            question="What is the use case?",
            answer=study.use_case or "Not stated. Add `use_case` to the study file.",
            ok=bool(study.use_case) or None,
        ),
        _in("alternatives", _alternatives(verdict.candidates, specs)),
        _in("costs", _tunable(study, verdict)),
        _in("costs", _effort(study)),
        _in("costs", _compute(verdict)),
        _in("costs", _data(verdict)),
        _in("benefits", _quality(verdict)),
        _in("benefits", _tokens(verdict)),
        _in("benefits", _reuse(verdict)),
    ]


def _in(group: Literal["alternatives", "costs", "benefits"], answer: Answer) -> Answer:
    return answer.model_copy(update={"group": group})


def _alternatives(rows: Sequence[CandidateRow], specs: Sequence[CandidateSpec]) -> Answer:
    tried = [r for r in rows if not (r.fine_tuned or r.constant) and r.score is not None]
    question = "Have prompting and retrieval been tried, and measured?"
    if not tried:
        return Answer(question=question, answer="No alternative was measured.", ok=False)
    parts = ", ".join(f"{r.name} {r.score:.1f}" for r in tried)
    others = [s.traits for s in specs if not s.is_fine_tuned]
    shown = any(traits.shows_examples for traits in others)
    found = any(traits.retrieves for traits in others)
    text = f"Yes: {parts} points.{_prompts(tried)}"
    names = {r.name for r in tried}
    recorded = all(s.traits.recorded for s in specs if s.name in names)
    missing = [kind for kind, there in (("few_shot", shown), ("rag", found)) if not there]
    if missing and not recorded:
        text += f" Not among them: {', '.join(missing)}."
    return Answer(question=question, answer=text, ok=recorded or shown)


def _prompts(rows: Sequence[CandidateRow]) -> str:
    """How many prompts were tried, and to what form the answers were held."""
    counts = [f"{r.name} {n}" for r in rows if (n := r.chosen.get("prompts_tried"))]
    text = f" Prompts tried on dev: {', '.join(counts)}." if counts else ""
    forms = dict.fromkeys(form for r in rows if (form := r.chosen.get("held_to")))
    if forms:
        text += f" Their answers were held to {' or '.join(forms)} (`output.constrain`)."
    return text


def _tunable(study: Study, verdict: Verdict) -> Answer:
    question = "Can the model be fine-tuned?"
    if verdict.training:
        run = verdict.training[0]
        text = f"Yes: {run.model} was tuned here by the {run.route} route ({run.method})."
        return Answer(question=question, answer=text, ok=True)
    if any(r.fine_tuned for r in verdict.candidates):
        return Answer(question=question, answer="Yes: tuned answers were given.", ok=True)
    name = study.model or "the model"
    return Answer(question=question, answer=f"Not tried with {name} in this study.", ok=None)


def _effort(study: Study) -> Answer:
    hours, hour = study.costs.hours, study.costs.hour
    question = "How much effort does it take?"
    if hours is None:
        return Answer(question=question, answer="Unknown. Set `costs.hours` and `costs.hour`.")
    text = f"{hours:g} engineer hours"
    if hour is not None:
        text += f", {hours * hour:,.0f} US dollars"
    return Answer(question=question, answer=text + f"; {_retrains(study)}.")


def _retrains(study: Study) -> str:
    times = study.costs.retrains_per_year
    return f"trained again {times:g} time{'' if times == 1 else 's'} a year"


def _compute(verdict: Verdict) -> Answer:
    question = "How much compute does it take?"
    runs = [r for r in verdict.training if r.seconds is not None]
    if not runs:
        return Answer(question=question, answer="Nothing was trained here.")
    seconds = sum(r.seconds or 0.0 for r in runs)
    memory = max((r.peak_memory_mb or 0.0) for r in runs)
    text = f"{len(runs)} training run{'s' if len(runs) != 1 else ''}, {seconds:.0f} s in all"
    if memory:
        text += f", at most {memory:,.0f} MB of memory"
    return Answer(question=question, answer=text + ".")


def _data(verdict: Verdict) -> Answer:
    rows = verdict.audit.rows
    errors = [f for f in verdict.audit.findings if f.severity == "error"]
    text = ", ".join(f"{n:,} {split}" for split, n in rows.items()) or "no rows of our own"
    text = f"{text}."
    if errors:
        text += f" The audit found errors: {'; '.join(f.message for f in errors[:2])}"
    curve = verdict.learning_curve
    if curve.more_data is not None:
        text += " More data would help." if curve.more_data else " More data would not help much."
    return Answer(question="Is there enough good data?", answer=text, ok=not errors)


def _quality(verdict: Verdict) -> Answer:
    question = "Is the quality better than the best baseline?"
    primary = verdict.primary
    if primary.gain is None or primary.interval is None:
        return Answer(question=question, answer="Not measured on the test rows.")
    low, high = primary.interval
    wanted = primary.minimal_gain or 0.0
    text = (
        f"{primary.gain:+.1f} points against {primary.without} "
        f"({level(1 - primary.level / 100)} interval {low:+.1f} to {high:+.1f}); "
        f"{wanted:g} were asked for."
    )
    ok = True if low > wanted else (False if high <= wanted else None)
    return Answer(question=question, answer=text, ok=ok)


def _tokens(verdict: Verdict) -> Answer:
    question = "Does it take fewer tokens?"
    by_name = {r.name: r for r in verdict.candidates}
    with_ = by_name.get(verdict.primary.with_ or "")
    without = by_name.get(verdict.primary.without or "")
    if (
        with_ is None
        or without is None
        or with_.tokens_per_request is None
        or without.tokens_per_request is None
    ):
        return Answer(question=question, answer="Unknown: one of the two counts no tokens.")
    a, b = with_.tokens_per_request, without.tokens_per_request
    text = f"{a:,.0f} tokens a request against {b:,.0f} with {without.name}."
    return Answer(question=question, answer=text, ok=a < b)


def _reuse(verdict: Verdict) -> Answer:
    question = "Can the result be used elsewhere?"
    tuned = [r.tuned_model for r in verdict.training if r.tuned_model]
    if not tuned:
        return Answer(question=question, answer="There is no tuned model.")
    kept = {
        "passed": "what it could do before is kept",
        "failed": "it lost some of what it could do before",
        "unproven": "whether it kept what it could do before is not proven",
        "unmeasured": "whether it kept what it could do before was not measured",
    }[verdict.forgetting.status]
    ok = {"passed": True, "failed": False}.get(verdict.forgetting.status)
    return Answer(question=question, answer=f"The weights are yours; {kept}.", ok=ok)


def worked_examples(
    examples: Mapping[str, Example],
    items: Mapping[str, Sequence[Item]],
    primary: tuple[str | None, str | None],
) -> list[WorkedExample]:
    """Test rows where the candidates differ, the two champions' differences first.

    Args:
        examples: by id.
        items: of each candidate, on test.
        primary: names of the champion with and without fine-tuning.
    """
    scores = {name: {i.id: i for i in rows} for name, rows in items.items()}
    with_, without = primary
    ranked: list[tuple[float, str]] = []
    for id_ in examples:
        found = [by_id[id_].score for by_id in scores.values() if id_ in by_id]
        if len(found) < 2 or max(found) == min(found):
            continue
        gap = 0.0
        if with_ in scores and without in scores:
            one, other = scores[with_].get(id_), scores[without].get(id_)
            if one is not None and other is not None:
                gap = one.score - other.score
        ranked.append((gap, id_))
    better = sorted((r for r in ranked if r[0] > 0), key=lambda r: (-r[0], r[1]))
    worse = sorted((r for r in ranked if r[0] < 0), key=lambda r: (r[0], r[1]))
    same = sorted((r for r in ranked if r[0] == 0), key=lambda r: r[1])
    half = _MOST_EXAMPLES // 2
    chosen = (better[:half] + worse[:half] + same + better[half:] + worse[half:])[:_MOST_EXAMPLES]
    return [
        WorkedExample(
            id=id_,
            input=shown_input(examples[id_]),
            wanted=shown_wanted(examples[id_]),
            answers=[
                WorkedAnswer(
                    candidate=name,
                    text=shown_answer(by_id[id_]),
                    thoughts=by_id[id_].thoughts or None,
                    score=by_id[id_].points,
                )
                for name, by_id in scores.items()
                if id_ in by_id
            ],
        )
        for _, id_ in chosen
    ]


def shown_wanted(row: Example) -> str:
    return " · or: ".join([row.answer, *map(answer_of, row.references)])


def shown_input(example: Example) -> str:
    return example.user_text or "\n".join(text_of(m) for m in example.prompt)


def shown_answer(item: Item) -> str:
    if item.error:
        return f"(failed: {item.error})"
    if item.answer:
        return item.answer
    if item.details.get("reason") == UNFINISHED:
        return f"(none: {UNFINISHED})"
    return "; ".join(
        f"{c.get('function', {}).get('name')}({c.get('function', {}).get('arguments')})"
        for c in item.tool_calls
    )


def next_steps(
    study: Study,
    verdict: Verdict,
    specs: Sequence[CandidateSpec] = (),
    command: Sequence[str] = (),
) -> list[str]:
    """What to do now, most useful first.

    Args:
        specs: the candidates. command: the arguments that name this study to a command; empty
            where it is no file, and so no command can name it.
    """
    steps: list[str] = []
    used = next((spec for spec in specs if spec.name == verdict.use), None)
    asked = used is not None and not used.traits.recorded and bool(command)
    if verdict.verdict == "FINE_TUNE":
        if asked:
            steps.append(_try_it(command))
        tuned = [r for r in verdict.training if r.candidate == verdict.use and r.tuned_model]
        if tuned:
            steps.append(f"The tuned weights: {tuned[0].tuned_model}")
        if verdict.cost.status == "unknown":
            steps.append("Add `costs.prices` and `traffic` to the study to see what it saves.")
        if verdict.forgetting.status == "unmeasured" and not study.only_recorded:
            steps.append("Forgetting was not measured; list rows that must not break.")
    elif verdict.verdict == "DO_NOT_FINE_TUNE":
        if verdict.use:
            steps.append(f"Ship {verdict.use}.")
            steps += [_try_it(command)] if asked else []
        else:
            steps.append(_NOTHING_FIT)
        if "forgetting" in verdict.because:
            steps.append(
                "Forgetting alone kept the tuned model back: where the skills it lost do not "
                "matter, set `forgetting.veto: false`."
            )
        if verdict.learning_curve.more_data:
            steps.append("More training rows may change this: the learning curve still rises.")
    elif verdict.verdict == "UNDECIDED":
        needed, likely = verdict.primary.labels_needed, verdict.primary.labels_chance
        if needed and likely is not None:
            more = needed - (verdict.test.n or 0)
            others = ", of other questions," if verdict.test.repeated else ""
            if more > 0:
                steps.append(
                    f"Label about {plural(rounded(more), 'more test row')}{others} and run again: "
                    f"with them the test decides with {chance(likely)} chance if the gain is as "
                    "measured."
                )
        if (verdict.test.opened or 1) >= MOST_LOOKS and verdict.primary.gain is not None:
            steps.append(
                f"Test on new rows that no study has opened: {MOST_LOOKS} looks at the same ones "
                "are all that can decide. The old ones may be learnt from."
            )
        if "not_tested" in verdict.because:
            steps.append("Fine-tuning was not run; add `fine_tuned` to the candidates.")
        if "no_baseline" in verdict.because:
            steps.append("Add a baseline such as `zero_shot` or `few_shot` to the candidates.")
        if verdict.use:
            steps.append(f"Use {verdict.use} for now.")
            steps += [_try_it(command)] if asked else []
        elif "no_baseline" not in verdict.because:
            steps.append(_NOTHING_FIT)
    else:
        steps.extend(f.fix for f in verdict.audit.findings if f.severity == "error" and f.fix)
    mending = [cause.advice for cause in verdict.failures if cause.advice]
    return [*steps, *(step for step in dict.fromkeys(mending) if step not in steps)]


def _try_it(command: Sequence[str]) -> str:
    return f"Try it: tunewise use {shlex.join(command)}"
