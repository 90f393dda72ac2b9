"""LoRA and MoE-LoRA in a language model: low-rank updates beside frozen linear layers.

Shapes: B texts, N tokens, D width, O width of the output, r rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...moe.lora import MoELoRA
from .anatomy import linear_places
from .present import PresentTokens


class LoRA(nn.Module):
    """y = W x + alpha / r B A x: a frozen layer and an update of low rank (Hu et al., arXiv
    2106.09685).

    B starts at 0, so that at first the layer is the frozen one.

    linear: the layer, (O, D); rank: r. Raises ValueError for a rank below 1.
    """

    def __init__(self, linear: nn.Linear, *, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"LoRA: rank must be positive, got {rank}")
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., O)."""
        update = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        return self.linear(x) + self.scale * update

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer with the update added to its weights: the same function, but for
        rounding.
        """
        linear = copy.deepcopy(self.linear)
        update = self.up.double() @ self.down.double()
        linear.weight.copy_((linear.weight.double() + self.scale * update).to(linear.weight))
        return linear


class TokenLoRA(MoELoRA):
    """`MoELoRA` whose balance leaves padding out; the routers see which tokens there are by
    `present`.
    """

    def __init__(
        self,
        linear: nn.Linear,
        present: PresentTokens,
        *,
        experts: int,
        active: int,
        rank: int,
        alpha: float,
    ) -> None:
        super().__init__(linear, experts=experts, active=active, rank=rank, alpha=alpha)
        self.present = present

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D) -> (B, N, O)."""
        return super().forward(x, mask=self.present.mask_of(x) if mask is None else mask)


def add_lora(
    model: nn.Module, layers: Sequence[int], kinds: Sequence[str], *, rank: int, alpha: float
) -> int:
    """Put an update beside each linear layer of some kinds; returns how many. All else stays as it
    is. Raises ValueError for a model without such layers.
    """
    places = list(linear_places(model, layers, kinds))
    for place in places:
        setattr(place.parent, place.attribute, LoRA(place.linear, rank=rank, alpha=alpha))
    model.train(model.training)  # what is new, too
    return len(places)


def add_moe_lora(
    model: nn.Module,
    layers: Sequence[int],
    kinds: Sequence[str],
    present: PresentTokens,
    *,
    experts: int,
    active: int,
    rank: int,
    alpha: float,
) -> int:
    """As `add_lora`, with several updates, of which each token chooses some."""
    places = list(linear_places(model, layers, kinds))
    for place in places:
        wrapped = TokenLoRA(
            place.linear, present, experts=experts, active=active, rank=rank, alpha=alpha
        )
        setattr(place.parent, place.attribute, wrapped)
    model.train(model.training)  # what is new, too
    return len(places)


def merge_lora(model: nn.Module) -> int:
    """Put each update of `add_lora` into the weights that it is beside; returns how many."""
    merged = 0
    for parent in list(model.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, LoRA):
                setattr(parent, name, part.merged())
                merged += 1
    return merged
