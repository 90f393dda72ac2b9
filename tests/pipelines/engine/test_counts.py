"""Means that are not taken over samples, of a batch that is cut into parts and over devices."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from headwise.pipelines.engine.training.counts import factor, steps_of, with_factors
from headwise.pipelines.engine.training.order import Part, plan
from headwise.pipelines.engine.training.wrapped import call, call_method

SAMPLES = 7


class WordLoss:
    """A mean over words, of which samples have 0 to 6, and one over two kinds of rows."""

    def counts(self, batch: dict[str, Tensor], options: object) -> dict[str, Tensor]:
        return {"words": batch["words"].sum(), "rows": batch["rows"].sum(0)}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        def mean(total: Tensor, count: Tensor) -> Tensor:
            return total / count.clamp_min(1)

        words, rows = batch["words"], batch["rows"]
        of_words = mean((batch["value"] * words).sum(), words.sum()) * factor(batch, "words")
        of_rows = mean((batch["value"][:, None] * rows).sum(0), rows.sum(0)) * factor(batch, "rows")
        return of_words + of_rows.sum() + batch["value"].mean()


def all_samples() -> dict[str, Tensor]:
    rows = torch.zeros(SAMPLES, 2)
    rows[[0, 2, 5], 0] = 1
    rows[[1], 1] = 1
    return {"value": torch.randn(SAMPLES), "words": torch.arange(float(SAMPLES)), "rows": rows}


def parts_of(batch: dict[str, Tensor], rank: int, world: int, accumulate: int, samples: int):
    parts = plan(samples, samples, seed=0, epoch=0, accumulate=accumulate, rank=rank, world=world)
    return [
        (part, {k: v[torch.from_numpy(part.indices)] for k, v in batch.items()}) for part in parts
    ]


def processes(world: int, all_reduce: Callable[..., Tensor]) -> SimpleNamespace:
    """What `with_factors` asks of Fabric."""
    return SimpleNamespace(world_size=world, device="cpu", all_reduce=all_reduce)


@pytest.mark.parametrize(
    ("world", "accumulate", "samples"),
    [(1, 1, 7), (1, 3, 7), (2, 1, 7), (2, 2, 7), (3, 2, 7), (3, 1, 2)],
)
def test_the_parts_of_a_step_sum_to_the_loss_of_the_batch(world, accumulate, samples):
    torch.manual_seed(0)
    batch, pipeline = all_samples(), WordLoss()
    batch = {name: value[:samples] for name, value in batch.items()}
    steps = [parts_of(batch, rank, world, accumulate, samples) for rank in range(world)]
    own: list[list[Tensor]] = [[] for _ in range(world)]

    def noted(rank: int):
        return lambda total, **_: own[rank].append(total) or total

    for rank, step in enumerate(steps):
        with_factors(step, pipeline, None, processes(world, noted(rank)))  # pyright: ignore
    loss = torch.zeros(())
    for step in steps:
        sums = iter([torch.stack(totals).sum(0) for totals in zip(*own, strict=True)])
        fabric = processes(world, lambda *_, sums=sums, **__: next(sums))
        for part, part_batch in with_factors(step, pipeline, None, fabric):  # pyright: ignore
            loss = loss + part.weight * pipeline.loss(part_batch) / world
    torch.testing.assert_close(loss, pipeline.loss(batch))


def test_an_entire_batch_is_left_as_it_is():
    step = [(Part(torch.arange(3).numpy(), 1.0, True), {"words": torch.ones(3)})]
    fabric = SimpleNamespace(world_size=1, device="cpu")
    assert with_factors(step, WordLoss(), None, fabric) is step  # pyright: ignore
    assert factor(step[0][1], "words") == 1.0


def test_a_step_ends_with_its_last_part():
    parts = [(Part(torch.arange(1).numpy(), 1.0, last), {}) for last in (False, True, True)]
    assert [len(step) for step in steps_of(parts)] == [2, 1]


class Twice(nn.Module):
    """A method that calls the model's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def twice(self, x: Tensor) -> Tensor:
        return 2 * self(x)


def test_other_methods_and_functions_are_cast_as_forward_is():
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-true")
    plain, x = Twice(), torch.randn(4, 3)
    model = fabric.setup_module(plain)
    twice = call_method(model, "twice", x)
    assert twice.dtype == torch.float32
    torch.testing.assert_close(twice, 2 * model(x))
    torch.testing.assert_close(call(model, lambda own, value: own.twice(value), x), twice)
    assert "forward" not in vars(plain)


def test_a_model_that_nobody_has_wrapped_is_called_as_it_is():
    plain, x = Twice(), torch.randn(4, 3)
    torch.testing.assert_close(call_method(plain, "twice", x), 2 * plain(x))
