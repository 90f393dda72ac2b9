"""Which weights a tuning changes, and how much of their steps it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from headwise.base.errors import InputError
from headwise.models.language.tuning.anatomy import layer_range, linear_places
from headwise.models.language.tuning.cofitune import (
    Node,
    mask_steps,
    select,
    tree_search,
    unit_masks,
)
from headwise.tests.models.language.tuning.tuned_models import texts, tiny

LAYERS, KINDS = (1, 2), ("gate", "up", "down")


def state_after(
    steps: int,
    importance: float | None,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    **options: float,
) -> dict[str, Tensor]:
    """Weights after some steps, of which 1 - importance is taken; None: without a mask."""
    model = tiny(layers=4)
    select(model, LAYERS, KINDS)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = make(trained, lr=1e-2, **options)
    if importance is not None:
        units = model.config.intermediate_size
        known = {layer: torch.full((units,), importance) for layer in LAYERS}
        mask_steps(optimizer, unit_masks(model, known))
    ids = texts()
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_importance_of_0_is_plain_training_bit_for_bit():
    plain, masked = (state_after(4, given, weight_decay=0.1) for given in (None, 0.0))
    assert all(torch.equal(plain[name], masked[name]) for name in plain)
    assert not torch.equal(plain["model.layers.1.mlp.up_proj.weight"],
                           state_after(0, None)["model.layers.1.mlp.up_proj.weight"])  # fmt: skip


def test_importance_of_1_is_frozen_bit_for_bit_in_spite_of_weight_decay():
    start, masked = state_after(0, None), state_after(4, 1.0, weight_decay=0.5)
    assert all(torch.equal(start[name], masked[name]) for name in start)


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_a_step_with_a_mask_is_that_share_of_the_step(share):
    start, plain, masked = (
        state_after(*given, weight_decay=0.1) for given in ((0, None), (1, None), (1, 1 - share))
    )
    for name in start:
        step, taken = plain[name] - start[name], masked[name] - start[name]
        torch.testing.assert_close(taken, share * step, atol=1e-7, rtol=1e-5)


def test_only_the_named_modules_change():
    start, after = state_after(0, None), state_after(3, 0.5)
    changed = {name for name in start if not torch.equal(start[name], after[name])}
    assert changed == {
        f"model.layers.{layer}.mlp.{kind}_proj.weight" for layer in LAYERS for kind in KINDS
    }


def test_a_mask_is_on_rows_of_up_and_on_columns_of_down():
    model = tiny(layers=4)
    select(model, LAYERS, KINDS)
    units = model.config.intermediate_size
    importance = {1: torch.linspace(0, 1, units)}
    masks = unit_masks(model, importance)
    assert len(masks) == 3
    mlp = model.model.layers[1].mlp
    for row in (0, units // 2, units - 1):
        kept = 1 - float(importance[1][row])
        for weight in (mlp.up_proj.weight, mlp.gate_proj.weight):
            assert float(masks[weight].expand_as(weight)[row, 3]) == pytest.approx(kept)
        down = mlp.down_proj.weight
        assert float(masks[down].expand_as(down)[3, row]) == pytest.approx(kept)


def test_a_constant_mask_on_gradients_changes_nothing_under_adam_and_all_under_sgd():
    """Why the mask is on the step: the published code multiplies the gradients by it."""

    def moved(make: Callable[..., torch.optim.Optimizer], factor: float) -> float:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(50))
        start, target = weight.detach().clone(), torch.randn(50)
        optimizer = make([weight], lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            ((weight - target) ** 2).sum().backward()
            weight.grad *= factor  # type: ignore[operator]
            optimizer.step()
        return float((weight.detach() - start).norm())

    adam = moved(torch.optim.Adam, 0.01) / moved(torch.optim.Adam, 1.0)
    sgd = moved(torch.optim.SGD, 0.01) / moved(torch.optim.SGD, 1.0)
    assert adam == pytest.approx(1, abs=1e-3)
    assert sgd < 0.05


def test_ranges_in_percent_hold_each_layer_once():
    quarters = [(0.0, 25.0), (25.0, 50.0), (50.0, 75.0), (75.0, 100.0)]
    for count in (4, 18, 30, 31, 40):
        ranges = [layer_range((*quarter, True), count) for quarter in quarters]
        assert [layer for chosen in ranges for layer in chosen] == list(range(count))
    assert layer_range((25.0, 50.0, True), 32) == range(8, 16)  # as the published script
    assert layer_range((25.0, 50.0, True), 40) == range(10, 20)
    assert layer_range((8.0, 14.0, False), 30) == range(8, 15)
    assert len(layer_range((25.0, 50.0, True), 1)) == 1
    with pytest.raises(ValueError, match="no layer 30"):
        layer_range((8.0, 30.0, False), 30)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_the_places_of_modules_are_those_of_the_model(kind):
    model = tiny(kind)
    places = list(linear_places(model, [0, 2], ("q", "k", "v", "o", *KINDS)))
    assert len(places) == 14
    modules = dict(model.named_modules())
    assert all(modules[place.name] is place.linear for place in places)
    assert {place.layer for place in places} == {0, 2}


class Tuning:
    """Counts the nodes; upper layers gain more, and lose more."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.nodes: list[Node] = []
        self.stop_after = stop_after

    def __call__(self, node: Node) -> tuple[float, float]:
        if len(self.nodes) == self.stop_after:
            raise KeyboardInterrupt
        self.nodes.append(node)
        middle = (node.first + node.last) / 200
        return middle + 0.01 * len(node.modules), middle**4


def test_a_search_visits_each_node_once_and_goes_on_from_the_best():
    tuning = Tuning()
    visits = tree_search(tuning)
    assert len(tuning.nodes) == len(set(tuning.nodes)) == len(visits)
    quarters = visits[:4]
    best = max(quarters, key=lambda visit: visit.score).node
    for node in tuning.nodes[4:6]:
        assert node.first <= best.first < best.last <= node.last
    assert {node.modules for node in tuning.nodes[6:]} == {("q", "k", "v"), ("up", "down")}


def test_a_search_that_was_stopped_goes_on_where_it_was(tmp_path):
    journal, whole = tmp_path / "visits.jsonl", tree_search(Tuning())
    for stop in (0, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            tree_search(Tuning(stop), journal=journal, setting="a")
    with journal.open("a") as file:
        file.write('{"first": 0.0, "la')  # killed while it wrote
    rest = Tuning()
    visits = tree_search(rest, journal=journal, setting="a")
    assert visits == whole
    assert len(rest.nodes) == len(whole) - 4
    assert tree_search(Tuning(0), journal=journal, setting="a") == whole
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(lines) == len(whole)
    other = Tuning()
    tree_search(other, journal=journal, setting="b")
    assert len(other.nodes) == len(whole), "visits of another setting do not count"


def test_a_damaged_journal_is_one_line(tmp_path: Path):
    journal = tmp_path / "visits.jsonl"
    journal.write_text("nothing\n{}\n")
    with pytest.raises(InputError, match="line 1: is no visit"):
        tree_search(Tuning(), journal=journal)
