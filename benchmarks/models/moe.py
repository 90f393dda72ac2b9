"""A training step of a mixture of experts, compared with Hugging Face's Mixtral block and with a
dense layer of the active size.

    python benchmarks/models/moe.py [--tokens 2048] [--width 256] [--seconds 2]

Same weights, same choices, equal outputs (checked): softmax, two active experts of SwiGLU networks,
balance loss of weight .01 in each library's own form. A step is forward and backward, to the input
as well. Rows: E experts of inner width F. Ratios above 1 say that ours is faster: than
transformers' loop over experts ("eager", its reference) and its own grouped product ("grouped_mm").
Overhead: our step over that of one dense SwiGLU network of width 2 F.
"""

import os
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import (
    MixtralSparseMoeBlock,
    load_balancing_loss_func,
)

from headwise.benchmarks.measure import fastest, parser_of, print_header, print_row
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


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_header("E", "F", "ours, ms", "beside eager", "beside grouped_mm", "overhead over dense")
    for experts in (8, 64):
        for hidden in (128, 1024):
            torch.manual_seed(0)
            ours = MoE(
                arguments.width,
                hidden,
                experts=experts,
                active=ACTIVE,
                kind="glu",
                activation="silu",
                bias=False,
                balance=BALANCE,
            )
            x = torch.randn(1, arguments.tokens, arguments.width, requires_grad=True)
            grad = torch.randn_like(x)
            rivals = [theirs(ours, kind) for kind in ("eager", "grouped_mm")]
            expected = ours(x)
            for rival in rivals:
                torch.testing.assert_close(rival(x), expected, rtol=1e-4, atol=1e-5)
            assert ours.routing is not None
            logits = ours.router.logits(x).detach().flatten(0, 1)
            balance = load_balancing_loss_func((logits,), experts, ACTIVE)
            # "sum" is the convention of transformers.
            torch.testing.assert_close(load_balance(ours.routing, "sum"), balance)
            steps = [
                step_of(module, x, grad)
                for module in (ours, *rivals, Dense(arguments.width, ACTIVE * hidden))
            ]
            mine, eager, grouped, dense = fastest(steps, arguments.seconds)
            print_row(
                experts,
                hidden,
                f"{1000 * mine:.1f}",
                f"{eager / mine:.2f}x",
                f"{grouped / mine:.2f}x",
                f"{mine / dense:.2f}",
            )


if __name__ == "__main__":
    main()
