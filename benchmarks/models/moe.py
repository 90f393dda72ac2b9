"""A training step of a mixture of experts, compared with Hugging Face's Mixtral block and with a
dense layer of the active size.

    python benchmarks/models/moe.py [--seconds 0.5]

Same weights, same choices, equal outputs (checked): softmax, two active experts of SwiGLU networks,
balance loss of weight .01 in each library's own form. A step is forward and backward, to the input
as well, 2,048 tokens of width 256. Rows: E experts of inner width F, beside transformers' loop
over experts ("eager", its reference), its own grouped product ("grouped_mm") and one dense SwiGLU
network of width 2 F, whose ratio is the overhead. Measured as `ratios.py` says.
"""

import os
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import (
    MixtralSparseMoeBlock,
    load_balancing_loss_func,
)

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size
from headwise.models.moe.layer import MoE
from headwise.models.moe.losses import load_balance

ACTIVE, BALANCE = 2, 0.01


class Dense(nn.Module):
    """SwiGLU of width F."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = (
            nn.Linear(width, 2 * hidden, bias=False),
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        return self.down(nn.functional.silu(gate) * up)


def theirs(ours: MoE, kind: str) -> MixtralSparseMoeBlock:
    """Their block with our weights."""
    config = MixtralConfig(
        hidden_size=ours.experts.width,
        intermediate_size=ours.experts.hidden,
        num_local_experts=ours.experts.experts,
        num_experts_per_tok=ACTIVE,
        hidden_act="silu",
    )
    config._experts_implementation = kind
    block = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        block.gate.weight.copy_(ours.router.gate.weight)
        block.experts.gate_up_proj.copy_(ours.experts.up)
        block.experts.down_proj.copy_(ours.experts.down)
    return block


def step_of(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], None]:
    """Forward and backward of a layer with its balance loss."""
    router_logits: list[Tensor] = []
    if isinstance(module, MixtralSparseMoeBlock):
        module.gate.register_forward_hook(lambda gate, inputs, out: router_logits.append(out[0]))

    def step() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        out = module(x)
        loss = (out * grad).sum()
        if isinstance(module, MoE):
            assert module.auxiliary is not None
            loss = loss + module.auxiliary
        elif router_logits:
            loss = loss + BALANCE * load_balancing_loss_func(
                (router_logits.pop(),), module.experts.num_experts, ACTIVE
            )
        loss.backward()

    return step


def cases(size: Size) -> Iterator[Case]:
    """Steps of all layers, checked."""
    width, tokens = (8, 16) if size == "tiny" else (256, 2048)
    sizes = ((2, 8),) if size == "tiny" else ((8, 128), (8, 1024), (64, 128), (64, 1024))
    for experts, hidden in sizes:
        torch.manual_seed(0)
        ours = MoE(
            width,
            hidden,
            experts=experts,
            active=ACTIVE,
            kind="glu",
            activation="silu",
            bias=False,
            balance=BALANCE,
        )
        x = torch.randn(1, tokens, width, requires_grad=True)
        grad = torch.randn_like(x)
        # The loop over 64 wide experts takes six seconds a step.
        kinds = ("eager", "grouped_mm")[size == "short" and experts * hidden == 2**16 :]
        rivals = {kind: theirs(ours, kind) for kind in kinds}
        expected = ours(x)
        for rival in rivals.values():
            torch.testing.assert_close(rival(x), expected, rtol=1e-4, atol=1e-5)
        assert ours.routing is not None
        logits = ours.router.logits(x).detach().flatten(0, 1)
        balance = load_balancing_loss_func((logits,), experts, ACTIVE)
        # "sum" is the convention of transformers.
        torch.testing.assert_close(load_balance(ours.routing, "sum"), balance)
        layers = rivals | {"dense, active size": Dense(width, ACTIVE * hidden)}
        others = {name: step_of(layer, x, grad) for name, layer in layers.items()}
        name = f"{experts} experts of {hidden}"
        yield Case(name, step_of(ours, x, grad), others, memory=False)


if __name__ == "__main__":
    ratios.main(__doc__, ["models/moe"])
