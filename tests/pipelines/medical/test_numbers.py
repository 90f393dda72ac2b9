"""Which pictures decide the class weights, the temperature and the operating point: a small set
with uneven parts tells."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("timm", reason="the extra `vision` is not installed")

from PIL import Image

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.command_line.checks import options_of_a_run
from headwise.pipelines.engine.experiments.compare import Trained
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.medical.verbs import compare as comparison
from headwise.pipelines.metrics.operating import choose_threshold, fit_temperature

SMALL = {"size": (32, 32), "body_size": (16, 16), "body_width": 2, "head_width": 4}
WEIGHED = {"imbalance": "pos-weight", "balanced": False}
CLASSES = ("ill", "odd", "well")
# Pictures of each class; the shares of the classes differ from part to part.
PARTS = {"train": (12, 6, 24), "validation": (8, 12, 4), "test": (9, 3, 6)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pictures of noise, brighter by class, of parts that are named."""
    generator, folder = np.random.default_rng(2), tmp_path_factory.mktemp("xrays")
    (folder / "p").mkdir()
    lines, number = ["image,label,patient,part"], 0
    for part, counts in PARTS.items():
        for place, (name, count) in enumerate(zip(CLASSES, counts)):
            for _ in range(count):
                pixels = (
                    100 + 12 * place + generator.normal(0, 10) + generator.normal(0, 40, (32, 32))
                )
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    folder / "p" / f"{number:03d}.png"
                )
                lines.append(f"p/{number:03d}.png,{name},P{number},{part}")
                number += 1
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    """The positive class is the one in the middle; the attention model predicts."""
    path, asked = tmp_path_factory.mktemp("run") / "run", {"positive": "odd", "choose": "model"}
    return pipelines.medical.train(
        data=home, run=path, epochs=2, lr=0.01, **WEIGHED, **asked, **SMALL
    )


@pytest.fixture(scope="module")
def splits(run):
    task = load_task("medical")
    return task.load().open_data(parse(task, "train", [], config=run.path / "config.yaml"))


def probability_of(run, part):
    """Of the pictures of a part, in its order, as the predictions of the run have them."""
    rows = {
        row["item"]: row
        for row in pl.read_parquet(run.path / "predictions.parquet").iter_rows(named=True)
    }
    ordered = [rows[name] for name in part.column("names")]
    return np.array([[row[f"p_{name}"] for name in CLASSES] for row in ordered], float), ordered


def test_the_loss_goes_by_the_training_pictures(splits):
    count = np.array(PARTS["train"])
    assert splits.spec.counts == np.bincount(splits.train.labels).tolist() == count.tolist()


def test_the_loss_is_the_weighted_cross_entropy(splits):
    task = load_task("medical")
    still = {
        "turn": 0.0,
        "shift": 0.0,
        "zoom": 0.0,
        "aspect": 0.0,
        "brightness": 0.0,
        "flip": False,
    }
    options = parse(task, "train", [], values={**SMALL, **still, **WEIGHED})
    torch.manual_seed(0)
    model = task.load().build_model(options, splits.spec).eval()
    chosen = [0, 1, 12, 13, 20, 21, 22]
    batch = {name: torch.stack([splits.train[k][name] for k in chosen]) for name in splits.train[0]}
    logits = []
    with torch.no_grad():
        handle = model.register_forward_hook(
            lambda module, inputs, output: logits.append(output.double().numpy())
        )
        loss = float(task.load().loss(model, batch, options))
        handle.remove()
    labels = batch["label"].numpy()
    weights = sum(PARTS["train"]) / 3 / np.array(PARTS["train"])
    assert set(labels.tolist()) == {0, 1, 2}
    losses = np.log(np.exp(logits[0]).sum(1)) - logits[0][np.arange(len(labels)), labels]
    expected = float((weights[labels] * losses).mean())
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("imbalance", ["none", "focal", "logit-adjust"])
def test_each_way_to_help_rare_classes_has_a_finite_loss(splits, imbalance):
    task = load_task("medical")
    values = {**SMALL, "imbalance": imbalance, "balanced": False}
    options = parse(task, "train", [], values=values)
    model = task.load().build_model(options, splits.spec).train()
    batch = {name: torch.stack([splits.train[k][name] for k in (0, 13, 20)]) for name in
             splits.train[0]}  # fmt: skip
    loss = task.load().loss(model, batch, options)
    loss.backward()
    assert loss.isfinite()


def test_diverse_experts_train_explain_predict_and_export(home, tmp_path):
    run = pipelines.medical.train(
        data=home, run=tmp_path / "run", max_steps=2, imbalance="diverse", balanced=False,
        choose="model", **SMALL,
    )  # fmt: skip
    stored = pl.read_parquet(run.path / "predictions.parquet")
    assert stored["p_odd"].is_between(0, 1).all()
    opened_run = headwise.open(run.path)
    rows = opened_run.predict(home / "p" / "003.png")
    assert rows["p_odd"].is_between(0, 1).all()
    assert (tmp_path / "model.pt2") == Path(opened_run.export(tmp_path / "model.pt2"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("diverse",), "--imbalance diverse: goes by how frequent classes are, .* --no-balanced"),
        (("asymmetric",), "--imbalance asymmetric: is for --findings"),
        (("diverse", "--data", "x", "--findings", "all"), "not for --findings"),
        (("none", "--class-weights"), "--class-weights: say --imbalance pos-weight"),
    ],
)
def test_what_cannot_help_is_refused_in_one_line(words, reason):
    with pytest.raises(InputError, match=reason):
        parse(load_task("medical"), "train", ["--imbalance", *words])


def test_a_run_with_class_weights_of_an_older_version_opens_and_is_resumed_by_them(run, splits):
    """Its spec has no counts."""
    task = load_task("medical")
    older = replace(splits.spec, counts=[])
    config = {"class_weights": True}
    with options_of_a_run():
        options = replace(parse(task, "train", [], config=run.path / "config.yaml"), **config)
    options = replace(options, imbalance="none", balanced=True)
    assert task.load().build_model(options, older).objective.kind == "none"
    again = task.load().open_data(options, older).spec
    assert again.counts == list(PARTS["train"])
    assert task.load().build_model(options, again).objective.kind == "pos-weight"


def test_temperature_and_operating_point_are_of_the_validation_pictures(run, splits):
    """Probabilities that a temperature was fitted to have the best temperature 1."""
    part = splits.validation
    probability, _ = probability_of(run, part)
    assert fit_temperature(part.labels, np.log(probability)) == pytest.approx(1, abs=2e-3)
    for unused in (splits.train, splits.test):
        logits = np.log(probability_of(run, unused)[0])
        assert fit_temperature(unused.labels, logits) != pytest.approx(1, abs=2e-3)
    metrics = run.metrics()
    assert metrics["temperature"] != pytest.approx(1, abs=1e-2)
    assert metrics["threshold"] == pytest.approx(
        choose_threshold(part.labels == 1, probability[:, 1]), abs=1e-6
    )


def test_predictions_of_the_test_pictures_give_the_metrics(run, splits):
    part, metrics = splits.test, run.metrics()
    probability, rows = probability_of(run, part)
    true_probability = probability[np.arange(len(part)), part.labels]
    assert metrics["log_loss"] == pytest.approx(-np.log(true_probability).mean(), abs=1e-6)
    predicted = np.array([CLASSES.index(row["prediction"]) for row in rows])
    assert metrics["accuracy"] == pytest.approx((predicted == part.labels).mean())
    called = np.array([row["positive"] for row in rows])
    np.testing.assert_array_equal(called, probability[:, 1] >= metrics["threshold"])
    assert metrics["sensitivity"] == pytest.approx(called[part.labels == 1].mean())
    assert metrics["specificity"] == pytest.approx((~called[part.labels != 1]).mean())


def test_an_asked_sensitivity_moves_the_operating_point(run, splits):
    task = load_task("medical")
    loaded = load_run(task.load(), str(run.path), "cpu")
    validation_only = replace(splits, train=None, test=None)
    part, (probability, _) = splits.validation, probability_of(run, splits.validation)
    thresholds = {}
    for asked in (0.5, 1.0):
        options = replace(loaded.options, sensitivity=asked)
        calibration = task.load().calibrate(loaded.model, validation_only, options, loaded.device)
        thresholds[asked] = float(calibration["threshold"])
        expected = choose_threshold(part.labels == 1, probability[:, 1], asked)
        assert thresholds[asked] == pytest.approx(expected, abs=1e-6)
    assert thresholds[0.5] > thresholds[1.0]


def test_a_variant_is_scored_on_the_test_part_with_the_temperature_of_the_validation_part(
    run, splits
):
    loaded = load_run(load_task("medical").load(), str(run.path), "cpu")
    trained = Trained(
        "medusa", loaded.model, replace(splits, train=None), loaded.options, loaded.device
    )
    (scores,) = comparison._score(trained).values()
    for name in ("auc", "accuracy", "ece"):
        assert scores[name] == pytest.approx(run.metrics()[name], abs=1e-5)
