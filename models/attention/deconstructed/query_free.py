"""Query-free attention: the weight of a token depends on that token alone, not on a query.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d = D / H.

    s_j = sum_d silu(W_q c_j)_d (W_k c_j)_d / sqrt(d)
    out_i = sum_j softmax_j(s_j) v_j over the j that i may see
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....kernels.forms import Form
from ....kernels.precision import compute_type
from ....kernels.softmax_pool import forms, softmax_pool
from ..base import (
    Attention,
    causal_mask,
    join_heads,
    joint_mask,
    masked_softmax,
    split_heads,
    spread_mask,
)
from ..cache import Cache

CHUNK = 128  # tokens; only weights within a chunk are held at a time


class QueryFreeAttention(Attention):
    """Scores of keys alone: the "Non-approximate" row of Deconstructing Attention (arXiv
    2510.11602, table 1).

    Cost: O(M D^2), memory O(M D): one softmax over all tokens, or if causal a running softmax over
    chunks, whose state, the mean so far and its score, is all that a cache holds. width: D; heads:
    H; causal: token i sees tokens up to i (the paper's form). In the other form, ours, every token
    receives the same mean; with a context, only the number of tokens of x matters.
    """

    extras: ClassVar[tuple[str, ...]] = ("cache",)
    variants: ClassVar[tuple[dict, ...]] = ({"causal": True},)

    def __init__(self, width: int, *, heads: int = 8, causal: bool = False) -> None:
        super().__init__(width, heads)
        self.causal = causal
        self.equivariant = not causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def scores(self, source: Tensor) -> Tensor:
        """s: (B, M, D) -> (B, H, M)."""
        product = F.silu(self.query(source)) * self.key(source)
        return split_heads(product, self.heads).sum(-1) * (self.width // self.heads) ** -0.5

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x; mask: bool (B, M), True = may be attended
        to; cache: of earlier tokens, see `Cache` -> (B, N, D).

        A token that may attend to nothing receives 0 before the last layer. Raises ValueError if
        mask, cache or widths do not fit.
        """
        source = self.check(x, context, mask, cache)
        value = split_heads(self.value(source), self.heads)
        scores = self.scores(source).to(value.dtype)
        tokens, keys = x.shape[1], source.shape[1]
        if not self.causal:
            bags = None if mask is None else mask.repeat_interleave(self.heads, 0)
            pooled = softmax_pool(
                scores.flatten(0, 1)[..., None], value.flatten(0, 1), per="head", mask=bags
            )
            return self.out(pooled.view(x.shape[0], 1, self.width)).expand(-1, tokens, -1)
        mixed = prefix_pool(scores, value, mask, cache)
        if tokens != keys:
            # The last token is at the last key; a token before the first key sees nothing.
            mixed = F.pad(mixed, (0, 0, max(tokens - keys, 0), 0))[:, :, -tokens:]
        return self.out(join_heads(mixed))

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights (B, H, N, M); without `causal` all rows are equal."""
        source = self.check(x, context, mask)
        scores = self.scores(source)[:, :, None].expand(-1, -1, x.shape[1], -1)
        allowed = spread_mask(mask)
        if self.causal:
            allowed = joint_mask(allowed, causal_mask(x.shape[1], source.shape[1], x.device))
        return masked_softmax(scores, allowed)

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the pooling of the values, which are as many numbers as x."""
        if self.causal:
            return [Form("running softmax over chunks, plain PyTorch")]
        return forms(x, x)


def prefix_pool(
    scores: Tensor, values: Tensor, mask: Tensor | None = None, cache: Cache | None = None
) -> Tensor:
    """Mean of values (B, H, N, d) up to each token, weighted by the softmax of scores (B, H, N);
    mask bool (B, N); cache: goes on after its tokens, and holds the mean and its score.

    A chunk sees its own tokens, and everything before it as one more key: the mean so far, whose
    score is the logarithm of the sum of its exponentials. So no exponent is positive, whatever the
    scores are.
    """
    if not values.shape[2]:
        return values
    kind = compute_type(values)
    lowest = torch.finfo(kind).min / 2
    scores = scores.to(kind)
    present = (
        torch.ones_like(scores, dtype=torch.bool)
        if mask is None
        else mask[:, None].expand_as(scores)
    )
    scores = scores.masked_fill(~present, lowest)
    mean = values.new_zeros((*values.shape[:2], 1, values.shape[-1]), dtype=kind)
    logsum = scores.new_full((*scores.shape[:2], 1), lowest)
    if cache is not None:
        mean, logsum = cache.parts.get("mean", mean), cache.parts.get("logsum", logsum)
        cache.tokens += values.shape[2]
    rows = []
    # An exported program may have any number of tokens: one chunk.
    parts = (scores, values.to(kind), present)
    exporting = torch.compiler.is_exporting()
    chunks = [parts] if exporting else zip(*(part.split(CHUNK, 2) for part in parts))
    for s, v, chunk_present in chunks:
        allowed = chunk_present[:, :, None] & causal_mask(s.shape[2], s.shape[2], s.device)
        logits = torch.cat(
            [
                logsum[..., None].expand(-1, -1, s.shape[2], -1),
                s[:, :, None].expand(-1, -1, s.shape[2], -1),
            ],
            -1,
        )
        logits = logits.masked_fill(F.pad(~allowed, (1, 0)), lowest)
        weight = logits.softmax(-1)
        row = weight[..., :1] * mean + (weight[..., 1:] * allowed) @ v
        rows.append(row)
        mean, logsum = row[:, :, -1:], logits[:, :, -1].logsumexp(-1, keepdim=True)
    if cache is not None:
        cache.parts = {"mean": mean, "logsum": logsum}
    return torch.cat(rows, 2).to(values.dtype)
