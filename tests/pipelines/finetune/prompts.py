"""Small tables of prompts with answers, a tiny model to tune, and runs trained in seconds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from headwise import pipelines
from headwise.base.account import opened
from headwise.models.language.generated import write_generated_model
from headwise.models.language.opening import OpenedLanguageModel, open_language_folder
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.pipeline import Splits

Row = dict[str, Any]
SMALL: dict[str, Any] = {
    "model": "generated", "epochs": 1, "lr": 3e-3, "new_tokens": 4, "answers": 6, "shots": 0,
    "accelerator": "cpu",
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def rows(count: int = 60) -> list[Row]:
    """Questions with short answers, each in a group with its neighbour."""
    return [
        {"id": f"q{k}", "prompt": f"Say {k % 7} twice.", "answer": f"{k % 7}{k % 7}",
         "group": f"g{k % 7}-{k % 2}"}
        for k in range(count)
    ]  # fmt: skip


def distinct(count: int = 60) -> list[Row]:
    """Questions of which no two are equal."""
    return [{"prompt": f"Add one to {k}.", "answer": str(k + 1)} for k in range(count)]


def write_rows(path: Path, lines: list[Row]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def general(path: Path, count: int = 30) -> Path:
    """Texts that have nothing to do with the task."""
    return write_rows(
        path, [{"text": f"The {k}th boat lies in the harbour, and nobody counts it."}
               for k in range(count)]
    )  # fmt: skip


@cache
def tiny_with_template(folder: str) -> OpenedLanguageModel:
    """The generated model with a chat template, written into a folder."""
    home = write_generated_model(Path(folder))
    settings = json.loads((home / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATE
    (home / "tokenizer_config.json").write_text(json.dumps(settings))
    return open_language_folder(home)


def train(data: Path, run: Path, **options: Any) -> Any:
    """A run."""
    return pipelines.finetune.train(data=str(data), run=str(run), **{**SMALL, **options})


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def parts_of(data: Path, *, accept: tuple[str, ...] = (), **options: Any) -> tuple[Splits, str]:
    """The parts as a training opens them, and the lines of the account."""
    card = load_task("finetune")
    with opened(accept) as account:
        values = {"data": str(data), **SMALL, **options}
        splits = card.load().open_data(parse(card, "train", [], values=values))
    return splits, " | ".join(account.lines())
