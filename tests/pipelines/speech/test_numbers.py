"""The scores of a run are those of what `predict` writes for the same recordings, and the lag is
fitted on the validation part.
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
from headwise.pipelines.speech.transcriber import Transcriber


@pytest.fixture(scope="module")
def pipeline():
    return load_task("speech").load()


@pytest.fixture
def loaded(pipeline, run):
    return load_run(pipeline, str(run), "cpu")


@pytest.fixture
def splits(pipeline, loaded):
    return pipeline.open_data(loaded.options, loaded.spec)


def test_predictions_of_the_test_recordings_give_the_metrics(run, splits):
    rows = {
        row["item"]: row
        for row in pl.read_parquet(run / "predictions.parquet").iter_rows(named=True)
    }
    metrics = json.loads((run / "metrics.json").read_text())
    utterances = splits.test.utterances
    predicted = [rows[utterance.name] for utterance in utterances]
    texts, true_texts = [row["text"] for row in predicted], [u.text for u in utterances]
    assert len(set(texts)) > 1, "a model that writes the same text for all would show nothing"
    assert metrics["wer"] == pytest.approx(text_errors(texts, true_texts).rate, abs=1e-9)
    characters = text_errors(texts, true_texts, characters=True)
    assert metrics["cer"] == pytest.approx(characters.rate, abs=1e-9)
    boundaries = boundary_errors(
        [
            [(word["word"], word["start"], word["end"]) for word in row["words"]]
            for row in predicted
        ],
        [[(word.text, word.start, word.end) for word in u.words] for u in utterances],
    )
    times = metrics.get("times", {"words": 0})
    assert times["words"] == len(boundaries.start)
    if times["words"]:  # they are written with four decimals
        start, end = np.abs(boundaries.start).mean(), np.abs(boundaries.end).mean()
        assert times["start_mae_ms"] == pytest.approx(1000 * start, abs=0.11)
        assert times["end_mae_ms"] == pytest.approx(1000 * end, abs=0.11)
    for row, utterance in zip(predicted, utterances, strict=True):
        assert row["seconds"] == pytest.approx(len(utterance.samples()) / 16000)


def test_the_lag_needs_no_other_part_than_that_of_validation(pipeline, loaded, splits):
    def lag(**parts):
        changed = replace(splits, train=None, **parts)
        return int(pipeline.calibrate(loaded.model, changed, loaded.options, loaded.device)["lag"])

    assert lag(test=None) == int(loaded.calibration["lag"])
    assert lag(validation=splits.test, test=None) in range(9)


def test_the_score_of_an_epoch_counts_every_token_alike(pipeline, loaded, splits):
    """The last batch is smaller, and padding counts nothing."""
    part = splits.validation

    def score(size):
        starts = range(0, len(part), size)
        batches = [
            part.__getitems__(list(range(start, min(start + size, len(part))))) for start in starts
        ]
        with torch.no_grad():
            return pipeline.validate(loaded.model, batches, loaded.options)

    at_once = score(len(part))
    for size in (1, 3):
        assert score(size) == pytest.approx(at_once, abs=1e-4)


def test_a_prediction_reads_word_times_by_the_lag_of_the_run(loaded):
    for lag in (0, 5):
        context = replace(loaded.context(None), calibration={"lag": torch.tensor(lag)})
        assert Transcriber.of_run(loaded.model, context).lag == lag
