"""Which rows the loss and the score of an epoch are of."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from sklearn.metrics import log_loss, roc_auc_score

from headwise import pipelines
from headwise.data.clicks.generate import write_sample_clicks
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.experiments import compare as comparison
from headwise.pipelines.ranking import prediction

SMALL = {"width": 8, "layers": 1, "towers": (8,), "dropout": 0.0, "embedding_l2": 0.0}


@pytest.fixture(scope="module")
def model_and_parts(tmp_path_factory):
    task = load_task("ranking")
    data = write_sample_clicks(tmp_path_factory.mktemp("log"))
    options = parse(task, "train", [], values={"data": data, **SMALL})
    splits = task.load().open_data(options)
    torch.manual_seed(1)
    model = task.load().build_model(options, splits.spec)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return task, model.eval(), splits, data


def loss_of(task, model, batch, data, **values):
    options = parse(task, "train", [], values={"data": data, **SMALL, **values})
    with torch.no_grad():
        return float(task.load().loss(model, batch, options))


def probability_of(model, batch):
    with torch.no_grad():
        return (
            model(batch["fields"], batch["events"], batch["ages"], batch["offsets"])
            .double()
            .sigmoid()
            .numpy()
        )


def test_the_loss_is_the_mean_over_the_rows_that_count_for_each_task(model_and_parts):
    task, model, splits, data = model_and_parts
    batch = splits.train.__getitems__(range(200))
    labels, counts, p = (
        batch["labels"].numpy(),
        batch["counts"].numpy(),
        probability_of(model, batch),
    )
    assert 0 < counts[:, 1].sum() < counts[:, 0].sum() == 200
    losses = [log_loss(labels[counts[:, k], k], p[counts[:, k], k]) for k in range(2)]
    assert loss_of(task, model, batch, data) == pytest.approx(sum(losses), rel=1e-5)
    assert loss_of(task, model, batch, data, task_weights=(0.25, 2.0)) == pytest.approx(
        0.25 * losses[0] + 2.0 * losses[1], rel=1e-5
    )


def test_labels_of_rows_that_do_not_count_change_no_loss(model_and_parts):
    task, model, splits, data = model_and_parts
    batch = splits.train.__getitems__(range(200))
    relabelled = {
        **batch,
        "labels": torch.where(batch["counts"].bool(), batch["labels"], 1 - batch["labels"]),
    }
    assert not torch.equal(relabelled["labels"], batch["labels"])
    assert loss_of(task, model, relabelled, data) == loss_of(task, model, batch, data)


def test_the_squares_of_the_embeddings_are_a_mean_over_rows(model_and_parts):
    task, model, splits, data = model_and_parts
    rows, doubled_rows = (
        splits.train.__getitems__(range(50)),
        splits.train.__getitems__([*range(50), *range(50)]),
    )
    more = [
        loss_of(task, model, batch, data, embedding_l2=0.5) - loss_of(task, model, batch, data)
        for batch in (rows, doubled_rows)
    ]
    assert more[0] > 0
    assert more[1] == pytest.approx(more[0], rel=1e-4)


def test_the_score_of_an_epoch_is_of_the_rows_that_count(model_and_parts):
    task, model, splits, _ = model_and_parts
    batches = [
        splits.validation.__getitems__(range(start, min(start + 100, len(splits.validation))))
        for start in range(0, len(splits.validation), 100)
    ]
    with torch.no_grad():
        figures = task.load().validate(model, batches, None)
    labels, counts = (
        np.concatenate([batch[name].numpy() for batch in batches]) for name in ("labels", "counts")
    )
    p = np.concatenate([probability_of(model, batch) for batch in batches])
    aucs = [roc_auc_score(labels[counts[:, k], k], p[counts[:, k], k]) for k in range(2)]
    assert figures["auc"] == pytest.approx(np.mean(aucs), abs=1e-5)
    assert figures["one_minus_auc"] == pytest.approx(1 - np.mean(aucs), abs=1e-5)
    assert figures["log_loss"] == pytest.approx(
        np.mean([log_loss(labels[counts[:, k], k], p[counts[:, k], k]) for k in range(2)]), rel=1e-5
    )


def test_a_comparison_trains_on_the_training_part_and_scores_the_test_part(
    model_and_parts, tmp_path, monkeypatch
):
    _, model, splits, data = model_and_parts
    asked = []

    def fit(pipeline, options, dataset, spec, device, *, validation):
        asked.append(
            (dataset.which.tolist(), validation.which.tolist(), options.seed, options.model)
        )
        return model, {"epochs": 1, "steps": 1}

    monkeypatch.setattr(comparison, "fit", fit)
    options_of_compare = {
        "models": ("infnet", "din"),
        "seeds": 2,
        "seed": 7,
        "output": tmp_path / "c",
    }
    pipelines.ranking.compare(data=data, **options_of_compare, **SMALL)
    train, validation = splits.train.which.tolist(), splits.validation.which.tolist()
    assert sorted(asked, key=str) == sorted(
        ((train, validation, seed, name) for seed in (7, 8) for name in ("infnet", "din")), key=str
    )
    stored = [
        json.loads(path.read_text()) for path in (tmp_path / "c" / "trainings").glob("*.json")
    ]
    batch = splits.test.__getitems__(range(len(splits.test)))
    labels, counts, p = (
        batch["labels"].numpy(),
        batch["counts"].numpy().astype(bool),
        probability_of(model, batch),
    )
    for training in stored:
        for place, name in enumerate(("click", "like")):
            counted = counts[:, place]
            expected = roc_auc_score(labels[counted, place], p[counted, place])
            assert training["scores"][name]["auc"] == pytest.approx(expected, abs=1e-5)


def test_a_table_in_several_items_is_numbered_and_scored_as_one(
    model_and_parts, tmp_path, monkeypatch
):
    """Items of 3,000 rows, in shards of one."""
    _, _, _, data = model_and_parts
    run = pipelines.ranking.train(data=data, run=tmp_path / "run", max_steps=1, **SMALL).path
    expected = pl.read_parquet(run / "predictions.parquet")
    monkeypatch.setattr(prediction, "PART", 3000)
    for size in (1, 8):
        rows = pipelines.ranking.predict(
            run=run,
            input=data.with_suffix(".csv"),
            output=tmp_path / f"{size}.parquet",
            shard_size=size,
        ).table()
        assert rows["item"].unique(maintain_order=True).to_list() == [
            f"generated.csv:{k}" for k in (0, 3000, 6000)
        ]
        assert_frame_equal(rows.drop("item"), expected.drop("item"), abs_tol=1e-6)
