"""Text end to end. The contract of all tasks (tests/contract) holds it to the rest."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.base.files import checksum
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.inference.export import export
from headwise.pipelines.engine.options import ExportOptions
from headwise.pipelines.text import prediction
from headwise.tests.pipelines.text.messages import (
    classed,
    messages,
    numbered,
    parts_of,
    predict,
    train,
    write_rows,
)

WEIGHTS = ("model.safetensors", "calibration.safetensors", "spec.json", "assets/terms.parquet")
MODELS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "hybrid, mixing": {"layers": 1, "heads": 2},
    "attention": {"model": "attention"},
    "sparse": {"model": "sparse", "width": 96, "weights": "none"},
    "cross": {"model": "cross", "table": ("seats", "plan"), "layers": 1, "heads": 2},
    "sources": {"model": "sources"},
}
CLOSE = {"check_exact": False, "abs_tol": 2e-6, "rel_tol": 0.0}


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_labels_are_learned(labels_run):
    metrics = metrics_of(labels_run)
    assert metrics["precision_at_1"] > 0.6, "one of ten labels"
    ladder = metrics["ladder"]
    assert ladder, "the simple models stand beside it"


def test_classes_are_learned(class_run):
    assert metrics_of(class_run)["accuracy"] > 0.9


def test_a_number_is_learned_of_the_text_and_the_table(number_run):
    assert metrics_of(number_run)["r2"] > 0.5


def test_a_training_that_is_done_twice_gives_the_same_bytes(tmp_path):
    data = write_rows(tmp_path / "t.jsonl", messages(120))
    for name in ("a", "b"):
        train(data, tmp_path / name)
    for name in WEIGHTS:
        assert checksum(tmp_path / "a" / name) == checksum(tmp_path / "b" / name), name
    first, second = (pl.read_parquet(tmp_path / n / "predictions.parquet") for n in "ab")
    assert_frame_equal(first.drop("file"), second.drop("file"))


def test_another_seed_gives_other_parts_and_weights(tmp_path):
    data = write_rows(tmp_path / "t.csv", classed())
    first, second = (parts_of(data, seed=seed)[0] for seed in (1, 2))
    assert set(first.test.table.ids) != set(second.test.table.ids)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_gives_the_same_for_any_batch_and_part(tmp_path, monkeypatch, model):
    """With a text of several windows among them, and empty ones."""
    rows = messages(130)
    rows[0]["text"] = f"{rows[0]['text']} " * 30
    rows[1]["text"] = ""
    data = write_rows(tmp_path / "t.jsonl", rows)
    options = {"window": 24, **MODELS[model]}
    if options.get("model") == "sparse":
        del options["window"]
    run = train(data, tmp_path / "run", **options).path
    expected = predict(run, data, tmp_path / "a.parquet", all_labels=True, batch_size=64)
    alone = predict(run, data, tmp_path / "b.parquet", all_labels=True, batch_size=1)
    assert_frame_equal(alone, expected, **CLOSE)
    monkeypatch.setattr(prediction, "PART", 7)
    parts = predict(run, data, tmp_path / "c.parquet", all_labels=True, shard_size=1)
    assert_frame_equal(parts.drop("item"), expected.drop("item"), **CLOSE)
    assert expected["p_network::vpn"].is_finite().all()
    assert expected["p_network::vpn"].n_unique() > 50


def test_columns_of_1_and_0_train_as_a_column_of_lists(tmp_path):
    rows = messages(120)
    names = sorted({label for row in rows for label in row["labels"]})
    flags = [
        {k: v for k, v in row.items() if k != "labels"}
        | {name: int(name in row["labels"]) for name in names}
        for row in rows
    ]
    lists, _ = parts_of(write_rows(tmp_path / "l.jsonl", rows))
    columns, _ = parts_of(write_rows(tmp_path / "c.csv", flags), label_columns=tuple(names))
    assert columns.spec.labels == lists.spec.labels == names
    assert (columns.train.truth == lists.train.truth).all()
    run = train(tmp_path / "c.csv", tmp_path / "run", label_columns=tuple(names)).path
    rows_without = [{"text": row["text"]} for row in rows[:9]]
    table = predict(run, write_rows(tmp_path / "n.csv", rows_without), tmp_path / "o.parquet")
    assert table.height == 9
    again = headwise.pipelines.text.evaluate(run=run, data=tmp_path / "c.csv")
    assert again["texts"] == 120


def test_a_folder_for_each_label_is_trained_on_and_its_files_are_known_again(tmp_path):
    for k, row in enumerate(classed(90)):
        path = tmp_path / "in" / row["label"] / f"{k:02d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"])
    run = train(tmp_path / "in", tmp_path / "run").path
    rows = pl.read_parquet(run / "predictions.parquet")
    assert rows.height == 90
    right = rows["id"].str.split("/").list.first() == rows["prediction"]
    assert right.mean() > 0.9
    assert {*rows["part"]} == {"train", "validation", "test"}
    spec = json.loads((run / "spec.json").read_text())
    assert dict(rows.group_by("part").len().rows()) == spec["parts"]


def test_evaluating_other_texts_scores_these(class_run, tmp_path):
    rows = classed(30)
    for row in rows[:6]:
        row["label"] = "billing" if row["label"] != "billing" else "network"
    data = write_rows(tmp_path / "t.csv", rows)
    scores = headwise.pipelines.text.evaluate(run=class_run, data=data)
    assert scores["texts"] == 30
    assert scores["accuracy"] == pytest.approx(24 / 30, abs=0.04)


def test_evaluating_texts_whose_labels_are_all_unknown_is_refused(labels_run, tmp_path):
    rows = [{**row, "labels": ["weather::rain"]} for row in messages(12)]
    data = write_rows(tmp_path / "t.jsonl", rows)
    with pytest.raises(InputError, match="knows none of the labels, such as 'weather::rain'"):
        headwise.pipelines.text.evaluate(run=labels_run, data=data)


@pytest.mark.parametrize(
    ("rows", "imbalance", "reason"),
    [
        (numbered(), "focal", "imbalance focal: a number has no rare labels"),
        (classed(), "asymmetric", "imbalance asymmetric: is for labels"),
        (messages(120), "diverse", "imbalance diverse: is for one class of each text"),
    ],
)
def test_ways_to_help_rare_labels_that_the_goal_lacks_are_refused(
    tmp_path, headwise, rows, imbalance, reason
):
    data = write_rows(tmp_path / "t.csv", rows)
    words = ("text", "train", "--data", data, "--run", tmp_path / "run", "--weights", "none")
    code, lines = headwise(*words, "--imbalance", imbalance)
    assert code == 2
    assert reason in lines[-1]
    assert "Traceback" not in " ".join(lines)


def test_a_model_without_a_head_of_its_own_has_no_experts():
    words = ["--model", "sparse", "--imbalance", "diverse"]
    with pytest.raises(InputError, match="--imbalance diverse: --model sparse scales"):
        parse(load_task("text"), "train", words)


@pytest.mark.parametrize("model", ["hybrid", "attention", "sources"])
def test_diverse_experts_train_predict_explain_and_export(tmp_path, model):
    data = write_rows(tmp_path / "t.csv", classed())
    run = train(
        data, tmp_path / "run", model=model, imbalance="diverse", choose="model", max_steps=4
    )
    table = predict(run.path, data, tmp_path / "o.parquet", all_labels=True)
    shares = [table[name] for name in table.columns if name.startswith("p_")]
    assert sum(shares).to_list() == pytest.approx([1] * 120, abs=1e-5)
    assert Path(headwise.open(run.path).export(tmp_path / "model.pt2")).is_file()
    why = tmp_path / "why"
    pipelines.text.explain(run=run.path, text="the printer is slow", output=why)
    explained = [json.loads(line) for line in (why / "explanations.jsonl").open()]
    assert explained
    assert {label["exact"] for label in explained} == {model != "sources"}


@pytest.mark.parametrize("unlabelled", [False, True])
def test_missing_labels_that_were_forgotten_raise_probabilities(tmp_path, unlabelled):
    rows = messages(200)
    for row in rows[::2]:
        row["labels"] = row["labels"][:1]
    data = write_rows(tmp_path / "t.jsonl", rows)
    run = train(data, tmp_path / "run", unlabelled=unlabelled).path
    table = predict(run, data, tmp_path / "o.parquet", all_labels=True)
    shares = [table[name] for name in table.columns if name.startswith("p_")]
    assert all(column.is_between(0, 1).all() for column in shares)


def test_the_export_takes_texts_as_long_as_a_window(tmp_path):
    rows = classed()
    for row in rows:
        row["text"] = f"{row['text']} " * 9
    run = train(write_rows(tmp_path / "t.csv", rows), tmp_path / "run", window=16).path
    options = ExportOptions(run=str(run), output=str(tmp_path / "m.pt2"))
    export(load_task("text").load(), options)
    assert (tmp_path / "m.pt2").exists()


def test_a_run_predicts_for_rows_that_python_holds(class_run):
    run = headwise.open(class_run)
    table = run.predict(pl.DataFrame({"text": ["the wifi is slow", "a wrong invoice"]}))
    assert table["prediction"].to_list() == ["network", "billing"]


def test_a_run_can_be_moved(class_run, tmp_path):
    run = Path(shutil.copytree(class_run, tmp_path / "elsewhere"))
    data = write_rows(tmp_path / "t.csv", classed(6))
    first = predict(class_run, data, tmp_path / "a.parquet")
    assert_frame_equal(predict(run, data, tmp_path / "b.parquet"), first)


def test_predictions_that_are_there_are_not_those_of_another_coder(class_run, tmp_path):
    """Assets that were changed are refused, so that no prediction mixes them."""
    run = Path(shutil.copytree(class_run, tmp_path / "run"))
    data = write_rows(tmp_path / "t.csv", classed(6))
    predict(run, data, tmp_path / "o.parquet")
    path = run / "assets" / "terms.parquet"
    frame = pl.read_parquet(path).with_columns(pl.col("weight") + 1)
    frame.write_parquet(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=r"assets/terms.parquet"):
        predict(run, data, tmp_path / "p.parquet")


def test_the_model_is_in_evaluation_while_it_predicts(class_run, tmp_path):
    """Dropout would give other numbers each time."""
    torch.manual_seed(0)
    data = write_rows(tmp_path / "t.csv", classed(30))
    first = predict(class_run, data, tmp_path / "a.parquet")
    assert_frame_equal(predict(class_run, data, tmp_path / "b.parquet"), first)
