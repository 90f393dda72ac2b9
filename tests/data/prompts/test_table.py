"""Tables of prompts under the names that people and data sets give their columns."""

import json
from pathlib import Path

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.prompts.sample import write_sample_prompts
from headwise.data.prompts.table import PromptReading, read_prompt_data

PLAIN = PromptReading()


def test_rows_are_read_whatever_the_format(tmp_path: Path):
    frame = pl.DataFrame({"prompt": ["a b", "c d"], "answer": ["x", "y"]})
    frame.write_csv(tmp_path / "p.csv")
    frame.write_parquet(tmp_path / "p.parquet")
    frame.write_ndjson(tmp_path / "p.jsonl")
    tables = [read_prompt_data(tmp_path / f"p.{end}", PLAIN) for end in ("csv", "parquet", "jsonl")]
    assert [p.text for p in tables[0].prompts] == ["a b", "c d"]
    assert tables[0].prompts == tables[1].prompts == tables[2].prompts


def test_a_question_in_its_own_column_follows_the_context(tmp_path: Path):
    row = {"context": "It rains.", "question": "What does it do?", "answers": ["It rains", "rain"]}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    (prompt,) = read_prompt_data(tmp_path / "p.jsonl", PLAIN).prompts
    assert prompt.text == "It rains.\n\nWhat does it do?\n"
    assert prompt.answer == "It rains"


def test_an_answer_gets_a_space_before_it_unless_there_is_one(tmp_path: Path):
    pl.DataFrame({"prompt": ["key:", "key: "], "answer": ["1", "1"]}).write_csv(tmp_path / "p.csv")
    table = read_prompt_data(tmp_path / "p.csv", PLAIN)
    assert [prompt.answer for prompt in table.prompts] == [" 1", "1"]


def test_a_table_of_texts_is_told_from_one_of_prompts(tmp_path: Path):
    pl.DataFrame({"text": ["one.", "two."]}).write_csv(tmp_path / "t.csv")
    assert read_prompt_data(tmp_path / "t.csv", PLAIN).are_texts
    as_prompts = read_prompt_data(tmp_path / "t.csv", PromptReading(prompts_only=True))
    assert not as_prompts.are_texts
    assert [prompt.text for prompt in as_prompts.prompts] == ["one.", "two."]


def test_text_files_of_a_folder_are_texts_with_their_names(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("A text.")
    (tmp_path / "b.txt").write_text("Another.")
    (tmp_path / "c.pdf").write_text("no")
    with opened() as account:
        table = read_prompt_data(tmp_path, PLAIN)
    assert table.are_texts
    assert sorted(prompt.id for prompt in table.prompts) == ["b.txt", "deep/a.txt"]
    assert "c.pdf" in " ".join(account.lines())


def test_tables_of_both_kinds_in_a_folder_are_refused(tmp_path: Path):
    pl.DataFrame({"text": ["one."]}).write_csv(tmp_path / "t.csv")
    pl.DataFrame({"prompt": ["one."]}).write_csv(tmp_path / "p.csv")
    with pytest.raises(InputError, match="tables of prompts and tables of texts"):
        read_prompt_data(tmp_path, PLAIN)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": ["a"]}, "there is no column 'prompt'"),
        ({"prompt": ["a"], "depth": ["deep"]}, "the depth 'deep' is no number"),
        ({"prompt": ["a"], "part": ["exam"]}, "'exam' is none of"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, columns, message):
    pl.DataFrame(columns).write_csv(tmp_path / "p.csv")
    with pytest.raises(InputError, match=message) as caught:
        read_prompt_data(tmp_path / "p.csv", PLAIN)
    assert "\n" not in str(caught.value)


def test_the_sample_hides_what_it_asks_for(tmp_path: Path):
    table = read_prompt_data(write_sample_prompts(tmp_path), PLAIN)
    assert len(table) == 20
    assert all(prompt.place for prompt in table.prompts)
    assert {prompt.kind for prompt in table.prompts} == {"passkey", "needles", "second"}
    assert sum(bool(prompt.question2) for prompt in table.prompts) == 5
