"""What a prediction says of its rows: their part, the answer in words, the account; and a run of
the log's score that does not exist.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.clicks.fit import fit
from headwise.data.clicks.generate import write_sample_clicks
from headwise.data.clicks.layouts import open_log
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.training.loop import Trainer
from headwise.pipelines.engine.training.storage import Progress
from headwise.pipelines.ranking.data import RankingSpec, load_encoder, open_new_log, spec_of_run
from headwise.pipelines.ranking.options import RankingOptions, RankingPredictOptions
from headwise.pipelines.ranking.pipeline import in_words
from headwise.pipelines.ranking.prediction import answer_lines, note_table
from headwise.pipelines.ranking.scoring import validation_scores

SMALL = {"width": 8, "layers": 1, "towers": (8,), "accelerator": "cpu"}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return write_sample_clicks(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def run(log, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    return pipelines.ranking.train(data=log, run=path, max_steps=1, **SMALL).path


def test_rows_say_which_part_they_were_in(log, run, tmp_path) -> None:
    rows = pl.read_parquet(run / "predictions.parquet")
    counts = dict(rows["part"].value_counts().rows())
    assert counts == {"train": 6352, "validation": 797, "test": 851}
    table = pl.read_csv(log)
    own = table.with_row_index().group_by("user_id", maintain_order=True).agg("index")
    for index in own["index"].to_list()[:20]:
        parts = rows["part"].gather(index).to_list()
        assert parts == sorted(parts, key=["train", "validation", "test"].index)
    later = table[-5:].with_columns(time=pl.col("time") + 10**6)
    pl.concat([table[-5:], later]).write_csv(tmp_path / "new.csv")
    output = tmp_path / "o.parquet"
    pipelines.ranking.predict(run=run, input=tmp_path / "new.csv", output=output)
    parts = pl.read_parquet(output)["part"]
    assert parts[:5].to_list() == rows["part"][-5:].to_list()
    assert parts[5:].null_count() == 5


def test_a_run_of_an_earlier_version_knows_no_parts(run, tmp_path) -> None:
    spec = spec_of_run(str(run))
    assert spec.assets_folder is not None
    arrays = load_file(spec.assets_folder / "arrays.safetensors")
    assert len(arrays["parts.keys"]) == 8000
    arrays = {name: array for name, array in arrays.items() if not name.startswith("parts.")}
    folder = tmp_path / "run [1]"  # a name, no pattern
    folder.mkdir()
    for path in spec.assets_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    save_file(arrays, folder / "arrays.safetensors")
    assert len(load_encoder(spec.with_assets({}, folder)).row_parts.keys) == 0


def test_a_clean_schema_has_the_keys_of_earlier_versions(run) -> None:
    schema = json.loads((run / "spec.json").read_text())["schema"]
    assert set(schema["categorical"]["user_id"]) == {
        "column", "min_count", "hash", "prefix", "split", "length", "side",
    }  # fmt: skip
    assert set(schema["sequences"]["liked"]) == {"of", "where", "column", "split", "length"}


def test_the_account_of_a_prediction_counts_its_rows(run, log, tmp_path) -> None:
    frame = (
        pl.read_csv(log)[:40]
        .drop("time")
        .with_columns(
            user_id=pl.Series([9999] * 10 + [1] * 30), seconds=pl.lit("long"), spare=pl.lit(0)
        )
    )
    frame.write_csv(tmp_path / "rows.csv")
    loaded = load_run(load_task("ranking").load(), str(run), "cpu")
    options = RankingPredictOptions(
        run=str(run), input=str(tmp_path / "rows.csv"), output="o.parquet"
    )
    pipeline = load_task("ranking").load()
    with opened() as account:
        items = pipeline.list_items(options, loaded.spec)
        pipeline.predict(loaded.model, items, loaded.context(options))
    lines = "\n".join(account.lines())
    assert "read: 40 rows" in lines
    assert "10 rows of users that the training part does not have" in lines
    assert "40 rows with a cell that should be a number and is not" in lines
    assert "not used (click, like, spare)" in lines
    assert "there is no column time: rows are scored as of now" in lines


def scored(users: list, items: list, chances: list) -> pl.DataFrame:
    return pl.DataFrame({"user_id": users, "item_id": items, "p_click": chances, "p_buy": chances})


def test_the_answer_for_a_row_a_user_and_a_table() -> None:
    tasks = ["click", "buy"]
    assert answer_lines(scored([7], ["a"], [0.123]), tasks) == [
        "user 7, item a: click 12.3%, buy 12.3%"
    ]
    assert answer_lines(scored([7, 7, 7], ["a", "b", "c"], [0.1, 0.9, 0.5]), tasks[:1]) == [
        "best items for user 7:",
        "item b: click 90.0%",
        "item c: click 50.0%",
        "item a: click 10.0%",
    ]
    many = answer_lines(scored(list(range(30)), ["a"] * 30, [0.5] * 30), tasks)
    assert len(many) == 11
    assert many[0] == "user 0, item a: click 50.0%, buy 50.0%"
    assert many[-1] == "… and 20 more rows"


def test_a_part_with_one_label_says_why_there_is_no_auc() -> None:
    labels = np.array([0, 0, -1])
    assert in_words("buy", {}, labels) == (
        "buy has no AUC, as every label of the part that is scored is 0"
    )
    assert "no row of the part" in in_words("buy", {}, labels[2:])
    scores = {"auc": 0.7, "baseline_auc": 0.6, "gauc": 0.5}
    assert in_words("buy", scores, np.array([0, 1])).startswith("buy AUC 0.7000")


def test_epochs_are_compared_by_log_loss_where_there_is_no_auc() -> None:
    class Constant(nn.Module):
        def forward(self, fields, events, ages, offsets):
            return torch.zeros(len(fields), 1)

    batch = {
        "fields": torch.zeros(4, 1),
        "events": torch.zeros(0),
        "ages": torch.zeros(0),
        "offsets": torch.zeros(1),
        "labels": torch.zeros(4, 1),
        "counts": torch.ones(4, 1, dtype=torch.bool),
    }
    scores = validation_scores(Constant(), [batch])
    assert np.isnan(scores["auc"])
    assert scores["one_minus_auc"] == scores["log_loss"] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("scores", "losses", "line"),
    [
        ([0.3, 0.2], [0.5, 0.4], "epoch 2 of 2, the lowest val_one_minus_auc; it was the last one"),
        (
            [0.3, 0.2],
            [0.4, 0.5],
            "epoch 2 of 2, the lowest val_one_minus_auc (val_log_loss was lowest in epoch 1); it",
        ),
        ([0.2, 0.3], [0.4, 0.5], "epoch 1 of 2, the lowest val_one_minus_auc"),
    ],
)
def test_the_epoch_that_is_kept_is_said(scores: list, losses: list, line: str) -> None:
    trainer = Trainer.__new__(Trainer)
    trainer.pipeline = load_task("ranking").load()
    trainer.options = RankingOptions(epochs=2)
    trainer.progress = Progress()
    for score, loss in zip(scores, losses):
        trainer.progress.step += 5
        trainer.progress.history.append(
            {
                "epoch": trainer.progress.epoch + 1,
                "step": trainer.progress.step,
                "val_one_minus_auc": score,
                "val_log_loss": loss,
            }
        )
        trainer.progress.add_score(score)
    shown = trainer._kept_epoch() or ""
    assert shown.startswith(f"kept: {line}")
    assert ("more --epochs may be better" in shown) == ("last one" in line or line.endswith("it"))


def test_a_plain_table_is_trained_on_and_scored(tmp_path) -> None:
    random = np.random.default_rng(0)
    age, kind = random.integers(20, 70, 600), random.choice(["a", "b"], 600)
    bought = (age > 45).astype(int) ^ (random.random(600) < 0.1)
    table = pl.DataFrame({"age": age, "kind": kind, "bought": bought.astype(int)})
    table.write_csv(tmp_path / "t.csv")
    (tmp_path / "t.yaml").write_text(
        "user: null\nitem: null\nnumeric: [age]\ncategorical: [kind]\ntasks: {buy: bought}\n"
        "split: {by: random}\n"
    )
    run = pipelines.ranking.train(
        data=tmp_path / "t.csv", run=tmp_path / "run", epochs=2, batch_size=64, lr=1e-2,
        model="dcnv2", width=8, hidden=(16,), towers=(8,), accelerator="cpu",
    ).path  # fmt: skip
    rows = pl.read_parquet(run / "predictions.parquet")
    assert rows["status"].unique().to_list() == ["ok"]
    # Many rows are alike: the file tells which of them were in which part.
    assert dict(rows["part"].value_counts().rows()) == {"train": 480, "validation": 60, "test": 60}
    for name in ("user_id", "item_id", "seen_user", "seen_item"):
        assert rows[name].null_count() == 600
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["buy"]["auc"] > 0.8
    assert "cold_users" not in metrics
    with pytest.raises(InputError, match="no users or no items, so there are no lists"):
        pipelines.ranking.top(run=run, output=tmp_path / "o.parquet")


def test_what_a_joined_table_holds_may_be_missing_in_a_prediction(tmp_path) -> None:
    log = write_sample_clicks(tmp_path)
    frame = pl.read_csv(log)
    genders = frame.group_by("user_id").agg(pl.col("gender").first())
    genders.write_csv(tmp_path / "users.csv")
    frame.drop("gender").write_csv(log)
    schema = log.with_suffix(".yaml")
    schema.write_text(schema.read_text() + "join: [{table: users.csv, on: user_id}]\n")
    spec = open_new_log(RankingOptions(data=str(log), **SMALL)).spec
    assert spec.sides == {"gender": "user"}
    encoder, _, _ = fit(*open_log(str(log)))
    rows = encoder.rows(frame[:9].drop("gender"), "t", labels=False)
    with opened() as account:
        note_table(encoder, rows, frame.drop("gender").columns)
    assert "1 not in the table; the run's values of users" in "\n".join(account.lines())


def test_a_run_keeps_which_numbers_have_a_decimal_comma(tmp_path) -> None:
    log = write_sample_clicks(tmp_path)
    plain = open_new_log(RankingOptions(data=str(log), **SMALL))
    assert "decimal_comma" not in plain.spec.to_json()
    frame = pl.read_csv(log)
    comma = frame["seconds"].cast(pl.String).str.replace(".", ",", literal=True)
    frame.with_columns(seconds=comma).write_csv(log)
    splits = open_new_log(RankingOptions(data=str(log), **SMALL))
    assert splits.spec.edges == plain.spec.edges
    for name, write in splits.assets.items():
        write(tmp_path / name)
    spec = RankingSpec.from_json(json.loads(json.dumps(splits.spec.to_json())))
    assert load_encoder(spec.with_assets({}, tmp_path)).marks.commas["seconds"]
