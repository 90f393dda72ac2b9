"""Tables of prompts with answers, in the forms in which people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.prompts.dialogues import (
    Dialogue,
    DialogueReading,
    Message,
    read_dialogue_table,
    read_dialogues,
)

Row = dict[str, Any]
CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "four"},
]


def write(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        plain = [
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows
        ]
        pl.DataFrame(plain).write_csv(path)
    return path


def read(path: Path, *, accept: tuple[str, ...] = (), **reading: Any) -> list[Dialogue]:
    with opened(accept):
        return read_dialogues(path, DialogueReading(**reading)).dialogues


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_messages_are_read_from_every_kind_of_table(tmp_path, ending):
    path = write(tmp_path / f"t{ending}", [{"id": "a", "messages": CHAT}] * 2)
    first, _ = read(path)
    assert first.messages == (
        Message("system", "Be short."), Message("user", "What is two and two?"),
    )  # fmt: skip
    assert (first.answer, first.id, first.row) == ("four", "a", 0)
    assert first.prompt == "What is two and two?"


@pytest.mark.parametrize(("row", "messages"), [
    ({"prompt": "p", "answer": "a"}, [("user", "p")]),
    ({"question": "p", "response": "a"}, [("user", "p")]),
    ({"instruction": "p", "input": "", "output": "a"}, [("user", "p")]),
    ({"instruction": "p", "input": "more", "output": "a"}, [("user", "p\n\nmore")]),
    ({"input": "p", "output": "a"}, [("user", "p")]),
    ({"system": "s", "prompt": "p", "completion": "a"}, [("system", "s"), ("user", "p")]),
    ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "a"}]},
     [("user", "p")]),
])  # fmt: skip
def test_the_usual_forms_are_recognised(tmp_path, row, messages):
    (dialogue,) = read(write(tmp_path / "t.jsonl", [row]))
    assert list(dialogue.messages) == messages
    assert dialogue.answer == "a"


def test_a_column_that_the_user_names_must_be_there_unless_a_prediction_does_not_need_it(tmp_path):
    path = write(tmp_path / "t.csv", [{"prompt": "a"}])
    with pytest.raises(InputError, match="--columns prompt=nope: there is no column 'nope'"):
        read(path, columns={"prompt": "nope"}, need_answer=False)
    (dialogue,) = read(path, columns={"answer": "b", "part": "c"}, need_answer=False)
    assert dialogue.prompt == "a"


def test_columns_are_named_by_the_user(tmp_path):
    rows = [{"a": "p", "b": "answer of it", "prompt": "else", "who": "x"}]
    columns = {"prompt": "a", "answer": "b", "group": "who"}
    (dialogue,) = read(write(tmp_path / "t.csv", rows), columns=columns)
    assert (dialogue.prompt, dialogue.answer, dialogue.group) == ("p", "answer of it", "x")


def test_rows_without_an_answer_are_a_doubt(tmp_path):
    rows = [{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": ""}]
    path = write(tmp_path / "t.jsonl", rows)
    with pytest.raises(InputError, match=r"row 2: has no prompt or no answer.*missing-labels"):
        read(path)
    assert [d.prompt for d in read(path, accept=("missing-labels",))] == ["p"]


@pytest.mark.parametrize(("row", "message"), [
    ({"text": "p", "label": "a"}, "no column 'prompt', nor one of messages"),
    ({"prompt": "p"}, "no column 'answer'"),
    ({"messages": "no list"}, "is no list of messages"),
    ({"messages": [{"role": "cook", "content": "x"}]}, "no message with a role and a content"),
])  # fmt: skip
def test_what_is_no_table_of_prompts_is_refused_in_one_line(tmp_path, row, message):
    with pytest.raises(InputError, match=message) as caught:
        read(write(tmp_path / "t.jsonl", [row]))
    assert "\n" not in str(caught.value)


def test_a_prediction_keeps_bad_rows_with_what_is_wrong(tmp_path):
    rows = [{"messages": CHAT[:2]}, {"messages": [{"role": "cook", "content": "x"}]},
            {"messages": []}]  # fmt: skip
    path = write(tmp_path / "t.csv", rows)
    table = read_dialogue_table(path, DialogueReading(need_answer=False))
    good, bad, empty = table.dialogues
    assert (good.problem, good.answer) == ("", None)
    assert "row 2" in bad.problem
    assert "the prompt is empty" in empty.problem


def test_a_folder_of_tables_is_read_as_one(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", [{"prompt": name, "answer": "x"}])
    assert [d.prompt for d in read(tmp_path)] == ["a", "b"]
