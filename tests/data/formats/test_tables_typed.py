"""Lines of JSON, parquet and Arrow: all lines count, and no column is read for another."""

import codecs
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.tables import collect, scan_table

MANY = 12_000  # rows, more than any reader looks at to tell the types
ROWS = ({"text": "Grüße aus dem café", "label": "a"}, {"text": "b", "label": "c"})


def lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(path: Path, content: bytes | str) -> tuple[pl.DataFrame, str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with opened() as account:
        frame, names = scan_table(path)
        table = collect(path, frame)
    assert table.columns == names
    return table, " | ".join(account.lines())


def test_a_field_of_the_last_line_alone_is_a_column(tmp_path: Path) -> None:
    rows = [{"text": f"t{k}"} for k in range(MANY)]
    table, _ = read(tmp_path / "t.jsonl", lines([*rows, {"text": "x", "late": "L"}]))
    assert table["late"].to_list() == [None] * MANY + ["L"]


@pytest.mark.parametrize(
    ("first", "last", "cells"),
    [(1, "b", ("1", "b")), (1, 0.5, (1.0, 0.5)), (True, "b", ("true", "b")),
     (1, 2**70, (1, 2**70)), ("a", ["b"], ("a", '["b"]')), ({"a": 1}, {"b": 2}, None)],
)  # fmt: skip
def test_a_type_that_changes_in_the_last_line_loses_nothing(
    first: object, last: object, cells: tuple[object, object] | None, tmp_path: Path
) -> None:
    table, _ = read(tmp_path / "t.jsonl", lines([*[{"v": first}] * MANY, {"v": last}]))
    cells = cells or ({"a": 1, "b": None}, {"a": None, "b": 2})
    assert table["v"].to_list() == [cells[0]] * MANY + [cells[1]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"v": True}, {"v": 2}], "'v' is true or false in line 1 and a number in line 2"),
        ([{"v": 1}, {}, {"v": [1]}], "'v' is a number in line 1 and a list in line 3"),
        ([{"v": 1}, [1]], "line 2 is a list, not an object"),
        ([[{"v": 1}]], "line 1 is a list, not an object"),
        ([{"v": float("nan")}], "line 1, .* is no JSON: NaN is no number of JSON; write null"),
    ],
)
def test_lines_that_do_not_fit_together_are_named(
    rows: Sequence[object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path / "t.jsonl", lines(rows))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("encoding", "noted"),
    [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"),
     ("cp1252", "cp1252")],
)  # fmt: skip
def test_lines_of_json_in_any_encoding_are_the_same_rows(
    encoding: str, noted: str, packed: bool, tmp_path: Path
) -> None:
    content = lines(ROWS).encode(encoding)
    assert content.startswith(codecs.BOM_UTF8) == (encoding == "utf-8-sig")
    name = "t.jsonl.gz" if packed else "t.jsonl"
    table, account = read(tmp_path / name, gzip.compress(content) if packed else content)
    assert table.to_dicts() == list(ROWS)
    assert (f"files in {noted}" in account) == bool(noted)


def test_a_name_twice_in_a_line_is_refused_and_one_in_an_object_below_is_not(
    tmp_path: Path,
) -> None:
    path, sound = tmp_path / "t.jsonl", {"text": 'the "label": a', "label": {"text": 1, "label": 2}}
    table, _ = read(path, lines([sound, {"text": "label", "label": {"text": 1, "label": 3}}]))
    assert table["label"].to_list() == [{"text": 1, "label": 2}, {"text": 1, "label": 3}]
    with pytest.raises(InputError, match=r"t\.jsonl: column 'label' appears more than once in lin"):
        read(path, lines([sound]) + '{"text": "b", "label": "x" , "label" : "y"}\n')


def test_columns_named_twice_in_typed_files_are_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table([arrow.array(["a"])] * 3, names=["text", "label", "label"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"appears more than once .*label.*; rename one"):
        scan_table(tmp_path / "t.parquet")
    with arrow.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match=r"cannot be read|damaged arrow"):
        collect("t.arrow", scan_table(tmp_path / "t.arrow")[0])


def test_quotes_within_cells_are_refused_in_words_that_help(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for row in ('a 5" pipe,x\nb,y', '"hi" he said,x\nb,y'):
        with pytest.raises(InputError, match=r"a quote is opened or closed within a cell; write"):
            read(path, f"text,label\n{row}\n")
