"""G0: read the rows, split them, audit them; decide what of the test set can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunewise.candidates.recorded import examples_from_recorded, recorded_answers
from tunewise.data.audit import AuditReport, audit_rows
from tunewise.data.chat import Example, canonical_hash
from tunewise.data.findings import Finding, FindingBook
from tunewise.data.leaks import Leaks
from tunewise.data.questions import together
from tunewise.data.split import Split, read_split
from tunewise.data.unreadable import Unreadable
from tunewise.digests import of_file
from tunewise.errors import DataError
from tunewise.pipeline.evidence import commonest, dev_by_hash
from tunewise.pipeline.fold_choice import folds_of
from tunewise.pipeline.reporter import Reporter
from tunewise.scoring.answers import wanted_text
from tunewise.study.schema import CandidateSpec, Study
from tunewise.words import plural, some_of, verb

_PACKAGES = ("torch", "transformers", "peft", "scikit-learn", "scipy", "openai")


@dataclass(frozen=True)
class Prepared:
    """The rows of a study, and what the audit says of them.

    Attributes:
        split: train, dev and test; every answer in them is wanted.
        problems: what the readers found wrong with rows, by kind.
        unreadable: rows that could not be read, in a sentence for each file.
        unreadable_count: how many there are.
        unwanted: rows of train whose answer is labelled as not wanted (KTO). They are no
            reference, no example to show and nothing to imitate.
        unwanted_count: such rows in all three parts.
    """

    split: Split
    problems: tuple[Finding, ...] = ()
    unwanted: tuple[Example, ...] = ()
    unwanted_count: int = 0
    unreadable: tuple[str, ...] = ()
    unreadable_count: int = 0


def read_rows(study: Study, specs: Sequence[CandidateSpec], folder: Path) -> Prepared:
    """The study's rows, split. Deterministic: the same files give the same splits.

    Raises:
        DataError: they cannot be read, too many of a file cannot, or there are too few to split.
    """
    watch = Unreadable(study.data.columns, study.data.encoding)
    try:
        if study.only_recorded:
            split = _recorded_split(study, specs, folder, watch)
        else:
            split = read_split(study.data, watch)
            split.how["why"] = folds_of(study, split)[1]
    except DataError as error:
        raise _with_reason(error, study, watch) from error
    parts = (split.train, split.dev, split.test)
    train, dev, test = (tuple(r for r in part if r.desirable is not False) for part in parts)
    count = sum(map(len, parts)) - len(train) - len(dev) - len(test)
    if split.test and not test:
        raise DataError(
            f"the answers of {some_of(len(split.test), len(split.test), 'test row')} are labelled "
            "as not wanted, so there is nothing to compare an answer with",
            where=study.data.test or study.data.examples or study.data.train,
            hint="Give test rows with wanted answers.",
        )
    if not test:
        raise DataError("there are no test rows", where="data", hint="Set `data.test`.")
    unwanted = tuple(row for row in split.train if row.desirable is False)
    return Prepared(
        replace(split, train=train, dev=dev, test=test),
        tuple(watch.findings()),
        unwanted,
        count,
        tuple(watch.told()),
        watch.count,
    )


def _with_reason(error: DataError, study: Study, watch: Unreadable) -> DataError:
    """An error about a whole data set, with its file, and with the first row that was left out."""
    data = study.data
    where = error.where or data.examples or data.train or data.test
    message, hint = error.message, error.hint
    if error.where is None and (first := watch.first) is not None:
        message += f"; {plural(watch.count, 'row')} left out, the first at {first.where}: "
        message += first.message
        hint = first.hint or hint
    return DataError(message, where=where, hint=hint, options=error.options)


def _recorded_split(
    study: Study,
    specs: Sequence[CandidateSpec],
    folder: Path,
    watch: Unreadable,
) -> Split:
    """Rows of a study whose answers were all made elsewhere: only dev and test matter."""
    answers = [recorded_answers(spec, folder) for spec in specs if spec.answers is not None]
    splits = {i: s for one in answers for i, s in one.splits.items()}
    data = study.data
    train: list[Example] = []
    if data.examples or data.test:
        source = data.test or data.examples
        assert source is not None
        rows = [replace(row, split=splits.get(row.id, row.split)) for row in watch.read(source)]
        if data.train:
            train = list(watch.read(data.train))
    else:
        rows = examples_from_recorded(answers)
    if study.dev_fraction is not None and not any(r.split == "dev" for r in rows):
        # Rows of one group, or of one question, must not stand on both sides.
        clusters = together(rows).clusters
        keys = [clusters.get(r.id, r.id) for r in rows]
        dev_keys = dev_by_hash(keys, study.dev_fraction, study.seed)
        rows = [
            replace(r, split="dev" if key in dev_keys else "test")
            for r, key in zip(rows, keys, strict=True)
        ]
    parts = {
        "train": (*train, *(r for r in rows if r.split == "train")),
        "dev": tuple(r for r in rows if r.split == "dev"),
        "test": tuple(replace(r, split="test") for r in rows if r.split in (None, "test")),
    }
    how = {"method": "recorded", "rows": {k: len(v) for k, v in parts.items()}}
    return Split(parts["train"], parts["dev"], parts["test"], how)


def audit_stage(
    study: Study, prepared: Prepared, reporter: Reporter, date: str | None = None
) -> dict[str, Any]:
    """The ``data`` stage: what the verdict needs to know of the rows, as JSON values.

    Args:
        date: that prompts are given where a model's template writes one.
    """
    split = prepared.split
    book = FindingBook()
    for problem in prepared.problems:
        book.put(problem)
    with_text = any(row.messages for row in split.test)
    report: AuditReport | None = None
    if with_text:
        with reporter.task("audit") as progress:
            total = len(split.train) + len(split.dev) + len(split.test)
            report = audit_rows(
                _in_order(split),
                book=book,
                progress=lambda done, _, failed=0: progress(done, total, failed),
            )
    leaks = report.leaks if report else None
    ids = [row.id for row in split.test]
    warnings = list(prepared.unreadable)
    if study.only_recorded:
        warnings.append("Whether the systems had seen the test rows before cannot be verified.")
        if not split.train:
            warnings.append("Leaks are not checked: the training rows are not named.")
    if prepared.unwanted_count:
        learnt = (
            "`kto` learns from them" if study.fine_tune.learns_unwanted else "`method: kto` would"
        )
        warnings.append(
            f"{plural(prepared.unwanted_count, 'row')} labelled as not wanted: no reference, no "
            f"example and nothing to imitate; {learnt}."
        )
    tested, chosen_on = together(split.test), together(split.dev)
    if tested.repeated:
        asking = some_of(tested.repeated, len(split.test), "test row", "asks", "ask")
        warnings.append(
            f"{asking[0].upper()}{asking[1:]} what another one asks too: rows of one question "
            f"count as one cluster, and there {verb(tested.questions, 'is', 'are')} "
            f"{plural(tested.questions, 'different question')}."
        )
    if not any(row.group is not None for row in split.test):
        others = "Rows of different questions" if tested.repeated else "Rows"
        warnings.append(
            f"{others} are treated as independent: no `group` says which belong together."
        )
    findings = report.findings if report else book.findings()
    return {
        "rows": {k: len(v) for k, v in _parts(split).items()},
        "dev_ids": [row.id for row in split.dev],
        "test_ids": ids,
        "clusters": {**chosen_on.clusters, **tested.clusters} if tested.clusters else None,
        "repeated": tested.repeated,
        "questions": tested.questions,
        "split": describe_split(split.how),
        "test_hash": test_hash(split.test, study.name),
        "findings": [
            {k: v for k, v in finding.as_dict().items() if k != "safe_fix"} for finding in findings
        ],
        "wanted_alike": {k: _wanted_alike(v) for k, v in _parts(split).items()},
        "unreadable": prepared.unreadable_count,
        "flagged": list(leaks.leave_out) if leaks else [],
        "leaked_share": _leaked_share(leaks),
        "broken": _broken(split),
        "prompt_tokens_median": None,
        "answer_tokens_median": None,
        "labels": report.labels if report else None,
        "warnings": warnings,
        "date": date,
        "versions": dict(_versions()),
    }


def _parts(split: Split) -> dict[str, Sequence[Example]]:
    return {"train": split.train, "dev": split.dev, "test": split.test}


def _in_order(split: Split) -> Iterator[Example]:
    yield from split.train
    yield from split.dev
    yield from split.test


def _wanted_alike(rows: Sequence[Example]) -> float | None:
    """The share (0..1) of the commonest wanted answer; None where no row has one."""
    wanted = [text for row in rows if (text := wanted_text(row)) is not None]
    return commonest(wanted).share if wanted else None


def _leaked_share(leaks: Leaks | None) -> float:
    """The largest share of the test rows that one kind of leak voids, 0..1."""
    if leaks is None or not leaks.test_rows:
        return 0.0
    return max(len(kind) for kind in (leaks.exact, leaks.group, leaks.time)) / leaks.test_rows


def _broken(split: Split) -> list[str]:
    found = []
    for name, rows in _parts(split).items():
        ids = [row.id for row in rows]
        twice = len(ids) - len(set(ids))
        if twice:
            found.append(
                f"{plural(twice, 'id')} {verb(twice, 'occurs', 'occur')} twice in the {name} rows."
            )
    return found


def describe_split(how: dict[str, Any]) -> str:
    """How the rows were split, in a sentence."""
    method = {
        "given": "The files say which rows are train, dev and test.",
        "hash": "Split by the hash of each row's content.",
        "time": "Split by time: the latest rows are the test.",
        "folds": f"Cut into {how.get('folds')} folds by the hash of each row's content: every row "
        "is tested once, by a system that learnt from the other folds and was chosen on a part of "
        "them.",
        "recorded": "The recorded answers say which rows are dev and test.",
    }[str(how.get("method"))]
    kept = how.get("kept_together")
    together = f"Kept on one side: {kept}." if kept else ""
    return " ".join(part for part in (method, together, how.get("why")) if part)


def row_keys(rows: Sequence[Example], study: str) -> list[str]:
    """What the ledger knows test rows by: content and wanted answer, whatever their ids.

    A row of which there is a score alone is known by its id in this study: the ids of another
    study may be alike.
    """
    return [
        canonical_hash([[dict(m) for m in row.messages]] if row.messages else [study, row.id])[:16]
        for row in rows
    ]


def test_hash(rows: Sequence[Example], study: str) -> str:
    """SHA-256 of the test rows, whatever their order."""
    return hashlib.sha256("".join(sorted(row_keys(rows, study))).encode()).hexdigest()


def old_hash(rows: Sequence[Example]) -> str:
    """What ledgers of earlier releases knew a test by: one hash of all rows with their ids.

    Empty where there are scores alone: by their ids, two studies had the same test.
    """
    if not all(row.messages for row in rows):
        return ""
    each = sorted(canonical_hash([row.id, *map(dict, row.messages)]) for row in rows)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def file_digests(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of the content of files, and of all files of folders, by name."""
    found = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(file)] = of_file(file)
    return found


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
