"""`tunewise convert`: another tool's configuration as a study, and a study as AutoTrain's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tunewise.cli.options import JsonOption

CONVERT_EXAMPLE = "tunewise convert axolotl.yml --out study.yaml"


def convert(
    file: Annotated[
        str,
        typer.Argument(
            help="AutoTrain's, Axolotl's, LLaMA-Factory's, Unsloth's or TRL's YAML or command "
            "line, or an OpenAI job's JSON; with --back a study.",
            metavar="FILE",
        ),
    ],
    dialect: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="autotrain, axolotl, llama-factory, unsloth, trl (trl:dpo, …) or openai. "
            "[default: by its keys]",
        ),
    ] = None,
    back: Annotated[
        str | None, typer.Option("--back", metavar="autotrain", help="From a study to AutoTrain's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write. [default: study.yaml, autotrain.yml]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Write a study from another tool's configuration, each key told."""
    from tunewise.cli.output import put
    from tunewise.cli.show_dialect import show_translation
    from tunewise.errors import UsageError
    from tunewise.workspace import write_text_atomic

    if back not in (None, "autotrain"):
        raise UsageError(f"{back!r} is not written", where="--back", hint="--back autotrain")
    target = out or Path("autotrain.yml" if back else "study.yaml")
    if target.exists() and not force:
        raise UsageError(
            "the file is there already", where=str(target), hint="Use --force, or --out NAME.yaml."
        )
    if back:
        import yaml

        from tunewise.dialects.autotrain.back import autotrain_of
        from tunewise.study.loading import load_study

        config, translation = autotrain_of(load_study(file).study)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    else:
        from tunewise.dialects.convert import convert as converted

        made = converted(file, dialect, target)
        translation, text = made.translation, made.text
    write_text_atomic(target, text)
    if json_output:
        told = {**translation.as_dict(), "file": str(target)}
        put(json.dumps(told, ensure_ascii=False, indent=2) + "\n")
        return
    show_translation(translation)
    put(f"Wrote {target}\n")
    following = f"tunewise autotrain --config {target}" if back else f"tunewise run {target}"
    put(f"Next: {following}\n")
