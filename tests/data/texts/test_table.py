"""Tables of texts as they are written, and folders of text files."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data import text_files
from headwise.data.texts.table import TextReading, read_text_data, table_of_rows, with_rows

PLAIN, FREE = TextReading(), TextReading(need_label=False)
CSV = "text,label\nthe first one,a\nthe second one,b\n"


def read(path, reading=PLAIN, accept=()):
    """The table, and the lines of the account."""
    with opened(accept) as account:
        table = read_text_data(path, reading)
    return table, " | ".join(account.lines())


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_all_fields_are_found_by_their_usual_names(tmp_path):
    header = "Body,Subject,Ticket ID,tags,customer,channel,lang,split,plan,seats\n"
    rows = "one,hello,t1,a,c1,mail,en,train,free,3\ntwo,,t2,b,c2,chat,de,test,team,5\n"
    table, said = read(written(tmp_path, header + rows), TextReading(table=("plan", "seats")))
    assert table.texts == ["hello\none", "two"]
    assert table.ids == ["t1", "t2"]
    assert table.groups == ["c1", "c2"]
    assert table.sources == ["mail", "chat"]
    assert table.languages == ["en", "de"]
    assert table.parts == ["train", "test"]
    assert table.labels is not None
    assert table.labels.names == [("a",), ("b",)]
    assert table.table.columns == ["plan", "seats"]
    assert "'Body' is taken as the text" in said


def test_a_column_that_is_not_used_is_named(tmp_path):
    _, said = read(written(tmp_path, "text,label,remark\na b c,x,1\nd e f,y,2\n"))
    assert "not used (remark)" in said


def test_rows_keep_their_texts_labels_and_columns_together(tmp_path):
    lines = ["text,label,customer,plan"] + [f"t{k} x,l{k},c{k},p{k}" for k in range(9)]
    table, _ = read(written(tmp_path, "\n".join(lines)), TextReading(table=("plan",)))
    part = with_rows(table, np.array([5, 0, 8]))
    assert part.texts == ["t5 x", "t0 x", "t8 x"]
    assert part.labels is not None
    assert part.labels.names == [("l5",), ("l0",), ("l8",)]
    assert part.groups == ["c5", "c0", "c8"]
    assert part.table["plan"].to_list() == ["p5", "p0", "p8"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_every_kind_of_table_gives_the_same_rows(tmp_path, ending):
    frame = pl.DataFrame(
        {"text": ["über, alles", "a\nb", "x"], "label": ["1", "2", "1"], "seats": [1, 2, 3]}
    )
    path = tmp_path / f"t.{ending}"
    if ending == "tsv":
        frame.write_csv(path, separator="\t")
    elif ending == "xlsx":
        pytest.importorskip("xlsxwriter")
        frame.write_excel(path)
    else:
        writers = {
            "csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet
        }  # fmt: skip
        writers[ending](path)
    table, _ = read(path, TextReading(table=("seats",)))
    assert table.texts == frame["text"].to_list()
    assert table.labels is not None
    assert table.labels.names == [("1",), ("2",), ("1",)]
    assert [int(float(cell)) for cell in table.table["seats"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        "\ufefftext,label\ncafé one,a\nb two,b\n".encode(),
        "text,label\ncafé one,a\nb two,b\n".encode("cp1252"),
        "text,label\ncafé one,a\nb two,b\n".encode("utf-16"),
    ],
    ids=["a byte order mark", "Windows", "UTF-16"],
)
def test_encodings_of_tables_are_read(tmp_path, content):
    table, said = read(written(tmp_path, content))
    assert table.texts == ["café one", "b two"]
    assert ("not UTF-8" in said) == (not content.startswith(b"\xef\xbb\xbf"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "text,label\ncafé,a\n".encode() + "naïve,b\n".encode("cp1252"),
            "neither UTF-8 nor cp1252",
        ),
        (b"text,label\na\0b,x\n", "binary"),
        ("text,label\n", "no rows"),
        ("text,label\n,a\n ,b\n", "column 'text': all texts are empty"),
        ("title,label\na,b\n", "there is no column 'text'"),
        ("text,stuff\na b c,b\n", "there is no column 'label'.*--columns label=COLUMN"),
        ("text,text,label\na,b,c\n", "more than once"),
        ("text,body,label\na,b,c\n", None),
        ("body,content,label\na,b,c\n", "could both be the text; say which with --columns"),
        ("text,label,part\na b,x,train\nb c,y,elsewhere\n", "row 2: 'elsewhere' is none of train"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_one_line(tmp_path, content, reason):
    path = written(tmp_path, content)
    if reason is None:
        read(path)
        return
    with pytest.raises(InputError, match=reason) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_column_of_lists_or_bytes_is_no_text(tmp_path):
    pl.DataFrame({"text": [["a"], ["b"]], "label": ["x", "y"]}).write_parquet(
        tmp_path / "l.parquet"
    )
    with pytest.raises(InputError, match=r"column 'text': holds List\(String\), no texts"):
        read(tmp_path / "l.parquet")
    frame = pl.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "group": [["g"], ["h"]]})
    frame.write_parquet(tmp_path / "g.parquet")
    with pytest.raises(InputError, match=r"g.parquet: column 'group': holds List"):
        read(tmp_path / "g.parquet")


def test_a_column_of_lists_with_the_name_of_a_part_is_no_part(tmp_path):
    frame = pl.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "fold": [[1], [2]]})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column 'fold': holds List"):
        read(tmp_path / "t.parquet")
    table, _ = read(tmp_path / "t.parquet", FREE)
    assert table.parts == ["", ""]


def test_the_only_column_of_long_cells_holds_the_texts(tmp_path):
    path = written(tmp_path, "what,label,code\nsome words go here,a,x1\nand here are more,b,x2\n")
    table, said = read(path)
    assert table.texts == ["some words go here", "and here are more"]
    assert "column 'what' holds the texts" in said


def test_empty_texts_are_counted_over_all_tables(tmp_path):
    for name, empty in (("a", 2), ("b", 3)):
        written(tmp_path, "text,label\nwords,x\n" + ",y\n" * empty, f"in/{name}.csv")
    table, said = read(tmp_path / "in")
    assert len(table) == 7
    assert "5 empty texts" in said


def test_an_empty_text_is_predicted_for_wherever_it_stands(tmp_path):
    path = written(tmp_path, 'text\n""\n')
    table, said = read(path, FREE)
    assert table.texts == [""]
    assert "1 empty texts" in said


def test_columns_that_the_user_names_must_be_there(tmp_path):
    path = written(tmp_path, CSV)
    for reading in (TextReading({"id": "ticket"}), TextReading({"id": "ticket"}, need_label=False)):
        with pytest.raises(InputError, match="--columns id=ticket: there is no column 'ticket'"):
            read(path, reading)


def test_columns_of_the_training_are_taken_where_they_are(tmp_path):
    usual = {"text": "body", "title": "head", "label": "kind"}
    reading = TextReading(need_label=False, usual=usual)
    table, said = read(written(tmp_path, "body,text,head\nx,y,z\n"), reading)
    assert table.texts == ["z\nx"]
    table, said = read(written(tmp_path, "text\ny\n"), reading)
    assert table.texts == ["y"]
    assert "not there, though the training had it ('title')" in said
    with pytest.raises(InputError, match="there is no column 'text'"):
        read(written(tmp_path, "kind\ny\n"), reading)


def test_a_prediction_asks_for_no_parts(tmp_path):
    table, _ = read(written(tmp_path, "text,part\na b,screw\n"), FREE)
    assert table.parts == [""]


def test_rows_are_numbered_as_in_their_file():
    frame = pl.DataFrame({"text": ["short", "x" * (text_files.TEXT_CAP + 1)]})
    with pytest.raises(InputError, match="column 'text', row 1026: has 20,971,521 characters"):
        table_of_rows("t.csv", frame, frame.columns, FREE, 1024)


def test_files_named_as_parts_are_these_parts(tmp_path):
    for name in ("train", "dev", "test"):
        written(tmp_path, CSV.replace("one", name), f"in/my-{name}.csv")
    table, said = read(tmp_path / "in")
    assert table.parts == ["validation"] * 2 + ["test"] * 2 + ["train"] * 2
    assert table.texts[4] == "the first train"
    assert "files named train, validation or test are these parts" in said


def test_files_with_a_word_of_parts_among_others_are_no_parts(tmp_path):
    for name in ("speed-test", "taste"):
        written(tmp_path, CSV, f"in/{name}.csv")
    table, _ = read(tmp_path / "in")
    assert set(table.parts) == {""}


def test_tables_with_labels_of_two_kinds_are_refused(tmp_path):
    written(tmp_path, "text,label\na b,1.5\nb c,2.25\n", "in/a.csv")
    written(tmp_path, "text,label\na b,x\nb c,y\n", "in/b.csv")
    with pytest.raises(InputError, match=r"labels of several kinds .*--goal"):
        read(tmp_path / "in")


def test_a_label_column_among_the_columns_of_the_table_is_refused(tmp_path):
    path = written(tmp_path, CSV)
    with pytest.raises(InputError, match="--table label: says the same as the labels"):
        read(path, TextReading(table=("label",)))
    path = written(tmp_path, "text,x,y\na b,1,0\nb c,0,1\n")
    with pytest.raises(InputError, match="--table x: says the same as the labels in column 'x'"):
        read(path, TextReading(label_columns=("x", "y"), table=("x",)))
    _, said = read(path, TextReading(label_columns=("x", "y"), table=("x",)), ["label-as-feature"])
    assert "accepted: " in said


@pytest.mark.parametrize("option", ["table", "label_columns"])
def test_further_columns_must_be_there(tmp_path, option):
    reading = TextReading(**{option: ("lable",)})
    flag = option.replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} lable: there is no column 'lable'; did you"):
        read(written(tmp_path, CSV), reading)


def test_a_folder_for_each_label_gives_labels_and_parts(tmp_path):
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            written(tmp_path, f"{part} {label}", f"in/{part}/{label}/1.txt")
    written(tmp_path, "ignored", "in/labels.csv")
    table, said = read(tmp_path / "in")
    assert table.ids == ["test/neg/1.txt", "test/pos/1.txt", "train/neg/1.txt", "train/pos/1.txt"]
    assert table.texts[1] == "test pos"
    assert table.labels is not None
    assert table.labels.names == [("neg",), ("pos",)] * 2
    assert table.parts == ["test", "test", "train", "train"]
    assert table.files
    assert "1 files of other kinds (labels.csv)" in said
    assert "4 text files, whose folders are their labels" in said


def test_folders_that_are_parts_alone_are_no_labels(tmp_path):
    for part in ("train", "test"):
        written(tmp_path, part, f"in/{part}/1.txt")
    with pytest.raises(InputError, match="have none for each label below them"):
        read(tmp_path / "in")
    written(tmp_path, "more", "in/train/pos/1.txt")
    with pytest.raises(InputError, match="have none for each label below them"):
        read(tmp_path / "in")


def test_folders_that_look_alike_or_name_no_part_are_said(tmp_path):
    for name in ("train/Pos", "train/pos", "eval/pos", "train/\u00e9", "train/e\u0301"):
        written(tmp_path, name, f"in/{name}/1.txt")
    table, said = read(tmp_path / "in")
    assert {names[0] for names in table.labels.names} == {"Pos", "pos", "\u00e9"}
    assert "the classes 'pos' and 'Pos' differ by case only" in said
    assert "1 folders that are called like no part, beside those of parts (eval)" in said


@pytest.mark.parametrize(
    ("content", "text", "kind"),
    [
        ("\ufeffcafé".encode(), "café", None),
        ("café".encode("cp1252"), "café", "cp1252"),
        ("café".encode("utf-16"), "café", "UTF-16"),
        (b"", "", None),
    ],
)
def test_text_files_of_several_encodings_are_read(tmp_path, content, text, kind):
    with opened() as account:
        assert text_files.read_text_file(written(tmp_path, content, "a.txt")) == text
    assert (kind or "assumed") in " ".join(account.lines()) or kind is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("café".encode("utf-16")[:-1], "damaged UTF-16 text"),
        ("é ".encode() + "ï".encode("cp1252"), "neither UTF-8 nor cp1252"),
        (b"a" * 2000 + b"\0" * 9, "binary"),
        ("привет, как дела".encode("koi8-r"), "unknown encoding|neither"),
    ],
)
def test_text_files_in_other_encodings_are_refused(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason):
        text_files.read_text_file(written(tmp_path, content, "a.txt"))


def test_a_text_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "FILE_CAP", 4)
    with pytest.raises(InputError, match="is larger than"):
        text_files.read_text_file(written(tmp_path, b"12345", "a.txt"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "the end"])
def test_lines_are_read_in_parts_by_the_byte_at_which_they_begin(tmp_path, end, last):
    lines = [f"é {k}" if k % 3 else "" for k in range(10)] + ([last] if last else [])
    path = written(tmp_path, "\ufeff" + end.join(lines) + ("" if last else end), "a.txt")
    encoding = text_files.line_encoding(path)
    parts = list(text_files.line_parts(path, 4))
    assert [(part.start, part.lines) for part in parts] == [(0, 4), (4, 4), (8, len(lines) - 8)]
    again = [line for part in parts for line in text_files.read_lines(path, part, encoding)]
    assert again == lines


def test_lines_in_windows_encoding_are_read_and_said(tmp_path):
    path = written(tmp_path, "café\nnaïve\n".encode("cp1252"), "a.txt")
    with opened() as account:
        encoding = text_files.line_encoding(path)
    (part,) = text_files.line_parts(path, 9)
    assert text_files.read_lines(path, part, encoding) == ["café", "naïve"]
    assert "cp1252 (Windows), not UTF-8" in " ".join(account.lines())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\nb\n".encode("utf-16"), "is UTF-16, not UTF-8; save it as UTF-8"),
        ("é\n".encode() + "ï\n".encode("cp1252"), "neither UTF-8 nor cp1252"),
        (b"ab\0cd\n" * 9, "binary"),
    ],
)
def test_lines_in_other_encodings_are_refused(tmp_path, content, reason):
    with pytest.raises(InputError, match=reason):
        text_files.line_encoding(written(tmp_path, content, "a.txt"))


def test_an_empty_file_has_no_lines(tmp_path):
    assert list(text_files.line_parts(written(tmp_path, b"", "a.txt"), 4)) == []


def test_lists_of_labels_in_lines_of_json_are_labels(tmp_path):
    rows = [{"text": "a b", "labels": ["x", "y"]}, {"text": "b c", "labels": []}]
    table, _ = read(written(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert table.labels is not None
    assert table.labels.names == [("x", "y"), ()]
