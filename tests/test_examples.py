"""The tutorials in examples/ run as they stand against the real server; only addresses differ."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

pytest.importorskip("peft")
pytest.importorskip("fastapi")

from cli_support import environment
from server_support import Running

EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL = "gpt-4o-mini-2024-07-18"


def run(script: str, *arguments: object, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_recipes(path: Path, recipes: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["title", "ingredients", "NER"])
        writer.writeheader()
        writer.writerows(recipes)
    return path


def made_up(n: int) -> list[dict[str, str]]:
    foods = ("flour", "sugar", "butter", "milk", "salt", "rice", "beans", "corn")
    recipes = []
    for i in range(n):
        chosen = [foods[(i + k) % len(foods)] for k in range(2)]
        recipes.append(
            {
                "title": f"Dish {i}",
                "ingredients": json.dumps([f"{k + 1} c. {food}" for k, food in enumerate(chosen)]),
                "NER": json.dumps(chosen),
            }
        )
    return recipes


def test_recipes(server: Running, tmp_path: Path) -> None:
    recipes = write_recipes(tmp_path / "recipes.csv", made_up(19))
    out = run(
        "openai_recipes.py", recipes, "--train", 12, "--validation", 6, "--epochs", 2,
        "--every", 0.2, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=server.key,
    )  # fmt: skip
    steps = [int(n) for n in re.findall(r"^Step (\d+)/24: training loss=", out, re.MULTILINE)]
    assert steps == list(range(1, 25)), "oldest first"
    assert out.index("Created fine-tuning job") < out.index("Step 1/24")
    assert out.index("Step 24/24") < out.index("The job has successfully completed")
    assert re.search(rf"^Tuned model: ft:{MODEL}:tunewise:recipe-ner:\w+$", out, re.MULTILINE)
    assert re.search(r"^Answer: ", out, re.MULTILINE)


def test_real_recipes(server: Running, shared: Path, tmp_path: Path) -> None:
    rows = (shared / "data" / "recipes" / "train.jsonl").read_text("utf-8").splitlines()
    recipes = []
    for row in rows[:17]:
        _, asked, answer = (m["content"] for m in json.loads(row)["messages"])
        title, ingredients, _ = asked.split("\n\n")
        recipes.append(
            {
                "title": title.removeprefix("Title: "),
                "ingredients": ingredients.removeprefix("Ingredients: "),
                "NER": answer,
            }
        )
    out = run(
        "openai_recipes.py", write_recipes(tmp_path / "recipes.csv", recipes),
        "--train", 10, "--validation", 6, "--epochs", 1, "--every", 0.2,
        OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=server.key,
    )  # fmt: skip
    assert "Step 10/10: training loss=" in out
    assert f"Wanted: {recipes[16]['NER']}" in out


def write_chats(path: Path, n: int) -> Path:
    words = ("red", "blue", "green", "white")
    chats = (
        {
            "messages": [
                {"role": "user", "content": f"Say {words[i % 4]} {i}."},
                {"role": "assistant", "content": f"{words[i % 4]} {i}"},
            ]
        }
        for i in range(n)
    )
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return path


def test_azure_from_upload_to_deployment(server: Running, tmp_path: Path) -> None:
    out = run(
        "azure_finetune.py",
        write_chats(tmp_path / "training.jsonl", 10),
        write_chats(tmp_path / "validation.jsonl", 4),
        "--ask", "Say red 4.", "--every", 0.2,
        AZURE_OPENAI_ENDPOINT=server.root, AZURE_OPENAI_API_KEY=server.key,
        AZURE_MANAGEMENT_ENDPOINT=server.root, AZURE_MANAGEMENT_TOKEN=server.key,
        AZURE_SUBSCRIPTION_ID="one", AZURE_RESOURCE_GROUP="two", AZURE_OPENAI_ACCOUNT="three",
    )  # fmt: skip
    statuses = re.findall(r"^Status: (\w+)$", out, re.MULTILINE)
    assert statuses[-1] == "succeeded" and "running" in statuses
    assert re.search(rf"^Step \d+: {MODEL}\.ft-[0-9a-f]{{32}}-tutorial", out, re.MULTILINE), out
    assert "Result file: " in out and "train_loss" in out
    assert out.index("Status: succeeded") < out.index("Deployment: Succeeded")


def test_too_few_recipes(tmp_path: Path) -> None:
    recipes = write_recipes(tmp_path / "recipes.csv", made_up(5))
    with pytest.raises(AssertionError, match="202 are needed"):
        run("openai_recipes.py", recipes, OPENAI_API_KEY="none")
