"""Small tables of messages, and runs trained on them in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from headwise import pipelines
from headwise.base.account import opened
from headwise.data.texts.generate import write_sample_texts
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.text.spec import InputFacts, TextSpec

Row = dict[str, Any]
SMALL: Mapping[str, Any] = {"weights": "none", "width": 16, "epochs": 1, "terms": "words"}
"""Options of a training that takes a second or two."""


def messages(count: int = 150) -> list[Row]:
    """Rows of the generated sample."""
    with TemporaryDirectory() as folder:
        path = write_sample_texts(Path(folder), texts=count)
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def classed(count: int = 120) -> list[Row]:
    """Rows with one class each, hardware or network or billing, told by a word."""
    words = {"hardware": "printer", "network": "wifi", "billing": "invoice"}
    names = list(words)
    return [
        {
            "id": f"m{k}",
            "text": f"message {k} of this day: the {words[names[k % 3]]} is "
            + ("slow", "wrong")[k % 2],
            "label": names[k % 3],
            "customer": f"c{k // 2}",
            "source": ("mail", "chat")[k // 2 % 2],
        }
        for k in range(count)
    ]


def numbered(count: int = 120) -> list[Row]:
    """Rows with a number that two words and a column give."""
    return [
        {
            "text": f"{'good ' * (k % 4)}text {k} and {'bad' if k % 3 else 'fine'} words",
            "score": round(3 * (k % 4) - 2 * bool(k % 3) + 0.5 * (k % 5) + 0.25, 2),
            "pages": k % 5,
            "source": ("mail", "chat")[k % 2],
        }
        for k in range(count)
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write a table as its name says; in csv lists are JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
        return path
    plain = [
        {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
    ]
    frame = pl.DataFrame(plain, infer_schema_length=None, strict=False)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


def parts_of(data: Path, *, accept: tuple[str, ...] = (), **options: Any) -> tuple[Splits, str]:
    """The parts as a training opens them, and the lines of the account."""
    card = load_task("text")
    values = {"data": str(data), **SMALL, **options}
    if values.get("model") == "sparse":
        del values["width"]
    with opened(accept) as account:
        splits = card.load().open_data(parse(card, "train", [], values=values))
    return splits, " | ".join(account.lines())


def train(data: Path, run: Path, **options: Any) -> Any:
    """A run."""
    return pipelines.text.train(data=str(data), run=str(run), **{**SMALL, **options})


def predict(run: Path, source: Path | str, output: Path, **options: Any) -> pl.DataFrame:
    """The rows that a run predicts."""
    answered = pipelines.text.predict(
        run=str(run), input=str(source), output=str(output), **options
    )
    return answered.table()


def spec_of(goal: Any, labels: Sequence[str], levels: str = "", **facts: Any) -> TextSpec:
    """A spec of outputs, with nothing of the texts in it."""
    values: dict[str, Any] = {
        "input": InputFacts(
            texts=9, training_texts=9, labels=len(labels), sources=[], languages=[]
        ),
        "counts": [9] * len(labels),
        "columns": {},
        "label_columns": [],
        "separator": "",
        "table": [],
        "sources": [],
        "mean": 0.0,
        "deviation": 1.0,
        "pieces": False,
        "terms": 1,
        "encoder": None,
        "most_tokens": 9,
        "vectors": None,
        "parts": {},
        "files": False,
    }
    return TextSpec(goal=goal, labels=list(labels), levels=levels, **{**values, **facts})
