"""What is said of the test recordings is what `predict` writes of them, and the lag is of the
validation part.
"""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.metrics.alignment import boundary_errors, text_errors
from headwise.pipelines.speech.prediction import hearer


@pytest.fixture(scope="module")
def parts(run):
    task = load_task("speech")
    loaded = load_run(task.load(), str(run), "cpu")
    return task.load().open_data(loaded.options, loaded.spec)


def test_predictions_of_the_test_recordings_give_the_metrics(run, parts):
    rows = {
        row["item"]: row
        for row in pl.read_parquet(run / "predictions.parquet").iter_rows(named=True)
    }
    metrics = json.loads((run / "metrics.json").read_text())
    true = parts.test.utterances
    own = [rows[one.name] for one in true]
    said = [row["text"] for row in own]
    assert len(set(said)) > 1, "a model that says the same of all would show nothing"
    texts = [one.text for one in true]
    assert metrics["wer"] == pytest.approx(text_errors(said, texts).rate, abs=1e-9)
    assert metrics["cer"] == pytest.approx(text_errors(said, texts, characters=True).rate, abs=1e-9)
    found = boundary_errors(
        [[(word["word"], word["start"], word["end"]) for word in row["words"]] for row in own],
        [[(word.text, word.start, word.end) for word in one.words] for one in true],
    )
    times = metrics.get("times", {"words": 0})
    assert times["words"] == len(found.start)
    if times["words"]:  # they are written with four decimals
        assert times["start_mae_ms"] == pytest.approx(1000 * np.abs(found.start).mean(), abs=0.11)
        assert times["end_mae_ms"] == pytest.approx(1000 * np.abs(found.end).mean(), abs=0.11)
    for row, one in zip(own, true):
        assert row["seconds"] == pytest.approx(len(one.samples()) / 16000)


def test_the_lag_needs_no_other_part_than_that_of_validation(run, parts):
    task = load_task("speech")
    loaded = load_run(task.load(), str(run), "cpu")
    alone = replace(parts, train=None, test=None)
    found = task.load().calibrate(loaded.model, alone, loaded.options, loaded.device)
    assert int(found["lag"]) == int(loaded.calibration["lag"])
    other = replace(parts, train=None, validation=parts.test, test=None)
    assert "lag" in task.load().calibrate(loaded.model, other, loaded.options, loaded.device)


def test_the_score_of_an_epoch_counts_every_token_alike(run, parts):
    """The last batch is smaller, and padding counts nothing."""
    task = load_task("speech")
    loaded = load_run(task.load(), str(run), "cpu")
    part = parts.validation

    def score(size):
        lists = [range(k, min(k + size, len(part))) for k in range(0, len(part), size)]
        with torch.no_grad():
            return task.load().validate(
                loaded.model, [part.__getitems__(list(one)) for one in lists], loaded.options
            )

    whole = score(len(part))
    for size in (1, 3):
        assert score(size) == pytest.approx(whole, abs=1e-4)


def test_a_prediction_reads_word_times_by_the_lag_of_the_run(run):
    loaded = load_run(load_task("speech").load(), str(run), "cpu")
    for lag in (0, 5):
        given = {"lag": torch.tensor(lag)}
        assert hearer(loaded.model, loaded.spec, given, loaded.device).lag == lag
