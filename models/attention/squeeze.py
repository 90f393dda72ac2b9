"""Squeeze-and-excitation: a gate for each channel, from the mean over all tokens.

Shapes: B batch, N tokens, D width, R width of the bottleneck.
"""

from typing import ClassVar

from torch import Tensor, nn

from .base import Attention, masked_mean


class SqueezeExcitation(Attention):
    """out = x * sigmoid(W_2 relu(W_1 mean(x))) (Hu et al., CVPR 2018, arXiv 1709.01507, equations 2
    to 4).

    Cost: O(N D + D R) time, a pass for the mean and one for the product. There are no weights
    between tokens: a token reaches the others only through the mean.

    width: D; reduction: R = max(8, D / reduction); inner: R itself instead. Masked tokens are left
    out of the mean, which is 0 if all are masked.
    """

    crosses: ClassVar[bool] = False
    variants: ClassVar[tuple[dict, ...]] = ({"reduction": 2},)

    def __init__(self, width: int, *, reduction: int = 16, inner: int | None = None) -> None:
        super().__init__(width)
        if reduction < 1:
            raise ValueError(f"SqueezeExcitation: reduction must be positive, got {reduction}")
        if inner is not None and inner < 1:
            raise ValueError(f"SqueezeExcitation: inner must be positive, got {inner}")
        inner = max(8, width // reduction) if inner is None else inner
        self.squeeze = nn.Linear(width, inner)
        self.activation = nn.ReLU()
        self.excite = nn.Linear(inner, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D); mask: bool (B, N), True = a token -> (B, N, D).

        Raises ValueError if shapes do not fit or a context is given.
        """
        self.check(x, context, mask)
        gate = self.excite(self.activation(self.squeeze(masked_mean(x, mask)))).sigmoid()
        return x * gate[:, None]
