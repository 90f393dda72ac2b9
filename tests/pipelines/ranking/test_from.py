"""`--from RUN`: a run that goes on with new days, of new people and things."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.clicks.generate import click_log, write_sample_clicks
from headwise.data.clicks.vocabulary import UNSEEN
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.checkpoint import load_weights
from headwise.pipelines.engine.runs.loaded import load_run

SMALL = {
    "width": 8,
    "layers": 1,
    "towers": (8,),
    "accelerator": "cpu",
    "epochs": 1,
    "batch_size": 256,
    "choose": "model",  # the simple models are fitted anew to the new days
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """old.csv: a hundred people, 150 things, the earlier half; new.csv: everyone and everything,
    later.
    """
    folder = tmp_path_factory.mktemp("days")
    write_sample_clicks(folder)
    log = click_log(6_000, 150, 200, seed=3)
    half = log["time"].sort()[len(log) // 2]
    old = pl.col("time") < half
    log.filter(old, pl.col("user_id") < 100, pl.col("item_id") < 150).write_csv(folder / "old.csv")
    log.filter(~old).write_csv(folder / "new.csv")
    return folder


def train(folder: Path, data: str, run: str, **options):
    pipelines.ranking.train(
        data=folder / f"{data}.csv",
        schema=folder / "generated.yaml",
        run=folder / run,
        **{**SMALL, **options},
    )


@pytest.fixture(scope="module")
def first(folder) -> Path:
    train(folder, "old", "first", lr=0.01)
    return folder / "first"


@pytest.fixture(scope="module")
def grown(folder, first) -> Path:
    """Gone on with, at a rate that moves nothing."""
    train(folder, "new", "grown", lr=1e-12, from_run=str(first))
    return folder / "grown"


def scored(folder: Path, run: Path, data: str) -> pl.DataFrame:
    output = folder / f"{run.name}-{data}.parquet"
    pipelines.ranking.predict(
        run=run, input=folder / f"{data}.csv", output=output, overwrite=True, accelerator="cpu"
    )
    return pl.read_parquet(output)


def test_old_codes_keep_their_vectors_and_new_ones_begin_as_unseen(first, grown):
    task = load_task("ranking")
    specs = [load_run(task.load(), run, "cpu").spec for run in (first, grown)]
    tables = [
        load_weights(run / "model.safetensors")["embedding.table.weight"] for run in (first, grown)
    ]
    starts, more = [0, 0], 0
    for old, new in zip(*(spec.fields for spec in specs), strict=True):
        before, after = (
            table[start : start + field["codes"]]
            for table, start, field in zip(tables, starts, (old, new))
        )
        assert (after[: len(before)] - before).abs().max() < 1e-6
        assert (after[len(before) :] - before[UNSEEN]).abs().sum() < 1e-4
        more += len(after) - len(before)
        starts = [starts[0] + old["codes"], starts[1] + new["codes"]]
    assert more >= 100  # fifty people, fifty things


def test_earlier_rows_are_scored_as_before(folder, first, grown):
    """Codes, buckets and what a row sees of its user's past have not changed: all that differs is
    the scale of the logits, which the new days calibrate.
    """
    before, after = (scored(folder, run, "old") for run in (first, grown))
    tasks = [name for name in before.columns if name.startswith("p_")]
    assert len(before) > 500
    assert tasks
    for task in tasks:
        odds = [rows[task].to_numpy().astype(float) for rows in (before, after)]
        first_logits, logits = (np.log(p / (1 - p)) for p in odds)
        slope, shift = np.polyfit(first_logits, logits, 1)
        assert slope > 0
        assert np.abs(slope * first_logits + shift - logits).max() < 1e-5
    assert before["p_click"].std() > 1e-3


def test_new_people_are_known_after_it_and_are_learned(folder, first, grown):
    before, after = (scored(folder, run, "new") for run in (first, grown))
    fresh = before.filter(pl.col("user_id") >= 100)
    assert len(fresh)
    assert not fresh["seen_user"].any()
    assert after.filter(pl.col("user_id") >= 100)["seen_user"].mean() > 0.9
    train(folder, "new", "learned", lr=0.01, from_run=str(first))
    learned = scored(folder, folder / "learned", "new")
    assert (learned["p_click"] - after["p_click"]).abs().max() > 1e-3


def test_another_model_is_refused(folder, first):
    with pytest.raises(
        InputError, match=r"--from .*first: is of another model; give the model options of that run"
    ):
        train(folder, "new", "other", model="dcnv2", from_run=str(first))
    with pytest.raises(
        InputError, match=r"--from .*first: .* has another size; give the model options of that run"
    ):
        train(folder, "new", "wider", width=16, from_run=str(first))
