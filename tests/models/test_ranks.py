"""Two processes that each see a part of a batch balance experts and heads as one that sees it
all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from headwise.models.attention.moh import MixtureOfHeads
from headwise.models.moe.layer import MoE
from headwise.models.moe.lora import MoELoRA
from headwise.models.ranks import mean_over_ranks, summed_over_ranks

RANKS = 2


def on_ranks(work: Callable[[int], list[Tensor]], folder: Path) -> list[list[Tensor]]:
    """What `work` gives in each of two processes."""
    context = get_context("fork")
    processes = [
        context.Process(target=_work, args=(work, folder, rank), daemon=True)
        for rank in range(RANKS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(RANKS)]


def _work(work: Callable[[int], list[Tensor]], folder: Path, rank: int) -> None:
    store = distributed.FileStore(str(folder / "store"), RANKS)
    distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=30)
    )
    torch.save(work(rank), folder / f"rank-{rank}.pt")
    distributed.destroy_process_group()


def pushed(layer: MoE) -> MoE:
    """Experts of which tokens choose one by their first two numbers, as written here."""
    with torch.no_grad():
        layer.router.gate.weight.zero_()
        for expert, (place, value) in enumerate(((0, 5.0), (0, -5.0), (1, 5.0), (1, -5.0))):
            layer.router.gate.weight[expert, place] = value
    return layer


def test_the_bias_of_experts_follows_the_tokens_of_all_ranks(tmp_path):
    x = torch.zeros(2, 8, 8, dtype=torch.float64)
    x[0, :, 0], x[1, :, 0] = 3.0, -3.0  # all of expert 0, all of expert 1

    def bias(part: Tensor) -> Tensor:
        torch.manual_seed(0)
        options = {"active": 1, "normalise": False, "balance": 0.0, "bias_rate": 0.1}
        layer = pushed(MoE(8, 16, experts=4, **options).double())
        for _ in range(3):
            layer(part)
        return layer.router.bias

    ranks = on_ranks(lambda rank: [bias(x[rank : rank + 1])], tmp_path)
    expected = torch.tensor([-0.3, -0.3, 0.3, 0.3], dtype=torch.float64)
    for (of_rank,) in ranks:
        torch.testing.assert_close(of_rank, expected)
    torch.testing.assert_close(bias(x), expected)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "experts": lambda: MoE(8, 16, experts=4, balance=1.0, z=0.5),
    "experts, first choices": lambda: MoE(8, 16, experts=4, balance=1.0, convention="first"),
    "adapters": lambda: MoELoRA(nn.Linear(8, 8), experts=4, balance=1.0),
    "heads": lambda: MixtureOfHeads(8, heads=4, balance=1.0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_loss_of_balance_is_that_of_the_entire_batch(name, tmp_path):
    torch.manual_seed(1)
    layer = LAYERS[name]().double().train()
    x = torch.randn(6, 5, 8, dtype=torch.float64) + 1

    def of(part: Tensor) -> list[Tensor]:
        layer.zero_grad()
        layer(part)
        loss = layer.auxiliary
        assert isinstance(loss, Tensor)
        loss.backward()
        gradients = [w.grad for w in layer.parameters() if w.grad is not None and w.grad.any()]
        return [loss.detach(), *gradients]

    ranks = on_ranks(lambda rank: of(x[3 * rank : 3 * rank + 3]), tmp_path)
    entire = of(x)
    assert len(entire) > 1
    for values in zip(entire, *ranks, strict=True):
        torch.testing.assert_close(torch.stack(values[1:]).mean(0), values[0])


def test_means_and_sums_over_ranks_of_unequal_size(tmp_path):
    def of(rank: int) -> list[Tensor]:
        values = torch.arange(4.0) if rank else torch.arange(4.0, 6.0)
        mean = mean_over_ranks(values.mean()[None], torch.tensor(len(values)))
        return [mean, summed_over_ranks(values.sum())]

    for mean, total in on_ranks(of, tmp_path):
        torch.testing.assert_close(mean, torch.tensor([2.5]))
        torch.testing.assert_close(total, torch.tensor(15.0))


def test_one_process_by_itself_keeps_its_own_numbers():
    values = torch.rand(3)
    assert summed_over_ranks(values) is values
    assert mean_over_ranks(values, torch.tensor(7)) is values
