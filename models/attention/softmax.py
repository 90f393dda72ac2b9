"""Multi-head softmax attention on PyTorch's fused operator.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class SoftmaxAttention(nn.Module):
    """Multi-head attention, out = W_o softmax(q k^T / sqrt(D/H)) v (Vaswani et al., arXiv 1706.03762, equation 1).

    width: D; heads: H, must divide D; dropout: of the attention weights, in training.
    """

    def __init__(self, width: int, *, heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"SoftmaxAttention: {heads} heads do not divide width {width}")
        self.width = width
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x -> (B, N, D).

        mask: bool, True = may attend: (B, M) over the context, (B, N, M), or (B, H, N, M). A token that may attend
        to nothing receives 0 before the last layer.

        Raises ValueError if mask or widths do not fit.
        """
        source = x if context is None else context
        if x.ndim != 3 or x.shape[-1] != self.width or source.shape[-1] != self.width:
            raise ValueError(f"SoftmaxAttention: needs (batch, tokens, {self.width}), got {tuple(x.shape)}")
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=_spread(mask), dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _spread(mask: Tensor | None) -> Tensor | None:
    if mask is None or mask.ndim == 4:
        return mask
    if mask.ndim not in (2, 3):
        raise ValueError(f"SoftmaxAttention: mask must have 2, 3 or 4 dimensions, got {tuple(mask.shape)}")
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]
