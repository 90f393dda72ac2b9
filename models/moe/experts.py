"""Experts: many feed-forward networks in one set of weights.

Shapes: T tokens, K experts of a token, E experts, D width, F inner width, O width of the output, by
default D.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ...kernels.dispatch import dispatch
from ...kernels.expert_combine import expert_combine
from ...kernels.forms import explain
from ...kernels.grouped_linear import forms, grouped_linear
from ...kernels.grouped_linear.naive import ACTIVATIONS, activate

ExpertKind = Literal["mlp", "glu"]


class Experts(nn.Module):
    """E networks down_e(act(up_e x)), or down_e(act(gate_e x) * up_e x); `forward` runs K of them
    for each token.

    The layout of weights is that of `nn.Linear`, expert first: up (E, F, D), for "glu" (E, 2 F, D)
    with all gates before all ups, and down (E, O, F). 1 x 1 convolutions on an image are these
    networks on its cells.

    width: D; experts: E; hidden: F, by default 4 D; outputs: O; kind: "mlp", the first formula, or
    "glu", the second; activation: "gelu", "relu", "quick_gelu", "silu" or "none"; bias: of both
    layers.

    Raises ValueError for names and sizes that do not fit.
    """

    def __init__(
        self,
        width: int,
        experts: int,
        hidden: int | None = None,
        *,
        outputs: int | None = None,
        kind: ExpertKind = "mlp",
        activation: str = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        outputs = width if outputs is None else outputs
        if kind not in ("mlp", "glu") or activation not in ACTIVATIONS:
            raise ValueError(
                f"Experts: kind must be 'mlp' or 'glu', activation one of {ACTIVATIONS}, "
                f"got {kind!r}, {activation!r}"
            )
        if min(width, experts, hidden, outputs) < 1:
            raise ValueError(
                f"Experts: sizes must be positive, got {width}, {experts}, {hidden}, {outputs}"
            )
        self.width, self.experts, self.hidden = width, experts, hidden
        self.kind: ExpertKind = kind
        self.activation, self.gated = activation, kind == "glu"
        inner = 2 * hidden if self.gated else hidden
        self.up = nn.Parameter(torch.empty(experts, inner, width))
        self.down = nn.Parameter(torch.empty(experts, outputs, hidden))
        self.up_bias = nn.Parameter(torch.empty(experts, inner)) if bias else None
        self.down_bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As `nn.Linear` does, separately for each expert."""
        for weight, bias in ((self.up, self.up_bias), (self.down, self.down_bias)):
            bound = weight.shape[2] ** -0.5
            for part in (weight, bias):
                if part is not None:
                    part.uniform_(-bound, bound)

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Weighted sum of each token's experts. x: (T, D); weights: (T, K); chosen: int64 (T, K), E
        = none -> (T, O).

        Raises ValueError if shapes do not fit.
        """
        where = dispatch(chosen, self.experts)
        inner = grouped_linear(x, self.up, self.up_bias, where, gather=True)
        outer = grouped_linear(
            inner, self.down, self.down_bias, where, activation=self.activation, gated=self.gated
        )
        return expert_combine(outer, weights, where)

    def all_outputs(self, x: Tensor) -> Tensor:
        """All experts on all tokens, (..., D) -> (..., E, O): for soft mixtures, and for tests."""
        inner = torch.einsum("...d,efd->...ef", x, self.up)
        inner = inner if self.up_bias is None else inner + self.up_bias
        outer = torch.einsum(
            "...ef,edf->...ed", activate(inner, self.activation, self.gated), self.down
        )
        return outer if self.down_bias is None else outer + self.down_bias

    def explain(self, x: Tensor) -> str:
        """Which form computes the products for such an input, and why the others do not."""
        return explain("Experts", forms(x, self.up))

    def extra_repr(self) -> str:
        return f"{self.width}, experts={self.experts}, hidden={self.hidden}, kind={self.kind!r}"
