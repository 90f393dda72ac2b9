"""What a prediction leaves behind: its table in any format, its account, nothing of others."""

import json
import os
from datetime import datetime
from pathlib import Path

import filelock
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headwise.base import account
from headwise.base.errors import InputError
from headwise.pipelines.engine.inference import output as formats
from headwise.pipelines.engine.inference import shards
from headwise.pipelines.engine.inference.members import (
    member_key,
    parts_column,
    read_members,
    write_members,
)
from headwise.pipelines.engine.inference.plan import make_plan
from headwise.pipelines.engine.pipeline import Member
from headwise.tests.pipelines.engine.averages import call
from headwise.tests.statements import statements

ENDINGS = [".parquet", ".csv", ".tsv", ".jsonl", ".xlsx"]


@pytest.fixture
def job(averages, tmp_path):
    """A task with a finished run, and a file of three numbers to predict for."""
    task = averages()
    call(task, "train", run=tmp_path / "run", accelerator="cpu", epochs=1, bias=0.25)
    (tmp_path / "in.json").write_text("[1, null, 3]")
    return task


def predict(task, folder: Path, name: str = "o.parquet", **options):
    values = {"run": folder / "run", "input": folder / "in.json", "output": folder / name}
    return call(task, "predict", **{**values, **options})


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_reads_back_equal(job, tmp_path, ending):
    expected = predict(job, tmp_path).table()
    table = predict(job, tmp_path, f"o{ending}").table()
    assert_frame_equal(table, expected, check_dtypes=False, abs_tol=1e-14)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_job_killed_in_the_join_ends_in_the_same_bytes(job, tmp_path, ending, monkeypatch):
    predict(job, tmp_path, f"whole{ending}")

    def killed(*arguments):
        arguments[1].write_bytes(b"half of a tab")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if ending == ".parquet":
            patch.setattr(pl.LazyFrame, "sink_parquet", lambda *a, **k: killed(a[0], Path(a[1])))
        else:
            patch.setattr(shards, "writer_of", lambda *a: killed)
        with pytest.raises(KeyboardInterrupt):
            predict(job, tmp_path, f"o{ending}")
    assert not (tmp_path / f"o{ending}").exists()
    predict(job, tmp_path, f"o{ending}")
    assert (tmp_path / f"o{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*o*" + ending + "*")) == [
        f"o{ending}",
        f"o{ending}.account.json",
        f"whole{ending}",
        f"whole{ending}.account.json",
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_finished_output_is_not_made_again_and_a_changed_one_is_not_overwritten(
    job, tmp_path, ending
):
    predict(job, tmp_path, f"o{ending}")
    job.asked.clear()
    assert predict(job, tmp_path, f"o{ending}").failed == 1
    assert job.asked == []
    (tmp_path / "in.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="made by another model or input"):
        predict(job, tmp_path, f"o{ending}")


@pytest.mark.parametrize("ending", [".csv", ".xlsx", ".jsonl"])
def test_columns_of_all_kinds_survive(tmp_path, ending):
    rows = pl.DataFrame(
        {
            "text": ["plain", 'quo"te, comma', "line\nbreak", "Zürich 会議", None],
            "number": [1.5, -2.0, 1e-9, None, 0.1],
            "whole": [1, -1, 2**40, None, 0],
            "flag": [True, False, None, True, False],
            "time": [datetime(2024, 1, 31, 13), None, *[datetime(1999, 12, 31)] * 3],
            "list": [[0.5, 2.0], [], None, [1.0], [None, 1.0]],
        }
    )
    path = tmp_path / f"t{ending}"
    writer = formats.writer_of(path, {})
    assert writer is not None
    with account.opened() as notes:
        writer(rows.lazy(), path)
    nested = {("assumed", "columns of lists, written as JSON text"): (1, ["list"])}
    assert statements(notes) == ({} if ending == ".jsonl" else nested)
    table = formats.read_output(path)
    for name in ("text", "number", "whole", "flag"):
        assert table[name].to_list() == rows[name].to_list()
    assert [cell and str(cell)[:10] for cell in table["time"]] == [
        "2024-01-31",
        None,
        *["1999-12-31"] * 3,
    ]
    lists = [
        cell if isinstance(cell, str | None) else json.dumps(cell.to_list())
        for cell in table["list"]
    ]
    assert [cell and json.loads(cell) for cell in lists] == rows["list"].to_list()


def test_formulas_are_harmless_in_text_formats(tmp_path):
    cells = ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "-5", "+1.5", "a=b", "ok"]
    rows = pl.LazyFrame({"cell": cells})
    for ending in (".csv", ".tsv"):
        writer = formats.writer_of(f"x{ending}", {})
        assert writer is not None
        writer(rows, tmp_path / f"x{ending}")
        read = pl.read_csv(
            tmp_path / f"x{ending}", separator="\t" if ending == ".tsv" else ",", infer_schema=False
        )
        assert read["cell"].to_list() == [*(f"'{cell}" for cell in cells[:5]), *cells[5:]]


@pytest.mark.parametrize("name", ["o.srt", "o.txt", "o", "o.xls"])
def test_an_unknown_ending_is_refused_before_anything_is_made(job, tmp_path, name):
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"unknown ending .*\.parquet, \.csv, \.tsv"):
        predict(job, tmp_path, name)
    assert set(tmp_path.iterdir()) == before


def test_a_format_of_the_task_is_written_by_the_task(job, tmp_path):
    def write_names(rows, path):
        path.write_text(
            "\n".join(rows.select("item").unique(maintain_order=True).collect()["item"])
        )

    job.further_outputs = lambda: {".names": write_names}
    predict(job, tmp_path, "o.names")
    assert (tmp_path / "o.names").read_text() == "n0\nn1\nn2"


def test_a_folder_of_parts_that_is_not_ours_stays(job, tmp_path):
    folder = tmp_path / "o.parquet.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds thesis\.txt, which is not of a prediction"):
        predict(job, tmp_path)
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == ["thesis.txt"]


def test_an_output_that_is_an_input_is_refused(job, tmp_path):
    (tmp_path / "link.csv").symlink_to("in.json")
    before = (tmp_path / "in.json").read_bytes()
    with pytest.raises(InputError, match="is read by this command; name another"):
        predict(job, tmp_path, "link.csv", overwrite=True)
    assert (tmp_path / "in.json").read_bytes() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_put_among_the_parts_later_stays(job, tmp_path, monkeypatch, overwrite):
    monkeypatch.setenv("WORLD_SIZE", "2")
    predict(job, tmp_path, shard_size=1)
    folder = tmp_path / "o.parquet.parts"
    (folder / "note.txt").write_text("mine")
    monkeypatch.delenv("WORLD_SIZE")
    if overwrite:
        (tmp_path / "in.json").write_text("[4]")
    assert predict(job, tmp_path, shard_size=1, overwrite=overwrite).complete
    assert [path.name for path in folder.iterdir()] == ["note.txt"]


def test_two_predictions_into_one_output_do_not_meet(job, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    predict(job, tmp_path, shard_size=1)
    (lock,) = (tmp_path / "o.parquet.parts").glob("rank-0-*.lock")
    with filelock.FileLock(lock):
        with pytest.raises(InputError, match="another process predicts into it"):
            predict(job, tmp_path, shard_size=1)
        (tmp_path / "in.json").write_text("[4]")
        with pytest.raises(InputError, match="another process predicts into it"):
            predict(job, tmp_path, shard_size=1, overwrite=True)
    assert not (tmp_path / "o.parquet").exists()


def with_value(number, result):
    """Rows like those of the task, but for one number."""

    def rows(model, value, calibration, options):
        if value == number and isinstance(result, Exception):
            raise result
        value = result if value == number else float(value)
        return pl.DataFrame({"step": [1], "value": [value]})

    return rows


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (float("nan"), "the model gives no finite number (value)"),
        (float("-inf"), "the model gives no finite number (value)"),
        (MemoryError(), "takes more memory than there is"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_an_item_without_a_finite_answer_is_an_error_and_the_others_go_on(
    job, tmp_path, result, error
):
    (tmp_path / "in.json").write_text("[1, 2, 3]")
    job._rows = with_value(2, result)
    table = predict(job, tmp_path).table()
    assert table["status"].to_list() == ["ok", "error", "ok"]
    assert error in table["error"][1]
    assert table["value"].to_list() == [1.0, None, 3.0]


def test_a_full_disk_ends_the_job(job, tmp_path):
    job._rows = with_value(1, OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        predict(job, tmp_path)


def test_numbers_in_lists_count_as_numbers():
    rows = pl.DataFrame({"a": [[1.0, float("nan")]], "b": [[[1.0]]], "c": [None]})
    assert formats.unfinite(rows) == ["a"]


def test_the_fingerprint_sees_edits_that_keep_size_and_time(job, tmp_path, monkeypatch):
    path = tmp_path / "in.json"
    values = {"run": tmp_path / "run", "input": path, "output": tmp_path / "o.parquet"}
    options = job.task.predict_options(**{name: str(value) for name, value in values.items()})

    def fingerprint():
        return make_plan(job, options).fingerprint

    before, status = fingerprint(), path.stat()
    assert fingerprint() == before
    monkeypatch.setattr(job, "list_items", lambda *a: [{"file": str(path), "id": "n0"}])
    same_items = fingerprint()
    while path.stat().st_ctime_ns == status.st_ctime_ns:
        path.write_text("[1, null, 4]")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() != same_items
    same_input = fingerprint()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("bias: 0.25", "bias: 0.5"))
    assert fingerprint() != same_input
    other_config = fingerprint()
    monkeypatch.setattr(job, "list_items", lambda *a: [{"file": str(path), "id": "n1"}])
    assert fingerprint() != other_config


def test_a_file_that_vanished_is_an_item_that_fails(job, tmp_path, monkeypatch):
    gone = {"file": str(tmp_path / "gone.json"), "id": "gone", "number": None}
    monkeypatch.setattr(job, "list_items", lambda *a: [gone])
    assert predict(job, tmp_path).failed == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_name_that_is_not_utf8_is_written_as_escapes(job, tmp_path, monkeypatch, named):
    name = os.fsdecode(b"n\xff.json")
    item = {"file": str(tmp_path / name), "id": name if named else None, "number": None}
    monkeypatch.setattr(job, "list_items", lambda *a: [item])
    row = predict(job, tmp_path).table().row(0, named=True)
    assert (row["status"], row["item"]) == ("error", "n\\xff.json")


def test_items_are_recognised_by_their_contents(tmp_path):
    for name, content in {"a": b"1" * 300_000, "b": b"2" * 10, "c": b"3"}.items():
        (tmp_path / name).write_bytes(content)
    members = {
        "train": [Member(str(tmp_path / "a"))],
        "test": [Member(str(tmp_path / "b"), "row 1"), Member(str(tmp_path / "gone"))],
    }
    write_members(tmp_path / "members.json", members)
    (tmp_path / "copy").write_bytes((tmp_path / "a").read_bytes())
    asked = [("copy", ""), ("b", "row 1"), ("b", "row 2"), ("c", ""), ("gone", "")]
    parts = parts_column(
        read_members(tmp_path / "members.json"),
        [Member(str(tmp_path / name), id) for name, id in asked],
    )
    assert parts.to_list() == ["train", "test", None, None, None]
    changed = bytearray((tmp_path / "a").read_bytes())
    changed[-1] = 0
    (tmp_path / "a").write_bytes(changed)
    assert member_key(Member(str(tmp_path / "a"))) not in read_members(tmp_path / "members.json")


def test_predictions_say_what_part_an_item_was_in(job, tmp_path):
    item = {"file": str(tmp_path / "in.json"), "id": "n0"}
    job.member = lambda item: Member(item["file"], item["id"])
    write_members(tmp_path / "run" / "members.json", {"test": [job.member(item)]})
    table = predict(job, tmp_path).table()
    assert table.group_by("item", maintain_order=True).first()["part"].to_list() == [
        "test",
        None,
        None,
    ]


def test_one_item_prints_its_answer_and_several_do_not(job, tmp_path, capsys):
    (tmp_path / "in.json").write_text("[1]")
    predict(job, tmp_path)
    assert capsys.readouterr().out.startswith("step 1, value ")
    (tmp_path / "in.json").write_text("[1, 2]")
    predict(job, tmp_path, "two.parquet")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_what_readers_note_while_they_predict_is_in_the_account(job, tmp_path, capsys, size):
    plain = job._rows

    def noting(model, number, *arguments):
        account.note("values", "numbers that are odd", [number] if number else [])
        return plain(model, number, *arguments)

    job._rows = noting
    predict(job, tmp_path, shard_size=size)
    facts = json.loads((tmp_path / "o.parquet.account.json").read_text())
    assert facts["account"] == [
        {"topic": "values", "what": "numbers that are odd", "count": 2, "names": ["1", "3"]}
    ]
    assert "values: 2 numbers that are odd (1, 3)" in capsys.readouterr().err


def test_no_output_replaces_what_its_command_reads(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("x")
    for output in ("in", "in/a.png", ".", "in/../in/a.png"):
        with pytest.raises(InputError, match=r"is read by this command|would be replaced with it"):
            formats.refuse_input_as_output(
                tmp_path / output, [tmp_path / "in" / "a.png", tmp_path / "in"]
            )
    # OUTPUT.maps/ is written next to OUTPUT.
    (tmp_path / "o.csv.maps").mkdir()
    with pytest.raises(InputError, match=r"--output .*o.csv: .*o.csv.maps, which is read, would"):
        formats.refuse_input_as_output(tmp_path / "o.csv", [tmp_path / "o.csv.maps"])
    formats.refuse_input_as_output(
        tmp_path / "in" / "o.csv", [tmp_path / "in", tmp_path / "in" / "a.png"]
    )
    formats.refuse_input_as_output(tmp_path / "o.csv", [tmp_path / "gone.csv", "d/*.csv"])


def test_a_file_of_the_run_is_not_replaced(job, tmp_path):
    history = tmp_path / "run" / "history.csv"
    history.write_text("x")
    with pytest.raises(InputError, match=r"history\.csv: is a file of the run; name another"):
        predict(job, tmp_path, "run/history.csv", overwrite=True)
    assert history.read_text() == "x"
    for _ in range(2):  # predictions may lie there, and be replaced
        assert predict(job, tmp_path, "run/o.csv", overwrite=True).complete
