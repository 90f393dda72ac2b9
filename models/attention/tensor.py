"""Tensor attention: each token attends to pairs of tokens, for relations of three.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d = D / H.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...kernels.forms import Form
from ...kernels.tensor_attention import forms, tensor_attention, tensor_attention_approximate
from .base import Attention, join_heads, split_heads


class TensorAttention(Attention):
    """out_i = W_o sum_jl softmax_jl(sum_d q_i k1_j k2_l / d) (v1_j * v2_l) (Alman and Song, arXiv
    2310.04064).

    Both sides are projections of the same tokens; with k2 = v2 = 1 it is softmax attention with
    scale 1/d.

    Cost: O(N M^2 D) time, cubic in tokens, O((N + M) D) memory: no tensor of triples exists. Useful
    up to a few hundred tokens. degree: 1 to 3 takes the near-linear approximation for bounded
    entries instead, O((N + M) F D) time with F = binomial(d + degree, degree); it is good only
    while scores stay near 0 (`kernels.tensor_attention.approximation_error` measures it), and the
    paper proves that for large entries no near-linear form can be. An odd degree can divide by a
    sum near 0.

    width: D; heads: H. Reading: the paper has no experiments and no code; projections and heads are
    those of softmax attention. The values of the pair are multiplied, so outputs are small at the
    start of training.
    """

    variants: ClassVar[tuple[dict, ...]] = ({"degree": 2}, {"degree": 2, "heads": 2})

    def __init__(self, width: int, *, heads: int = 8, degree: int | None = None) -> None:
        super().__init__(width, heads)
        if degree not in (None, 1, 2, 3):
            raise ValueError(
                f"TensorAttention: degree is 1 to 3, or None for the exact form, got {degree}"
            )
        self.degree = degree
        self.query = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 4 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x; mask: bool (B, M), True = may be attended
        to -> (B, N, D).

        A token that may attend to nothing receives 0 before the last layer. Raises ValueError if
        shapes do not fit.
        """
        source = self.check(x, context, mask)
        query = split_heads(self.query(x), self.heads)
        key1, value1, key2, value2 = (
            split_heads(part, self.heads) for part in self.keys_values(source).chunk(4, -1)
        )
        if self.degree is None:
            mixed = tensor_attention(query, key1, value1, key2, value2, mask1=mask, mask2=mask)
        else:
            mixed = tensor_attention_approximate(
                query, key1, value1, key2, value2, self.degree, mask1=mask, mask2=mask
            )
        return self.out(join_heads(mixed))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """(B, H, N, M): the weight of each token as the first of a pair, summed over the second;
        cubic memory.
        """
        source = self.check(x, context, mask)
        query = split_heads(self.query(x), self.heads)
        first, _, second, _ = (
            split_heads(part, self.heads) for part in self.keys_values(source).chunk(4, -1)
        )
        scores = torch.einsum("bhid,bhjd,bhld->bhijl", query, first, second) / query.shape[3]
        if mask is not None:
            scores = scores.masked_fill(
                ~(mask[:, :, None] & mask[:, None])[:, None, None], -torch.inf
            )
        return scores.flatten(3).softmax(-1).nan_to_num().view_as(scores).sum(4)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the attention to pairs."""
        if self.degree is not None:
            return [Form("plain PyTorch, features of the Taylor polynomial")]
        return forms(x, width=self.width // self.heads)
