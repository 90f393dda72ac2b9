"""No mixing: a gated network of each token in place of attention.

Shapes: B batch, N tokens, D width, F hidden width.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Attention
from ..cache import Cache


class NoMixing(Attention):
    """out = W_d (silu(W_g x) * W_u x): the "MLP" row of Deconstructing Attention (arXiv 2510.11602,
    table 1).

    Cost: O(N D F). It shows what a model reaches without any exchange between tokens, or with fewer
    layers of it in a plan such as ("no-mixing", "softmax"). width: D; hidden: F, by default
    4 D / 3, which gives the number of weights of softmax attention up to rounding (the paper
    matches them, but gives no number). A mask is checked and has no effect.
    """

    crosses: ClassVar[bool] = False
    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = ({"hidden": 5},)

    def __init__(self, width: int, *, hidden: int | None = None) -> None:
        super().__init__(width)
        hidden = round(4 * width / 3) if hidden is None else hidden
        if hidden < 1:
            raise ValueError(f"NoMixing: hidden must be positive, got {hidden}")
        self.causal = True
        self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D); mask: bool (B, N), without effect; cache: counts the tokens.

        Raises ValueError if mask, cache or widths do not fit, or if a context is given.
        """
        self.check(x, context, mask, cache)
        if cache is not None:
            cache.read(x.shape[1], mask, x.device)
        return self.down(F.silu(self.gate(x)) * self.up(x))
