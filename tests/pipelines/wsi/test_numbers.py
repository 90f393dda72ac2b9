"""What is measured on the training part alone, and what the rows of predictions say, on a small
table of bags.
"""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from sklearn.linear_model import LogisticRegression

from headwise import pipelines
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.wsi.verbs import crossval as folds

CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """40 bags of 2 to 6 instances; of every three, one is of class a; the bags
    differ in their means.
    """
    generator, lines = np.random.default_rng(3), ["bag,label,x,y"]
    for bag in range(40):
        label = CLASSES[bag % 3 > 0]
        centre = generator.normal([3 + bag, -1 + (label == "b")], 1)
        for row in generator.normal(centre, 1, (int(generator.integers(2, 7)), 2)):
            lines.append(f"bag{bag},{label},{row[0]:.5f},{row[1]:.5f}")
    path = tmp_path_factory.mktemp("bags") / "bags.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    return pipelines.wsi.train(data=table, run=path, epochs=3, inner=8, class_weights=True, lr=0.01)


@pytest.fixture(scope="module")
def splits(run):
    task = load_task("wsi")
    return task.load().open_data(parse(task, "train", [], config=run.path / "config.yaml"))


def rows_of(table, part):
    return pl.read_csv(table).filter(pl.col("bag").is_in(part.names))


def test_mean_and_deviation_are_those_of_the_training_instances(run, table, splits):
    instances = rows_of(table, splits.train).select("x", "y").to_numpy()
    np.testing.assert_allclose(run.spec()["mean"], instances.mean(0), rtol=1e-5)
    np.testing.assert_allclose(run.spec()["deviation"], instances.std(0), rtol=1e-5)


def test_class_weights_are_the_inverse_shares_of_the_training_bags(splits):
    count = np.bincount(splits.train.labels, minlength=2)
    assert count[0] != count[1]
    np.testing.assert_allclose(splits.train.class_weights, len(splits.train) / 2 / count)
    assert splits.validation.class_weights is None
    batch = splits.train.collate([splits.train[k] for k in range(4)])
    np.testing.assert_allclose(batch["class_weights"], len(splits.train) / 2 / count)


def test_the_loss_is_the_weighted_cross_entropy(splits):
    """Of mean pooling, which has no branches."""
    task = load_task("wsi")
    options = dataclasses.replace(
        parse(task, "train", [], values={"model": "mean", "inner": 8}), dropout=0.0
    )
    torch.manual_seed(0)
    model = task.load().build_model(options, splits.spec)
    batch = splits.train.collate([splits.train[k] for k in range(7)])
    with torch.no_grad():
        logits = model(batch["x"], batch["offsets"]).double().numpy()
        loss = float(task.load().loss(model, batch, options))
    labels, weights = batch["labels"].numpy(), batch["class_weights"].numpy()
    assert len(set(labels.tolist())) == 2
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(7), labels]
    expected = float((weights[labels] * losses).sum() / weights[labels].sum())
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_baseline_is_fitted_on_the_training_bags_alone(run, table, splits):
    means = {
        name: rows.select("x", "y").to_numpy().mean(0)
        for (name,), rows in pl.read_csv(table).partition_by("bag", as_dict=True).items()
    }
    features = np.array([means[name] for name in splits.train.names])
    centre, scale = features.mean(0), features.std(0)
    fitted = LogisticRegression(C=0.05, max_iter=2000).fit(
        (features - centre) / scale, splits.train.labels
    )
    test = np.array([means[name] for name in splits.test.names])
    probability = fitted.predict_proba((test - centre) / scale)[
        np.arange(len(test)), splits.test.labels
    ]
    metrics = run.metrics()["baselines"]["mean instance, logistic regression"]
    assert metrics["log_loss"] == pytest.approx(float(-np.log(probability).mean()), rel=1e-4)


def test_predictions_of_the_test_bags_give_the_metrics(run, splits):
    rows = pl.read_parquet(run.path / "predictions.parquet").filter(
        pl.col("item").is_in(splits.test.names)
    )
    truth = dict(zip(splits.test.names, (CLASSES[k] for k in splits.test.labels)))
    right = [row[f"p_{truth[row['item']]}"] for row in rows.iter_rows(named=True)]
    assert len(right) == len(splits.test)
    assert run.metrics()["log_loss"] == pytest.approx(float(-np.log(right).mean()), abs=1e-6)
    correct = [row["prediction"] == truth[row["item"]] for row in rows.iter_rows(named=True)]
    assert run.metrics()["accuracy"] == pytest.approx(np.mean(correct))


@pytest.mark.parametrize("last_epoch", [False, True])
def test_a_fold_is_trained_on_the_other_bags_alone(table, tmp_path, monkeypatch, last_epoch):
    """Its model, and the mean and deviation that it is given; a fifth of them stops it early."""
    trained, fit = [], folds.fit

    def watched(task, options, bags, spec, device, *, validation):
        held = [] if validation is None else validation.names
        trained.append((bags.names, held, spec, options.seed, bags.class_weights))
        return fit(task, options, bags, spec, device, validation=validation)

    monkeypatch.setattr(folds, "fit", watched)
    how = {"folds": 3, "repeats": 2, "models": ("mean",), "epochs": 1, "inner": 4}
    how |= {"class_weights": True, "last_epoch": last_epoch}
    pipelines.wsi.crossval(data=table, output=tmp_path / "o", **how)
    rows = pl.read_parquet(tmp_path / "o" / "predictions.parquet").filter(pl.col("model") == "mean")
    assert len(trained) == 6
    assert len({seed for *_, seed, _ in trained}) == 6
    everything = pl.read_csv(table)
    label_of = dict(everything.select("bag", "label").unique().iter_rows())
    jobs = [(repeat, fold) for repeat in range(2) for fold in range(3)]
    for (names, held, spec, _, weights), (repeat, fold) in zip(trained, jobs):
        scored = rows.filter((pl.col("repeat") == repeat) & (pl.col("fold") == fold))[
            "bag"
        ].to_list()
        assert not set(scored) & {*names, *held}
        assert not set(names) & set(held)
        assert len(held) == (0 if last_epoch else pytest.approx(40 * 2 / 3 / 5, abs=1.5))
        assert sorted([*scored, *names, *held]) == sorted(set(everything["bag"]))
        count = np.array([sum(label_of[name] == label for name in names) for label in CLASSES])
        np.testing.assert_allclose(weights, len(names) / 2 / count)
        instances = everything.filter(pl.col("bag").is_in(names)).select("x", "y").to_numpy()
        np.testing.assert_allclose(spec.mean, instances.mean(0), rtol=1e-5)
        np.testing.assert_allclose(spec.deviation, instances.std(0), rtol=1e-5)
