"""Predictions: every text once, in order, the same however it comes."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.inference.shards import ShardWorker
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.text import prediction
from headwise.pipelines.text.options import TextPredictOptions
from headwise.tests.pipelines.text.messages import (
    classed,
    messages,
    numbered,
    parts_of,
    predict,
    train,
    write_rows,
)

CLOSE = {"check_exact": False, "abs_tol": 1e-6, "rel_tol": 0.0}


def plain(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("file", "item", "part")


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["text"].replace("\n", " ") for row in rows]


def test_every_row_comes_out_once_in_order_with_its_number_and_name(labels_run, tmp_path):
    rows = predict(labels_run, labels_run.parent / "table.jsonl", tmp_path / "o.parquet")
    assert rows["row"].to_list() == list(range(150))
    assert rows["id"].to_list() == [row["id"] for row in messages()]
    assert set(rows["status"]) == {"ok"}


def test_labels_are_those_of_the_logits_of_the_model_called_by_itself(labels_run, tmp_path):
    """Against the coder of the training, all texts in one batch."""
    data = labels_run.parent / "table.jsonl"
    rows = predict(labels_run, data, tmp_path / "o.parquet", all_labels=True, top=99)
    loaded = load_run(load_task("text").load(), str(labels_run), "cpu")
    coder = prediction.coder_of(loaded.spec)
    table = prediction.read_part(
        prediction.list_parts(TextPredictOptions(run="", output="", input=str(data)), loaded.spec)[
            0
        ],
        TextPredictOptions(run="", output="", input=str(data)),
        loaded.spec,
    )
    logits, _ = prediction.text_logits(loaded.model, table, coder, loaded.device, 1000)
    calibration = {name: values.double().numpy() for name, values in loaded.calibration.items()}
    scaled = logits * calibration["slope"] + calibration["shift"]
    names = loaded.spec.labels
    for k, name in enumerate(names):
        np.testing.assert_allclose(rows[f"p_{name}"], 1 / (1 + np.exp(-scaled[:, k])), atol=1e-6)
    for row, values in zip(rows.iter_rows(named=True), scaled, strict=True):
        order = np.argsort(-values, kind="stable")
        assert row["top"] == [names[k] for k in order]
        given = [names[k] for k in order if values[k] >= calibration["threshold"][k]]
        assert row["labels"] == given
        assert row["above"] == list(dict.fromkeys(name.split("::")[0] for name in given))
        assert {*given} <= {*row["possible"]}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_size_of_a_batch_changes_nothing(labels_run, tmp_path, batch_size):
    """Short and long texts, empty ones, and some of other scripts beside each other."""
    texts = [*texts_of(messages(20)), "", "wifi " * 700, "принтер не работает", "🖨 " * 40, "a"]
    data = write_rows(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    expected = predict(labels_run, data, tmp_path / "a.parquet", all_labels=True)
    output = tmp_path / "b.parquet"
    rows = predict(labels_run, data, output, all_labels=True, batch_size=batch_size)
    assert_frame_equal(rows, expected, **CLOSE)


def test_numbers_of_a_table_are_read_the_same_in_any_company(tmp_path):
    """1.250 alone could be 1250 or 1.25; the training says which."""
    rows = numbered()
    for row in rows:
        row["pages"] = f"{1000 + 250 * row['pages']:,}.5".translate(str.maketrans(",.", ".,"))
    run = train(write_rows(tmp_path / "t.csv", rows), tmp_path / "run", table=("pages",)).path
    alone = [{"text": "good text", "pages": "1.250"}]
    company = [*alone, {"text": "x", "pages": "1.750,5"}]
    first, second = (
        predict(run, write_rows(tmp_path / f"{k}.csv", table), tmp_path / f"{k}.parquet")
        for k, table in enumerate((alone, company))
    )
    assert first["prediction"][0] == pytest.approx(second["prediction"][0], abs=1e-6)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_files_are_read_in_parts_that_change_nothing(class_run, tmp_path, monkeypatch, ending):
    data = write_rows(tmp_path / f"t.{ending}", classed(50))
    once = predict(class_run, data, tmp_path / "a.parquet")
    monkeypatch.setattr(prediction, "PART", 16)
    parts = predict(class_run, data, tmp_path / "b.parquet", shard_size=2)
    assert parts["item"].unique().sort().to_list() == [f"t.{ending}:{k}" for k in (0, 16, 32, 48)]
    assert_frame_equal(plain(parts), plain(once), **CLOSE)
    facts = json.loads((tmp_path / "b.parquet.account.json").read_text())["account"]
    (entry,) = [entry for entry in facts if entry["what"] == "texts"]
    assert entry["count"] == 50


@pytest.mark.parametrize("form", ["lines", "JSON lines", "a folder of files", "Windows lines"])
def test_texts_get_the_same_labels_in_whatever_form_they_come(
    class_run, tmp_path, monkeypatch, form
):
    texts = [*texts_of(classed(40)), "", "café: the wifi is slow"]
    rows = [{"text": text} for text in texts]
    expected = predict(class_run, write_rows(tmp_path / "t.csv", rows), tmp_path / "a.parquet")
    monkeypatch.setattr(prediction, "PART", 16)
    source = tmp_path / "in.txt"
    if form == "JSON lines":
        lines = [json.dumps(row) if row["text"] else "" for row in rows]
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif form == "a folder of files":
        source = tmp_path / "in"
        source.mkdir()
        for k, text in enumerate(texts):
            (source / f"{k:03d}.txt").write_text(text, encoding="utf-8")
    else:
        encoding = "cp1252" if form == "Windows lines" else "utf-8"
        source.write_text("\n".join(texts) + "\n", encoding=encoding)
    found = predict(class_run, source, tmp_path / "b.parquet")
    columns = ["prediction", "probability", "top", "top_probability", "possible", "known_words"]
    assert_frame_equal(found.select(columns), expected.select(columns), **CLOSE)
    if form == "a folder of files":
        assert found["id"].to_list() == [f"{k:03d}.txt" for k in range(42)]
    else:
        assert found["row"].to_list() == list(range(42))
        assert found["id"].to_list() == [str(k) for k in range(42)]


def test_json_among_lines_of_text_is_text(class_run, tmp_path):
    (tmp_path / "t.txt").write_text('{name}, the wifi is slow\n{"text": "the printer"}\n')
    rows = predict(class_run, tmp_path / "t.txt", tmp_path / "o.parquet")
    assert rows["prediction"][0] == "network"
    assert rows.height == 2


def test_one_bad_line_of_json_fails_its_part_and_no_other(class_run, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "PART", 4)
    lines = [json.dumps({"text": text}) for text in texts_of(classed(12))]
    lines[5] = "{"
    (tmp_path / "t.txt").write_text("\n".join(lines))
    rows = predict(class_run, tmp_path / "t.txt", tmp_path / "o.parquet")
    failed = rows.filter(pl.col("status") == "error")
    assert failed["item"].to_list() == ["t.txt:4"]
    assert "line 6: '{' is no JSON object" in failed["error"][0]
    assert rows.height == 4 + 1 + 4


def from_standard_input(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), closed=False))


def test_standard_input_gives_what_a_file_gives_and_leaves_nothing(
    class_run, tmp_path, monkeypatch
):
    content = "\n".join([*texts_of(classed(40)), ""]).encode()
    (tmp_path / "t.txt").write_bytes(content)
    expected = predict(class_run, tmp_path / "t.txt", tmp_path / "a.parquet")
    from_standard_input(monkeypatch, content)
    rows = predict(class_run, "-", tmp_path / "b.parquet")
    assert_frame_equal(plain(rows), plain(expected))
    assert set(rows["file"]) == {"-"}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"t.txt"} | {f"{k}.parquet{e}" for k in "ab" for e in ("", ".account.json")}


def test_the_same_standard_input_is_known_again_and_another_is_refused(
    class_run, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "o.parquet"
    from_standard_input(monkeypatch, b"the wifi is slow\n")
    predict(class_run, "-", output)
    stamp = output.stat().st_mtime_ns
    from_standard_input(monkeypatch, b"the wifi is slow\n")
    predict(class_run, "-", output)
    assert output.stat().st_mtime_ns == stamp
    assert "already done" in capsys.readouterr().err
    from_standard_input(monkeypatch, b"the printer is slow\n")
    with pytest.raises(InputError, match="already exists, made by another model or input"):
        predict(class_run, "-", output)
    assert {path.name for path in tmp_path.iterdir()} == {"o.parquet", "o.parquet.account.json"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "--input -: standard input is empty"),
        ("wifi\n".encode("utf-16"), "--input -: is UTF-16, not UTF-8"),
        (b"wifi\0\0\0" * 9, "--input -: is binary"),
        ("é\n".encode() + "ï\n".encode("cp1252"), "--input -: is neither UTF-8 nor cp1252"),
    ],
)
def test_standard_input_that_is_no_text_is_refused(
    class_run, tmp_path, monkeypatch, content, reason
):
    from_standard_input(monkeypatch, content)
    with pytest.raises(InputError, match=reason) as caught:
        predict(class_run, "-", tmp_path / "o.parquet")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_was_killed_goes_on_with_the_same_standard_input(
    class_run, tmp_path, monkeypatch, capsys, processes
):
    monkeypatch.setattr(prediction, "PART", 4)
    content = "\n".join(texts_of(classed(20))).encode()
    output, do = tmp_path / "o.parquet", ShardWorker.do

    def dies(worker: ShardWorker, shard: int) -> int:
        if shard == 2:
            raise KeyboardInterrupt
        return do(worker, shard)

    from_standard_input(monkeypatch, content)
    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "do", dies)
        with pytest.raises(KeyboardInterrupt):
            predict(class_run, "-", output, shard_size=1)
    from_standard_input(monkeypatch, content)
    capsys.readouterr()
    rows = predict(class_run, "-", output, shard_size=1, processes=processes)
    assert "2 of 5 items were done before" in capsys.readouterr().err
    assert rows["row"].to_list() == list(range(20))
    assert {path.name for path in tmp_path.iterdir()} == {"o.parquet", "o.parquet.account.json"}


def test_a_prediction_reads_no_labels(class_run, tmp_path):
    data = write_rows(tmp_path / "t.csv", classed(4))
    with pytest.raises(InputError, match="--columns label=label: a prediction reads no such"):
        predict(class_run, data, tmp_path / "o.parquet", columns=("label=label",))
    with pytest.raises(InputError, match="no field 'txt'; did you mean 'text'"):
        predict(class_run, data, tmp_path / "o.parquet", columns=("txt=text",))


def test_closed_or_shared_standard_input_is_refused(class_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        predict(class_run, "-", tmp_path / "o.parquet")
    from_standard_input(monkeypatch, b"wifi\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="only one process can read standard input"):
        predict(class_run, "-", tmp_path / "o.parquet")


@pytest.mark.slow
def test_a_hundred_thousand_lines_take_no_more_memory_than_a_thousand(class_run, tmp_path):
    peaks = {}
    for count in (2_000, 100_000):
        lines = "".join(f"{text} {k}\n" for k, text in zip(range(count), texts_of(classed()) * 999))
        code = (
            "import resource; from headwise.pipelines.engine.command_line import main\n"
            f"words = ['text', 'predict', '--run', {str(class_run)!r}, '--input', '-', '--output',"
            f" {str(tmp_path / f'{count}.parquet')!r}]\n"
            "try: main(words)\n"
            "except SystemExit as stop: assert not stop.code\n"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=lines, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        peaks[count] = int(done.stdout.split()[-1]) / 1024
        rows = pl.read_parquet(tmp_path / f"{count}.parquet", columns=["row"])
        assert rows["row"].to_list() == list(range(count))
    print(peaks)
    assert peaks[100_000] < peaks[2_000] + 150, "MiB"


def test_more_labels_than_there_are_may_be_asked_for(class_run, tmp_path):
    data = write_rows(tmp_path / "t.csv", classed(4))
    rows = predict(class_run, data, tmp_path / "o.parquet", top=99)
    assert {*rows["top"].list.len()} == {3}
    one = predict(class_run, data, tmp_path / "p.parquet", top=1)
    assert one["top"].list.first().to_list() == rows["prediction"].to_list()
    assert_frame_equal(one.select("probability"), rows.select("probability"))


def test_labels_with_the_names_of_columns_have_columns_of_their_own(tmp_path):
    names = {"hardware": "id", "network": "row", "billing": "status"}
    rows = [{**row, "label": names[row["label"]]} for row in classed()]
    run = train(write_rows(tmp_path / "t.csv", rows), tmp_path / "run", columns=("id=id",)).path
    data = write_rows(tmp_path / "n.csv", classed(6))
    table = predict(run, data, tmp_path / "o.parquet", all_labels=True)
    assert table["prediction"].to_list() == ["id", "row", "status"] * 2
    assert table["id"].to_list() == [f"m{k}" for k in range(6)]
    total = table.select("p_id", "p_row", "p_status").sum_horizontal()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert set(table["status"]) == {"ok"}


def test_who_abstains_gives_no_label_below_a_probability(class_run, labels_run, tmp_path):
    unclear = [{"text": text, "id": "x"} for text in ("what", "a printer, wifi or invoice", "")]
    data = write_rows(tmp_path / "t.jsonl", [*classed(20), *unclear])
    plain_rows = predict(class_run, data, tmp_path / "a.parquet")
    level = (plain_rows["probability"].min() + plain_rows["probability"].max()) / 2  # type: ignore
    rows = predict(class_run, data, tmp_path / "b.parquet", abstain=level)
    below = plain_rows["probability"] < level
    assert 0 < below.sum() < 23
    assert rows["prediction"].is_null().to_list() == below.to_list()
    assert_frame_equal(rows.drop("prediction"), plain_rows.drop("prediction"))
    some = predict(labels_run, data, tmp_path / "c.parquet", abstain=0.99)
    bold = predict(labels_run, data, tmp_path / "d.parquet")
    silent = some["top_probability"].list.first() < 0.99
    assert bold.filter(silent)["labels"].list.len().sum()
    assert not some.filter(silent)["labels"].list.len().sum()
    assert not some.filter(silent)["above"].list.len().sum()
    assert_frame_equal(some.filter(~silent), bold.filter(~silent))


@pytest.mark.parametrize("option", [{"abstain": 0.5}, {"all_labels": True}])
def test_options_of_labels_are_refused_for_a_number(number_run, tmp_path, option):
    flag = next(iter(option)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag}: the run predicts a number, not labels"):
        predict(number_run, number_run.parent / "table.csv", tmp_path / "o.parquet", **option)


def test_a_number_has_an_interval_of_one_width_in_its_own_unit(number_run, tmp_path):
    rows = predict(number_run, number_run.parent / "table.csv", tmp_path / "o.parquet")
    truth = pl.read_csv(number_run.parent / "table.csv")["score"]
    assert np.corrcoef(rows["prediction"], truth)[0, 1] > 0.8
    half = rows["high"] - rows["prediction"]
    np.testing.assert_allclose(half, half[0])
    np.testing.assert_allclose(rows["prediction"] - rows["low"], half)
    assert ((truth >= rows["low"]) & (truth <= rows["high"])).mean() > 0.7  # type: ignore


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("subject,plan\na,b\n", "there is no column 'text'; it has 'subject', 'plan'"),
        ("text\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_tables_without_texts_are_refused(class_run, tmp_path, headwise, content, reason):
    (tmp_path / "t.csv").write_text(content)
    output = tmp_path / "o.parquet"
    words = ("text", "predict", "--run", class_run, "--input", tmp_path / "t.csv")
    code, lines = headwise(*words, "--output", output)
    assert code in (2, 3)
    assert reason in " ".join(lines)
    assert "Traceback" not in " ".join(lines)


def test_a_column_that_the_model_sees_must_be_there(number_run, tmp_path, headwise):
    data = write_rows(tmp_path / "t.csv", [{"text": "good", "page": 3}])
    words = ("text", "predict", "--run", number_run, "--input", data)
    code, lines = headwise(*words, "--output", tmp_path / "o.parquet")
    assert code == 3
    assert "--table pages: there is no column 'pages'; did you mean 'page'?" in " ".join(lines)


def test_a_table_of_other_columns_is_read_and_said(class_run, tmp_path):
    data = write_rows(tmp_path / "t.csv", [{"message": "the wifi is slow", "mood": 3}])
    rows = predict(class_run, data, tmp_path / "o.parquet")
    assert rows["prediction"].to_list() == ["network"]
    assert rows["id"].to_list() == ["0"]
    account = (tmp_path / "o.parquet.account.json").read_text()
    assert "'message' is taken as the text" in account
    assert "mood" in account


def test_a_title_that_the_training_did_not_have_is_not_read(class_run, tmp_path):
    text = {"text": "the wifi is slow"}
    rows = [{"title": "the invoice is wrong, an invoice and an invoice", **text}]
    data = write_rows(tmp_path / "t.csv", rows), write_rows(tmp_path / "n.csv", [text])
    with_title, without = (
        predict(class_run, table, tmp_path / f"{k}.parquet", all_labels=True)
        for k, table in enumerate(data)
    )
    assert_frame_equal(with_title.drop("file", "item"), without.drop("file", "item"), **CLOSE)
    assert "title" in (tmp_path / "0.parquet.account.json").read_text()


def test_tables_beside_text_files_are_named_as_left_out(class_run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("the wifi is slow")
    write_rows(tmp_path / "in" / "t.csv", classed(4))
    rows = predict(class_run, tmp_path / "in", tmp_path / "o.parquet")
    assert rows["id"].to_list() == ["a.txt"]
    assert "t.csv" in (tmp_path / "o.parquet.account.json").read_text()


def test_a_broken_file_among_others_is_a_row_that_says_why(class_run, tmp_path, headwise):
    (tmp_path / "in").mkdir()
    for name, content in (("a", b"the wifi is slow"), ("b", b"\0\1\2" * 9), ("c", b"the printer")):
        (tmp_path / "in" / f"{name}.txt").write_bytes(content)
    words = ("text", "predict", "--run", class_run, "--input", tmp_path / "in")
    code, _ = headwise(*words, "--output", tmp_path / "o.parquet")
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert code == 3
    assert rows["status"].to_list() == ["ok", "error", "ok"]
    assert "is binary" in rows["error"][1]


@pytest.mark.parametrize("name", ["terms.parquet", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["removed", "cut", "another"])
def test_damaged_assets_are_refused_in_one_line(class_run, tmp_path, headwise, name, damage):
    run = shutil.copytree(class_run, tmp_path / "run")
    path = run / "assets" / name
    if damage == "removed":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif name == "terms.parquet":
        pl.DataFrame({"term": ["a"], "weight": [1.0]}).write_parquet(path)
    else:
        path.write_text('{"kind": "words", "words": ["a"]}')
    data = write_rows(tmp_path / "t.csv", classed(4))
    for words in (("predict", "--input", data, "--output", tmp_path / "o.csv"), ("evaluate",)):
        code, lines = headwise("text", words[0], "--run", run, *words[1:])
        assert code == 2, lines
        assert len(lines) == 1, lines
        assert f"assets/{name}" in lines[0]


def test_assets_that_are_not_of_the_spec_are_refused(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", classed()))
    for name, write in splits.assets.items():
        write(tmp_path / name)
    spec = splits.spec.with_assets({}, tmp_path)
    prediction.load_coder(spec)
    pl.DataFrame({"term": ["a"], "weight": [1.0]}).write_parquet(tmp_path / "terms.parquet")
    with pytest.raises(InputError, match=r"terms.parquet: should hold \d+ terms"):
        prediction.load_coder(spec)
    splits.assets["terms.parquet"](tmp_path / "terms.parquet")
    words = json.dumps({"kind": "words", "words": [f"w{k}" for k in range(9999)]})
    (tmp_path / "tokenizer.json").write_text(words)
    with pytest.raises(InputError, match=r"tokenizer.json: has 10,002 tokens, but the encoder"):
        prediction.load_coder(spec)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(InputError, match=r"tokenizer.json: is damaged"):
        prediction.load_coder(spec)


def test_a_coder_is_read_again_where_its_files_changed(class_run, tmp_path):
    run = shutil.copytree(class_run, tmp_path / "run")
    spec = load_run(load_task("text").load(), str(run), "cpu").spec
    assert prediction.coder_of(spec) is prediction.coder_of(spec)
    first = prediction.coder_of(spec)
    path = run / "assets" / "terms.parquet"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert prediction.coder_of(spec) is not first


@pytest.mark.slow
def test_a_text_of_five_megabytes_is_predicted_for(class_run, tmp_path):
    text = "the wifi of room 12 is slow and nothing else is wrong. " * 96_000
    assert len(text) > 5 << 20
    data = write_rows(tmp_path / "t.jsonl", [{"text": text}, {"text": "the printer is slow"}])
    with opened():
        rows = predict(class_run, data, tmp_path / "o.parquet")
    assert rows["prediction"].to_list() == ["network", "hardware"]
    assert "1 texts of which the network reads" in " ".join(
        f"{entry['count']} {entry['what']}"
        for entry in json.loads((tmp_path / "o.parquet.account.json").read_text())["account"]
    )


def test_a_text_beyond_all_measure_is_refused(class_run, tmp_path, monkeypatch):
    monkeypatch.setattr("headwise.data.text_files.TEXT_CAP", 1000)
    data = write_rows(tmp_path / "t.jsonl", [{"text": "a b"}, {"text": "wifi " * 300}])
    rows = predict(class_run, data, tmp_path / "o.parquet")
    assert "row 2: has 1,500 characters, more than 1,000" in rows["error"][0]
    Path(tmp_path / "l.txt").write_text("a\n" + "wifi " * 300)
    with pytest.raises(InputError, match="line 2: has 1,500 characters"):
        predict(class_run, tmp_path / "l.txt", tmp_path / "p.parquet")


def test_lines_that_end_with_cr_are_refused_and_those_with_one_within_are_counted(
    class_run, tmp_path, headwise
):
    path = tmp_path / "t.txt"
    path.write_bytes(b"the printer is slow\rthe wifi is slow\r")
    words = ["text", "predict", "--run", class_run, "--input", path]
    code, lines = headwise(*words, "--output", tmp_path / "a.jsonl")
    assert (code, len(lines)) == (2, 1)
    assert "lines that end with CR alone" in lines[0]
    path.write_bytes(b"the printer\r\nthe wifi\ris slow\n")
    assert predict(class_run, path, tmp_path / "b.jsonl").height == 2
    account = (tmp_path / "b.jsonl.account.json").read_text()
    assert "lines of text with CR within" in account
