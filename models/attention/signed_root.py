"""Softmax-free attention by signed square roots of scores.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d width of a head.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.forms import Form
from ...kernels.precision import compute_type
from ...kernels.signed_root_attention import forms, signed_root, signed_root_attention
from ..checks import check_positive
from .base import Attention, join_heads, split_heads, spread_mask


class SignedRootAttention(Attention):
    """out = W_o norm(r(Q K^T) V), r(x) = sign(x) (sqrt(|x| + eps) - sqrt(eps)).

    The attention of GL-DMNet's position mutual fusion (arXiv 2501.01648, equations 6 to 11) between
    projections of tokens. The value of a key with a negative score is subtracted. Nothing is
    normalised over the keys; instead the result of a head has length sqrt(d), so that the number of
    keys does not change the scale. (The paper normalises each channel over all positions, which
    would make every query depend on all others.) Cost: O(N M D) time, O((N + M) D) memory, except
    for masks of pairs, which are applied to the full map.

    width: D; heads: H; eps: smooths the root at 0; bias: of the projections.
    """

    masks: ClassVar[tuple[str, ...]] = ("keys", "pairs", "heads")
    variants: ClassVar[tuple[dict, ...]] = ({"bias": False},)

    def __init__(self, width: int, heads: int = 8, *, eps: float = 1e-4, bias: bool = True) -> None:
        super().__init__(width, heads)
        check_positive("SignedRootAttention", "eps", eps)
        self.eps = eps
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.out = nn.Linear(width, width, bias)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the attention, for x as its own context without a mask of pairs."""
        return forms(split_heads(x, self.heads))

    def _split(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.query(x), self.key(source), self.value(source)
        return (
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(value, self.heads),
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D); context: (B, M, D) -> (B, N, D). Raises ValueError if shapes do not fit."""
        source = self.check(x, context, mask)
        query, key, value = self._split(x, source)
        if mask is not None and mask.ndim == 2:
            # r(0) = 0: a key of zeros adds nothing. Its value is cleared, too, because 0 times
            # infinity is not 0.
            gone = ~mask[:, None, :, None]
            key, value, mask = key.masked_fill(gone, 0.0), value.masked_fill(gone, 0.0), None
        if mask is None and source.shape[1]:
            mixed = signed_root_attention(query, key, value, eps=self.eps)
        else:
            scores, allowed = signed_root(query @ key.mT, self.eps), spread_mask(mask)
            mixed = (scores if allowed is None else scores * allowed) @ value
        size = mixed.shape[-1]
        kind = compute_type(mixed)
        return self.out(join_heads(F.normalize(mixed.to(kind), dim=-1).to(mixed.dtype) * size**0.5))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """r(Q K^T), which may be negative and does not sum to 1."""
        source = self.check(x, context, mask)
        query, key, _ = self._split(x, source)
        scores = signed_root(query @ key.mT, self.eps)
        allowed = spread_mask(mask)
        return scores if allowed is None else scores * allowed
