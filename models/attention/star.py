"""STAR: tokens exchange information through one shared core vector (star aggregate-redistribute).

Shapes: B batch, N tokens, M tokens of the context, D width, C core width.

    z = W2 gelu(W1 x)
    core[c] = in training one z[:, c] drawn from softmax_n(z[:, c]), otherwise their weighted mean
    out = W4 gelu(W3 [x ; core]),   computed as W4 gelu(W3a x + W3b core)

W3 is split into its columns for x and for the core, which is exact: the core is multiplied once per
sequence instead of once per token, and neither its N copies nor the concatenation of width D + C
exist.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.gelu_linear import gelu_linear
from ...kernels.softmax_pool import softmax_pool
from ...kernels.star_core import star_core
from .base import Attention


class STAR(Attention):
    """Mixes tokens through a core in time linear in their number (SOFTS, arXiv 2404.14197,
    algorithm 1, equations 3-6).

    width: D; core: C, by default D; stochastic: draw the core in training (the paper) instead of
    taking the mean there, too. The layers `hidden`, `core`, `fuse`, `out` are the published gen1,
    gen2, gen3, gen4.
    """

    variants: ClassVar[tuple[dict, ...]] = ({"core": 5}, {"stochastic": False})

    def __init__(self, width: int, *, core: int | None = None, stochastic: bool = True) -> None:
        core = width if core is None else core
        if width < 1 or core < 1:
            raise ValueError(f"STAR: width and core must be positive, got {width} and {core}")
        super().__init__(width)
        self.stochastic = stochastic
        self.hidden = nn.Linear(width, width)
        self.core = nn.Linear(width, core)
        self.fuse = nn.Linear(width + core, width)
        self.out = nn.Linear(width, width)

    def pool(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Core (B, C) of tokens x (B, N, D), 0 without any; mask: bool (B, N), True = counts."""
        if self.training and self.stochastic:
            hidden, core = self.hidden, self.core
            return star_core(x, hidden.weight, hidden.bias, core.weight, core.bias, mask=mask)[0]
        return softmax_pool(
            gelu_linear(self.hidden(x), self.core.weight, self.core.bias), mask=mask
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D). The core is pooled from context (B, M, D), by default from x.

        mask: bool (B, M) over the tokens that are pooled, True = counts. Masked tokens still
        receive the core.

        Raises ValueError if mask or widths do not fit.
        """
        source = self.check(x, context, mask)
        shared = F.linear(
            self.pool(source, mask), self.fuse.weight[:, self.width :], self.fuse.bias
        )
        # In place: the backward pass needs the sum, which gelu_linear stores, but not the product.
        fused = F.linear(x, self.fuse.weight[:, : self.width]).add_(shared[:, None])
        return gelu_linear(fused, self.out.weight, self.out.bias)
