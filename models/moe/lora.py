"""Low-rank experts next to a frozen linear layer.

Shapes: B batch, N tokens, D width, O width of the output, E experts, K active experts of a token, r
rank.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..attention.base import leave_loss
from ..checks import check_not_negative, check_number
from .experts import Experts
from .losses import load_balance, of_all_ranks
from .router import Router


class MoELoRA(nn.Module):
    """y = W x + alpha / r sum_k w_k B_e A_e x: a frozen layer and K of E low-rank updates for each
    token.

    LoRA (Hu et al., arXiv 2106.09685) with a router, as in MixLoRA (arXiv 2404.15159). B starts at
    0, so that at first the layer is the frozen one; only A, B and the router are trained.

    linear: the layer, (O, D); experts: E; active: K; rank: r; alpha: the updates are multiplied by
    alpha / r; balance: weight of the load balance loss, which is left in `auxiliary` in training;
    router: options of `Router`.

    Raises ValueError for sizes that do not fit.
    """

    extras = ("mask",)

    def __init__(
        self,
        linear: nn.Linear,
        *,
        experts: int = 4,
        active: int = 2,
        rank: int = 8,
        alpha: float = 16.0,
        balance: float = 0.01,
        **router: Any,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"MoELoRA: rank must be positive, got {rank}")
        check_number("MoELoRA", "alpha", alpha)
        check_not_negative("MoELoRA", "balance", balance)
        self.linear = linear.requires_grad_(False)
        self.router = Router(linear.in_features, experts, active, **router).to(linear.weight)
        self.update = Experts(
            linear.in_features,
            experts,
            rank,
            outputs=linear.out_features,
            activation="none",
            bias=False,
        ).to(linear.weight)
        nn.init.zeros_(self.update.down)
        self.scale, self.balance = alpha / rank, balance
        self.auxiliary: Tensor | None = None
        self.loss_without_gradients = False

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D); mask: bool (B, N), True = a token -> (B, N, O)."""
        routing = self.router(x, mask=mask)
        balanced = self.training and self.balance
        leave_loss(self, self.balance * load_balance(of_all_ranks(routing)) if balanced else None)
        update = self.update(x.flatten(0, 1), routing.weights, routing.experts)
        return self.linear(x) + self.scale * update.view(*x.shape[:2], -1)

    @torch.no_grad()
    def merged(self, expert: int) -> nn.Linear:
        """The linear layer with the update of one expert added to its weights."""
        linear = copy.deepcopy(self.linear)
        linear.weight += self.scale * self.update.down[expert] @ self.update.up[expert]
        return linear

    def __getstate__(self) -> dict:
        # The loss belongs to a graph, which can be neither copied nor stored.
        return self.__dict__ | {"auxiliary": None}
