"""Which rows a step sees, at which rate it goes, and whose weights a training ends with: by a task
of one vector.
"""

import contextlib
import csv
import dataclasses
import json
import math
from functools import partial
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.training import loop
from headwise.pipelines.engine.training.quick import fit
from headwise.tests.pipelines.engine.averages import (
    BEGIN,
    PARTS,
    AveragesOptions,
    AveragesSpec,
    Rows,
    call,
)

STEPS = math.ceil(PARTS["train"] / 4)  # of an epoch


@pytest.fixture
def train(tmp_path):
    """`train(task, **options)` trains; gives the weights that the run keeps and its history."""

    def run(task, name="run", **options):
        call(task, "train", run=tmp_path / name, accelerator="cpu", **options)
        return kept(tmp_path / name), history(tmp_path / name)

    return run


def kept(run):
    return load_file(run / "model.safetensors")["weight"].numpy()


def history(run):
    with (run / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def rows_of(task, tmp_path, name="train"):
    return np.array(json.loads(task.write_sample(tmp_path).read_text())[name])


def descent(rows, batches, rate=0.1):
    """Weights after each of the batches, and the loss of each before its step, in plain numpy."""
    w, weights, losses = np.array(BEGIN), [], []
    for batch in batches:
        losses.append(0.5 * ((w - rows[batch]) ** 2).sum(1).mean())
        w = w - rate * (w - rows[batch].mean(0))
        weights.append(w)
    return weights, losses


def fitted(task, tmp_path, *, validation=True, **options):
    """`quick.fit` on the sample: the weights, and how it went."""
    options = parse(task.task, "train", [], values={"data": task.write_sample(tmp_path), **options})
    splits = task.open_data(options)
    held = splits.validation if validation else None
    model, facts = fit(
        task, options, splits.train, splits.spec, torch.device("cpu"), validation=held
    )
    assert not model.training
    return model.weight.detach().numpy(), facts


def test_the_weights_are_those_of_plain_gradient_descent(averages, train, tmp_path):
    task = averages()
    weights, rows = train(task)
    expected, losses = descent(rows_of(task, tmp_path), task.losses())
    np.testing.assert_allclose(weights, expected[-1], rtol=1e-5)
    assert [row["step"] for row in rows] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    np.testing.assert_allclose(
        [row["train_loss"] for row in rows], np.mean(np.split(np.array(losses), 3), 1), rtol=1e-5
    )


def test_every_training_row_comes_once_an_epoch_and_no_other_row_comes(averages, train):
    task = averages()
    train(task)
    batches = task.losses()
    epochs = [[*chain(*batches[k : k + STEPS])] for k in range(0, len(batches), STEPS)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(PARTS["train"]))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3, "each epoch has an order of its own"
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    assert [event[1] for event in task.asked if event[0] == "epoch"] == [0, 1, 2]
    read = [
        event[1:]
        for event in task.asked[: task.asked.index(("calibrate", False))]
        if event[0] == "row"
    ]
    assert {name for name, _ in read} == {"train", "validation"}
    assert [index for name, index in read if name == "validation"] == [
        *range(PARTS["validation"])
    ] * 3
    reviewed = task.asked[task.asked.index(("calibrate", False)) :]
    assert [event[1:] for event in reviewed if event[0] == "row"] == [
        ("test", k) for k in range(PARTS["test"])
    ]


def test_accumulation_changes_nothing(averages, train):
    weights, rows = train(averages(), "whole")
    task = averages()
    parted, again = train(task, "parted", accumulate=3)
    np.testing.assert_allclose(parted, weights, rtol=1e-5)
    np.testing.assert_allclose(
        [row["train_loss"] for row in again], [row["train_loss"] for row in rows], rtol=1e-5
    )
    assert max(map(len, task.losses())) == 2


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((5, 3, 4, 4.5), 2),
        ((5, 3, 3, 9), 3),
        ((math.nan, 3, math.nan, 4), 2),
        ((math.inf, 4, 3, 3.5), 3),
        ((1, 2, 3, 4), 1),
    ],
)
def test_the_weights_are_those_of_the_best_epoch(averages, train, tmp_path, scores, best):
    task = averages(scores)
    weights, _ = train(task, epochs=4)
    expected, _ = descent(rows_of(task, tmp_path), task.losses())
    np.testing.assert_allclose(weights, expected[best * STEPS - 1], rtol=1e-5)
    # What is reviewed and predicted is of these weights, too.
    distance = ((weights - rows_of(task, tmp_path, "test")) ** 2).sum(1).mean()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["distance"] == pytest.approx(
        distance, rel=1e-5
    )
    again, facts = fitted(averages(scores), tmp_path, epochs=4)
    np.testing.assert_array_equal(again, weights)
    assert facts["best_epoch"] == best
    assert facts["validation_score"] == scores[best - 1]
    assert facts["epochs"] == 4


@pytest.mark.parametrize(
    ("scores", "patience", "epochs"),
    [
        ((3, 4, 5, 6, 7), 1, 2),
        ((3, 4, 5, 6, 7), 2, 3),
        ((3, 4, 5, 6, 7), 3, 4),
        ((5, 6, 4, 5, 6, 7), 2, 5),
        ((3, math.nan, math.nan, 1), 2, 3),
        ((5, 4, 3, 2, 1), 1, 5),
        ((3, 3, 3, 3, 4), 1, 5),
    ],
)
def test_patience_counts_the_epochs_without_a_better_score(
    averages, train, tmp_path, scores, patience, epochs
):
    _, rows = train(averages(scores), epochs=len(scores), patience=patience)
    assert len(rows) == epochs
    _, facts = fitted(averages(scores), tmp_path, epochs=len(scores), patience=patience)
    assert facts["epochs"] == epochs
    assert facts["steps"] == epochs * STEPS


@pytest.mark.parametrize("most", [1, 3, 4, 7])
def test_max_steps_is_the_number_of_steps(averages, train, tmp_path, most):
    task = averages()
    weights, rows = train(task, max_steps=most)
    assert len(task.losses()) == most
    assert rows[-1]["step"] == most
    assert len(rows) == math.ceil(most / STEPS)
    again = averages()
    np.testing.assert_array_equal(fitted(again, tmp_path, max_steps=most)[0], weights)
    assert again.losses() == task.losses()


def test_a_training_in_memory_is_the_same_as_one_in_a_run(averages, train, tmp_path):
    how = {"noise": 0.5, "clip": 1.0, "epochs": 4, "schedule": "cosine", "warmup": 1, "extra": True}
    weights, rows = train(averages(), **how)
    again, facts = fitted(averages(), tmp_path, **how)
    np.testing.assert_array_equal(again, weights)
    assert facts["validation_score"] == min(row["val_score"] for row in rows)


def test_a_training_in_memory_without_validation_keeps_its_last_weights(averages, tmp_path):
    task = averages((1, 2, 3, 4))
    weights, facts = fitted(task, tmp_path, validation=False, epochs=4, patience=1)
    expected, _ = descent(rows_of(task, tmp_path), task.losses())
    np.testing.assert_allclose(weights, expected[-1], rtol=1e-5)
    assert facts == {"epochs": 4, "steps": 4 * STEPS}
    assert not [event for event in task.asked if event[0] == "validate"]


def test_a_loss_is_taken_in_training_mode_and_a_score_in_evaluation_mode(averages, train, tmp_path):
    task = averages()
    train(task)
    fitted(task, tmp_path)
    modes = {event[0]: set() for event in task.asked}
    for event in task.asked:
        modes[event[0]].add(event[2:])
    assert modes["loss"] == {(True, True)}
    assert modes["validate"] == {(False, False)}
    assert modes["review"] == modes["predict"] == {(False,)}
    assert [event[1] for event in task.asked if event[0] == "calibrate"] == [False]


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, (0.8, 0.8, 0.8, 0.8)),
        ("constant", 3, (0.2, 0.4, 0.6, 0.8)),
        ("cosine", 0, (0.8, 0.682842712, 0.4, 0.117157288)),
        ("cosine", 1, (0.4, 0.682842712, 0.4, 0.117157288)),
        ("cosine", 2, (0.266666667, 0.455228475, 0.4, 0.117157288)),
    ],
)
def test_the_learning_rates_of_a_schedule(averages, train, tmp_path, schedule, warmup, rates):
    options = {"epochs": 4, "lr": 0.8, "schedule": schedule, "warmup": warmup}

    def shared(model, options):
        weight, half, held = model.parameters()
        groups = [
            {"params": [weight]},
            {"params": [half], "share": 0.5},
            {"params": [held], "share": 0.0},
        ]
        task.optimizer_used = torch.optim.SGD(groups, lr=options.lr)
        return task.optimizer_used

    for way in ("run", "memory"):
        task = averages()
        task.optimizer = shared
        if way == "run":
            _, rows = train(task, **options)
            assert [row["lr"] for row in rows] == pytest.approx(rates)
        else:
            fitted(task, tmp_path, **options)
        rates_of_steps = [
            [rate * share for share in (1, 0.5, 0)] for rate in rates for _ in range(STEPS)
        ]
        assert np.array(task.rates) == pytest.approx(np.array(rates_of_steps))


def test_a_gradient_is_no_longer_than_the_clip(averages, train, tmp_path):
    task = averages()
    weights, _ = train(task, clip=0.5, max_steps=1)
    assert np.linalg.norm(weights - BEGIN) == pytest.approx(0.1 * 0.5, rel=1e-4)
    np.testing.assert_array_equal(fitted(averages(), tmp_path, clip=0.5, max_steps=1)[0], weights)


def test_the_auxiliary_loss_of_a_model_counts_once(averages, train):
    plain, rows = train(averages(), "plain", max_steps=1)
    weights, more = train(averages(), "more", max_steps=1, extra=True)
    np.testing.assert_allclose(
        weights, plain - 0.1, rtol=1e-5
    )  # its gradient is 1 for every number
    assert more[0]["train_loss"] == pytest.approx(rows[0]["train_loss"] + sum(BEGIN), rel=1e-5)
    parted, _ = train(averages(), "parted", max_steps=1, extra=True, accumulate=2)
    np.testing.assert_allclose(parted, weights, rtol=1e-5)


def test_random_draws_follow_from_the_seed_and_the_step(averages, train):
    def draws(name, **options):
        task, states = averages(), []
        loss = task.loss

        def watched(model, batch, options):
            states.append(torch.random.get_rng_state().numpy().tobytes())
            return loss(model, batch, options)

        task.loss = watched
        train(task, name, **options)
        return states

    first = draws("first")
    assert len(set(first)) == len(first), "no two steps draw the same"
    assert draws("second") == first
    assert not set(draws("third", seed=5)) & set(first)


def with_infinite_row(task, tmp_path):
    """The sample with one row so far away that its loss is infinite in float32, while its gradient
    is not.
    """
    parts = json.loads(task.write_sample(tmp_path).read_text())
    parts["train"][6] = [1e30, 0.0]
    path = tmp_path / "infinite.json"
    path.write_text(json.dumps(parts))
    return path


def test_a_loss_of_infinity_is_skipped_and_listed(averages, train, tmp_path):
    task = averages()
    weights, rows = train(task, data=with_infinite_row(task, tmp_path), nan="skip")
    batches = task.losses()
    good = [batch for batch in batches if 6 not in batch]
    expected, losses = descent(rows_of(task, tmp_path), good)
    np.testing.assert_allclose(weights, expected[-1], rtol=1e-5)
    wrong = [k for k, batch in enumerate(batches) if 6 in batch]
    listed = json.loads((tmp_path / "run" / "nan.json").read_text())
    assert [entry["step"] for entry in listed] == wrong
    assert [entry["samples"] for entry in listed] == [batches[k] for k in wrong]
    assert [entry["epoch"] for entry in listed] == [1, 2, 3]
    assert rows[-1]["step"] == 3 * STEPS, "a skipped batch counts as a step"
    np.testing.assert_allclose(
        [row["train_loss"] for row in rows], np.mean(np.split(np.array(losses), 3), 1), rtol=1e-5
    )


def test_a_loss_of_infinity_stops_by_default(averages, train, tmp_path):
    task = averages()
    data = with_infinite_row(task, tmp_path)
    with pytest.raises(InputError, match="the loss became inf at step"):
        train(task, data=data)
    options = parse(task.task, "train", [], values={"data": data})
    with pytest.raises(InputError, match="the loss became inf at step"):
        fit(task, options, task.open_data(options).train, AveragesSpec(), torch.device("cpu"))


def test_the_newest_checkpoints_and_the_best_one_stay(averages, train, tmp_path):
    train(averages((1, 2, 3, 4, 5)), epochs=5, keep=2)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert names == [f"step-{epoch * STEPS:09d}" for epoch in (1, 4, 5)]


def test_checkpoints_within_an_epoch_change_nothing(averages, train, tmp_path):
    """Saved every step, and taken up in the middle of the second epoch."""
    weights, rows = train(averages(), "whole", noise=0.3, momentum=0.5)
    task, calls = averages(), []
    loss = task.loss

    def killed(model, batch, options):
        calls.append(1)
        if len(calls) == STEPS + 3:
            raise KeyboardInterrupt
        return loss(model, batch, options)

    task.loss = killed
    with pytest.raises(KeyboardInterrupt):
        train(task, "broken", noise=0.3, momentum=0.5, checkpoint_every=1)
    again = averages()
    call(again, "train", run=tmp_path / "broken", resume=True)
    np.testing.assert_array_equal(kept(tmp_path / "broken"), weights)
    assert len(again.losses()) == 2 * STEPS - 2
    for resumed, unbroken in zip(history(tmp_path / "broken"), rows, strict=True):
        assert resumed | {"steps_per_second": 0} == unbroken | {"steps_per_second": 0}


class Paired(Rows):
    """A training part that draws its own batches, two of three pairs in each epoch."""

    def steps(self, batch_size):
        return 2

    def batches(self, batch_size, *, seed, epoch):
        return [
            np.array([[2 * k, 2 * k + 1]]) for k in ((seed + epoch) % 3, (seed + epoch + 1) % 3)
        ]


def test_a_part_that_draws_its_own_batches_is_asked_for_those_of_each_epoch(
    averages, train, tmp_path
):
    expected = [
        [2 * k, 2 * k + 1] for epoch in range(3) for k in ((7 + epoch) % 3, (8 + epoch) % 3)
    ]
    for way in (train, partial(fitted, tmp_path=tmp_path)):
        task = averages()
        opened = task.open_data

        def paired(*arguments, opened=opened, **more):
            splits = opened(*arguments, **more)
            return dataclasses.replace(
                splits, train=Paired("train", splits.train.rows.tolist(), splits.train.asked)
            )

        task.open_data = paired
        way(task, seed=7)
        assert task.losses() == expected


FREE_ON_RESUME = {"run", "resume", "workers", "checkpoint_every", "keep", "logger"}


def test_a_run_is_resumed_with_its_own_options_alone(averages, train, tmp_path):
    """All but those that say where and how fast."""
    train(averages(), epochs=1)
    tried = 0
    for option in dataclasses.fields(AveragesOptions):
        value = getattr(parse(averages().task, "train", [], values={}), option.name)
        changed = {bool: True, int: 7, float: 0.375, str: "cosine"}.get(type(value))
        several = option.name in ("devices", "nodes")  # which would start processes first
        if option.name in FREE_ON_RESUME or several or changed in (None, value):
            continue
        with contextlib.suppress(InputError):  # no value of this option
            parse(averages().task, "train", [], values={option.name: changed})
            with pytest.raises(
                InputError, match=f"cannot resume with other options: {option.name} was"
            ):
                call(
                    averages(), "train", run=tmp_path / "run", resume=True, **{option.name: changed}
                )
            tried += 1
    assert tried >= 10


def test_a_run_is_not_resumed_on_other_data(averages, train, tmp_path):
    """Which the task tells by its spec."""
    train(averages(), epochs=1)
    task = averages()
    opened = task.open_data
    task.open_data = lambda options, spec=None, *, as_test=False: dataclasses.replace(
        opened(options, spec, as_test=as_test), spec=AveragesSpec(input={"rows": 11})
    )
    with pytest.raises(InputError, match="the data changed since the run was started"):
        call(task, "train", run=tmp_path / "run", resume=True)


def test_draws_are_those_of_manual_seed_on_the_device_of_the_training(monkeypatch):
    torch.manual_seed(7)
    expected, seeds = torch.rand(3), []
    loop.seed_draws(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    module = SimpleNamespace(manual_seed=seeds.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    loop.seed_draws(7, torch.device("cuda", 1))
    assert torch.equal(torch.rand(3), expected)
    assert seeds == [7]
