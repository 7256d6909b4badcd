"""Teach a small chat model to name the generic ingredients of a recipe, by OpenAI's API.

The road of OpenAI's own tutorial on fine-tuning chat models: prepare two files, upload them, make
a job, follow its events, ask the tuned model. Nothing here is Tunewise's: the script drives any
server that speaks the API, and only the environment says which one and with what key::

    export OPENAI_BASE_URL=http://127.0.0.1:8900/v1    # `tunewise serve`; leave out for OpenAI
    export OPENAI_API_KEY=...                          # `tunewise server key create`
    python examples/openai_recipes.py recipes.csv

``recipes.csv`` has the columns ``title``, ``ingredients`` and ``NER`` (the wanted ingredients), the
latter two as JSON lists, as RecipeNLG has them. `tunewise serve` needs a line in its settings that
says which model stands behind the name that is asked for::

    models: {gpt-4o-mini-2024-07-18: Qwen/Qwen3-0.6B}
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

MODEL = "gpt-4o-mini-2024-07-18"
INSTRUCTIONS = (
    "You are a helpful recipe assistant. You are to extract the generic ingredients from each of "
    "the recipes provided."
)


def question(recipe: Mapping[str, str]) -> list[ChatCompletionMessageParam]:
    """What the model is asked about a recipe, in training and later alike."""
    text = f"Title: {recipe['title']}\n\nIngredients: {recipe['ingredients']}\n\n"
    return [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": f"{text}Generic ingredients: "},
    ]


def training_file(recipes: Iterable[Mapping[str, str]]) -> bytes:
    """JSON Lines, one conversation a recipe, ending with the wanted answer."""
    lines = io.StringIO()
    for recipe in recipes:
        answer = {"role": "assistant", "content": recipe["NER"]}
        lines.write(json.dumps({"messages": [*question(recipe), answer]}) + "\n")
    return lines.getvalue().encode()


def upload(client: OpenAI, name: str, content: bytes) -> str:
    """Upload a file for fine-tuning; its id."""
    return client.files.create(file=(name, content), purpose="fine-tune").id


def follow(client: OpenAI, job_id: str, every_s: float) -> Any:
    """Wait for a job's end, then print its story: the API lists the newest event first."""
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in (
        "succeeded",
        "failed",
        "cancelled",
    ):
        time.sleep(every_s)
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    for event in reversed(events):
        print(event.message)
    return job


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipes", type=Path, help="CSV with title, ingredients, NER")
    parser.add_argument("--train", type=int, default=101, help="rows to learn from")
    parser.add_argument("--validation", type=int, default=100, help="rows to watch the loss on")
    parser.add_argument("--epochs", type=int, help="passes over the rows; by default auto")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    options = parser.parse_args()

    with options.recipes.open(newline="", encoding="utf-8") as file:
        recipes = list(csv.DictReader(file))
    used = options.train + options.validation
    if len(recipes) <= used:
        parser.error(f"{options.recipes} has {len(recipes)} rows; {used + 1} are needed")
    train, validation = recipes[: options.train], recipes[options.train : used]

    client = OpenAI()
    training_id = upload(client, "recipes_training.jsonl", training_file(train))
    validation_id = upload(client, "recipes_validation.jsonl", training_file(validation))
    print(f"Training file {training_id}, validation file {validation_id}")

    # Repeated after a lost answer, this call would make a second job.
    job = client.with_options(max_retries=0).fine_tuning.jobs.create(
        model=MODEL,
        training_file=training_id,
        validation_file=validation_id,
        suffix="recipe-ner",
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": options.epochs or "auto"}},
        },
    )
    print(f"Job {job.id}: {job.status}")
    job = follow(client, job.id, options.every)
    if job.fine_tuned_model is None:
        raise SystemExit(f"The job {job.status}: {job.error.message if job.error else 'no reason'}")
    print(f"Tuned model: {job.fine_tuned_model}")

    unseen = recipes[used]
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=question(unseen), temperature=0, max_tokens=500
    )
    print(f"Wanted: {unseen['NER']}")
    print(f"Answer: {answer.choices[0].message.content}")


if __name__ == "__main__":
    main()
