"""The layer: a router and its experts in place of a feed-forward network.

Shapes: B batch, N tokens, D width, E experts, K active experts of a token.
"""

from typing import Any

from torch import Tensor, nn

from ..attention.base import leave_loss
from ..checks import check_dropout, check_not_negative
from .experts import ExpertKind, Experts
from .losses import Convention, load_balance, of_all_ranks, z_loss
from .router import Router, Routing


class MoE(nn.Module):
    """sum_k w_k expert_k(x) over the K experts that the router chooses for each token.

    width: D; hidden: F of each expert, by default 4 D / K, so that K experts are as large as a
    dense network; experts: E; active: K; kind, activation, bias: of the experts; balance: weight of
    the load balance loss (1 at uniform use), z: weight of the z-loss; in training their sum is left
    in `auxiliary` (see `auxiliary_loss`); convention: of the balance; router: options of `Router`;
    dropout: of the output.

    `routing` holds the `Routing` of the last forward pass for histories and pictures, without
    gradients.

    Raises ValueError for options that do not fit.
    """

    extras = ("mask", "attention")

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        experts: int = 8,
        active: int = 2,
        kind: ExpertKind = "mlp",
        activation: str = "gelu",
        bias: bool = True,
        balance: float = 0.01,
        z: float = 0.0,
        convention: Convention = "switch",
        dropout: float = 0.0,
        **router: Any,
    ) -> None:
        super().__init__()
        check_not_negative("MoE", "balance", balance)
        check_not_negative("MoE", "z", z)
        check_dropout("MoE", dropout)
        hidden = max(1, 4 * width // max(active, 1)) if hidden is None else hidden
        self.router = Router(width, experts, active, **router)
        self.experts = Experts(width, experts, hidden, kind=kind, activation=activation, bias=bias)
        self.balance, self.z = balance, z
        self.convention: Convention = convention
        self.dropout = nn.Dropout(dropout)
        self.auxiliary: Tensor | None = None
        self.loss_without_gradients = False
        self.routing: Routing | None = None

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        attention: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x: (B, N, D); mask: bool (B, N), True = a token; attention: see `Router` -> (B, N, D), 0
        for padding.

        Raises ValueError if shapes do not fit.
        """
        routing = self.router(x, mask=mask, attention=attention)
        leave_loss(self, self._loss(routing) if self.training else None)
        self.routing = Routing(*(part.detach() for part in routing))
        out = self.experts(x.flatten(0, 1), routing.weights, routing.experts)
        return self.dropout(out.view(x.shape))

    def _loss(self, routing: Routing) -> Tensor | None:
        loss = None
        if self.balance:
            loss = self.balance * load_balance(of_all_ranks(routing), self.convention)
        if self.z:
            loss = self.z * z_loss(routing) + (0.0 if loss is None else loss)
        return loss

    def __getstate__(self) -> dict:
        # The loss belongs to a graph, which can be neither copied nor stored.
        return self.__dict__ | {"auxiliary": None, "routing": None}


class MoE2d(MoE):
    """`MoE` on feature maps: experts are networks of 1 x 1 convolutions, each cell is a token.

    Options as in `MoE`.
    """

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        attention: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x: (B, D, H, W); mask: bool (B, H, W), True = a cell; attention: of the H W cells -> (B,
        D, H, W).

        Raises ValueError if shapes do not fit.
        """
        if x.ndim != 4:
            raise ValueError(f"MoE2d: needs (batch, width, height, width), got {tuple(x.shape)}")
        cells = None if mask is None else mask.flatten(1)
        out = super().forward(x.flatten(2).transpose(1, 2), mask=cells, attention=attention)
        return out.transpose(1, 2).unflatten(2, x.shape[2:])
