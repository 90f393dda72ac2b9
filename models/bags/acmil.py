"""ACMIL: classification of bags of instances (slides of tiles) by several branches of attention.

Shapes: B bags, M instances of all bags, D width of a feature, H inner width, A width of the gates,
K branches, h heads of a branch, C classes. Bags lie one behind the other: x (M, D) with offsets
int64 (B + 1,), rows offsets[b] to offsets[b + 1] are bag b's; without offsets all of x is one bag.
"""

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.gated_scores import gated_scores
from ...kernels.segments import padded, places, segment_of
from ...kernels.softmax_pool import softmax_pool
from ..layers.vit import TransformerEncoder

PADDED_NUMBERS = (
    1 << 22
)  # scores up to which ragged bags are padded to find their largest, instead of taken in turn
HIDDEN = -1e9  # the score of a masked instance, as in the published code


@dataclass
class Bags:
    """What a bag model found."""

    logits: Tensor  # (B, C), the answer
    branch_logits: Tensor | None = None  # (B, K, C), for the loss
    scores: Tensor | None = None  # (M, K h), before the softmax over a bag; masked ones are HIDDEN
    features: Tensor | None = None  # (B, H), what the answer is read from


class BagModel(nn.Module):
    """What all bag models share: standardising with the mean and deviation given, and relu(W x)
    without a bias.

    features: D; classes: C; inner: H; dropout: of x and of the embedded instances (the paper has
    none); mean and deviation: (D,) of the training instances, by default 0 and 1. They are part of
    the weights, so that heatmaps, exports and new slides need nothing else. mixing: layers of any
    mechanism that fits tokens without an order, width H, in which the instances of a bag see each
    other before they are pooled; the papers here have none."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        inner: int = 256,
        dropout: float = 0.0,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        mixing: TransformerEncoder | None = None,
    ) -> None:
        super().__init__()
        if features < 1 or inner < 1 or classes < 2:
            raise ValueError(
                f"needs features, inner and 2 classes, got {features}, {inner}, {classes}"
            )
        self.features, self.inner, self.classes = features, inner, classes
        self.register_buffer("mean", torch.zeros(features) if mean is None else mean.float())
        self.register_buffer(
            "deviation", torch.ones(features) if deviation is None else deviation.float()
        )
        self.reduce = nn.Linear(features, inner, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.mixing = mixing
        # Whether standardising would change anything, decided once: a copy of a large bag is worth
        # sparing.
        self.standardise = mean is not None or deviation is not None

    def embed(self, x: Tensor) -> Tensor:
        """(M, D) -> (M, H)."""
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(
                f"{type(self).__name__}: needs instances (rows, {self.features}), got "
                f"{tuple(x.shape)}"
            )
        if self.standardise:
            x = (x - self.mean) / self.deviation
        return self.dropout(F.relu(self.reduce(self.dropout(x)), inplace=True))

    def instances(self, x: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is pooled (M, H), embedded and mixed within bags, and the offsets."""
        h = self.embed(x)
        ends = ends_of(h, offsets)
        if self.mixing is None or not h.shape[0]:
            return h, ends
        if ends.shape[0] == 2:
            return self.mixing(h[None])[0], ends
        # The one number that is read back from a device: how long padded bags are.
        rows, present = padded(h, ends)
        bag = bag_of(ends, h)
        return self.mixing(rows, mask=present)[bag, places(ends, bag)], ends

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """Everything that the loss and the explanations need."""
        raise NotImplementedError

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: (M, D) float, offsets: int64 (B + 1,) -> logits (B, C).

        Raises ValueError for shapes that do not fit. A bag without instances has the logits of a
        zero feature."""
        return self.attend(x, offsets).logits


class ACMIL(BagModel):
    """Attention-challenging MIL (Zhang et al., ECCV 2024, arXiv 2311.07125; semantics of the
    published code).

    K branches of attention pool the same embedded instances h, each with a classifier of its own;
    the answer reads the mean of their attentions, which is the mean of their pooled features:

        f_k = sum_n softmax_n(a_k)_n h_n,   y_k = W_k f_k + b_k,   y = W mean_k f_k + b

    attention "gated": a_k = wa_k . (tanh(Wv h) * sigmoid(Wu h)) (Ilse et al., arXiv 1802.04712),
    the paper's default. "multihead": each branch is a learned query with `heads` heads; f_k is
    followed by an output layer, dropout 0.1 and a LayerNorm without a residual. Keys and values of
    width H are never made: a_kh = h . (Wk_h^T q_h) / sqrt(H / heads) and sum_n p_n (Wv h_n + b) =
    Wv (sum_n p_n h_n) + b. The bias of the key layer, which the softmax does not see, is left out.
    The published code gives the slide its own value and output layers; so does this.

    In training, with `masked` > 0, of the `masked` instances of a bag that a branch attends to most
    a share `mask_share`, drawn anew each time, gets no attention (stochastic top-k instance
    masking; in evaluation none does). At least one instance of a bag is always left. K = 1 with
    masked = 0 and "gated" is ABMIL with a linear embedding.

    branches: K; hidden: A; heads: of "multihead"; the others: see `BagModel`.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        inner: int = 256,
        branches: int = 5,
        attention: Literal["gated", "multihead"] = "gated",
        hidden: int = 128,
        heads: int = 8,
        masked: int = 10,
        mask_share: float = 0.6,
        **shared: Any,
    ) -> None:
        super().__init__(features, classes, inner=inner, **shared)
        if attention not in ("gated", "multihead"):
            raise ValueError(f"ACMIL: attention must be 'gated' or 'multihead', got {attention!r}")
        if branches < 1 or hidden < 1 or masked < 0 or not 0 <= mask_share <= 1:
            raise ValueError(
                "ACMIL: needs branches, hidden, masked >= 0 and mask_share in [0, 1], got "
                f"{branches}, {hidden}, "
                f"{masked}, {mask_share}"
            )
        if attention == "multihead" and inner % heads:
            raise ValueError(f"ACMIL: {heads} heads do not divide inner {inner}")
        self.branches, self.heads = branches, heads if attention == "multihead" else 1
        self.masked, self.mask_share, self.attention = masked, mask_share, attention
        if attention == "gated":
            self.gates = nn.Linear(inner, 2 * hidden)
            self.score = nn.Linear(hidden, branches)
        else:
            self.query = nn.Parameter(torch.randn(branches, inner) * 1e-6)
            self.blocks = nn.ModuleList(_Head(inner) for _ in range(branches))
            self.keys = nn.Linear(inner, branches * inner, bias=False)
            self.queries = nn.ModuleList(nn.Linear(inner, inner) for _ in range(branches))
            self.block = _Head(inner)
        self.classifiers = nn.ModuleList(nn.Linear(inner, classes) for _ in range(branches))
        self.classifier = nn.Linear(inner, classes)

    def _scores(self, h: Tensor) -> Tensor:
        """(M, H) -> (M, K h)."""
        if self.attention == "gated":
            return gated_scores(
                h, self.gates.weight, self.gates.bias, self.score.weight, self.score.bias
            )
        size = self.inner // self.heads
        query = torch.stack([layer(row) for row, layer in zip(self.query, self.queries)])
        key = self.keys.weight.view(self.branches, self.heads, size, -1)
        folded = torch.einsum("khe,khed->khd", query.view(self.branches, self.heads, size), key)
        return F.linear(h, folded.flatten(0, 1) / size**0.5)

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """Logits of the slide and of each branch, scores, and the feature that the answer is read
        from.
        """
        h, ends = self.instances(x, offsets)
        scores = self._scores(h).to(h.dtype)
        if self.training and self.masked and self.mask_share:
            scores = scores.masked_fill(
                mask_top(scores.detach(), ends, self.masked, self.mask_share), HIDDEN
            )
        pooled = softmax_pool(scores, h, per="head", offsets=ends)  # (B, K h, H)
        if self.attention == "gated":
            branches, feature = pooled, pooled.mean(1)
        else:
            pooled = pooled.unflatten(1, (self.branches, self.heads))
            branches = torch.stack([block(pooled[:, k]) for k, block in enumerate(self.blocks)], 1)
            feature = self.block(pooled.mean(1))
        branch = torch.stack([layer(branches[:, k]) for k, layer in enumerate(self.classifiers)], 1)
        return Bags(self.classifier(feature), branch, scores, feature)

    def attention_of(self, scores: Tensor, offsets: Tensor | None = None) -> Tensor:
        """What each branch attends to, its heads averaged: scores (M, K h) -> (M, K), summing to 1
        within a bag.
        """
        return (
            bag_softmax(scores, ends_of(scores, offsets))
            .unflatten(1, (self.branches, self.heads))
            .mean(2)
        )


class _Head(nn.Module):
    """Value and output layer of pooled heads, dropout, LayerNorm: (B, h, H) -> (B, H)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pooled: Tensor) -> Tensor:
        heads, width = pooled.shape[1:]
        weight = self.value.weight.view(heads, width // heads, width)
        value = torch.einsum("bhd,hed->bhe", pooled, weight).flatten(1) + self.value.bias
        return self.norm(self.dropout(self.out(value)))


class MeanPool(BagModel):
    """Baseline: classifier of the mean embedded instance."""

    def __init__(self, features: int, classes: int, **options: Any) -> None:
        super().__init__(features, classes, **options)
        self.classifier = nn.Linear(self.inner, classes)

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """Logits and features; there is no attention."""
        h, ends = self.instances(x, offsets)
        pooled = softmax_pool(h.new_zeros((h.shape[0], 1)), h, per="head", offsets=ends)[:, 0]
        return Bags(self.classifier(pooled), features=pooled)


class MaxPool(MeanPool):
    """Baseline: classifier of the largest value of each embedded feature."""

    def attend(self, x: Tensor, offsets: Tensor | None = None) -> Bags:
        """Logits and features; there is no attention."""
        h, ends = self.instances(x, offsets)
        where = bag_of(ends, h)[:, None].expand_as(h)
        pooled = h.new_zeros((ends.shape[0] - 1, h.shape[1]))
        pooled = pooled.scatter_reduce(
            0, where, h, "amax", include_self=False
        )  # a bag without instances stays 0
        return Bags(self.classifier(pooled), features=pooled)


def ends_of(x: Tensor, offsets: Tensor | None) -> Tensor:
    if offsets is not None:
        return offsets
    rows = torch.scalar_tensor(x.shape[0], dtype=torch.int64, device=x.device)
    return torch.stack([torch.zeros_like(rows), rows])


def bag_of(offsets: Tensor, x: Tensor) -> Tensor:
    """Number of the bag of each row of x: int64 (M,)."""
    return segment_of(offsets, x.shape[0])


def bag_exponentials(scores: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """exp(score - largest score of the bag) (M, C), and the bag of each row."""
    bag = bag_of(offsets, scores)
    where = bag[:, None].expand_as(scores)
    top = scores.new_full((offsets.shape[0] - 1, scores.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, where, scores.detach(), "amax")
    return (scores - top[bag]).exp(), bag


def bag_softmax(scores: Tensor, offsets: Tensor) -> Tensor:
    """Softmax over the rows of each bag, column by column: (M, C) -> (M, C)."""
    weights, bag = bag_exponentials(scores, offsets)
    total = scores.new_zeros((offsets.shape[0] - 1, scores.shape[1])).index_add(0, bag, weights)
    return weights / total[bag]


def diversity_loss(scores: Tensor, offsets: Tensor | None = None, *, heads: int = 1) -> Tensor:
    """Mean cosine between the attentions of two branches, over all pairs, heads and bags (arXiv
    2311.07125, eq. 8).

    scores: (M, K h), branch by branch, as `Bags.scores` has them; offsets: (B + 1,). Returns (), 0
    for one branch. 1: all branches attend alike; 0: to different instances. The sums of a softmax
    cancel in a cosine, so the exponentials are enough, and one K x K product a bag holds all pairs.
    """
    ends = ends_of(scores, offsets)
    branches = scores.shape[1] // heads
    if branches < 2:
        return scores.new_zeros(())
    weights, bag = bag_exponentials(scores.float(), ends)
    weights = weights.unflatten(1, (branches, heads))
    if ends.shape[0] == 2:
        gram = torch.einsum("mkh,mlh->hkl", weights, weights)[None]
    else:
        outer = weights.transpose(1, 2)[..., None] * weights.transpose(1, 2)[..., None, :]
        gram = outer.new_zeros((ends.shape[0] - 1, *outer.shape[1:])).index_add(0, bag, outer)
    length = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    cosine = gram / (length[..., None] * length[..., None, :]).clamp_min(1e-12)
    first, second = torch.triu_indices(branches, branches, 1, device=scores.device)
    return cosine[..., first, second].mean()


def mask_top(
    scores: Tensor, offsets: Tensor, top: int, share: float, uniform: Tensor | None = None
) -> Tensor:
    """Which instances stochastic top-k masking hides: bool (M, C).

    scores: (M, C); offsets: (B + 1,). Of the k = min(top, N) instances of a bag that score highest
    in a column, int(k share) are drawn without replacement, but never all N. uniform: (B, top, C),
    the random numbers, by default drawn here; whichever of the k largest have the smallest ones are
    hidden, so that a bag by itself and among others is masked alike."""
    bags, columns = offsets.shape[0] - 1, scores.shape[1]
    if uniform is None:
        uniform = torch.rand((bags, top, columns), device=scores.device)
    hidden = torch.zeros_like(scores, dtype=torch.bool)
    if not bags or not scores.shape[0]:
        return hidden
    lengths = offsets.diff()
    if bags > 1 and sorts(scores):
        return _top_by_sorting(scores, offsets, drawn_of_top(uniform, lengths, share))
    longest = scores.shape[0] if bags == 1 else int(lengths.max())
    if bags > 1 and bags * longest * columns > PADDED_NUMBERS:
        ends = offsets.tolist()
        for b, (first, last) in enumerate(itertools.pairwise(ends)):
            part = offsets.new_tensor([0, last - first])
            hidden[first:last] = mask_top(scores[first:last], part, top, share, uniform[b : b + 1])
        return hidden
    if bags == 1:
        by_bag = scores[None]
    else:
        by_bag = scores.new_full((bags, longest, columns), -torch.inf)
        bag = bag_of(offsets, scores)
        by_bag[bag, places(offsets, bag)] = scores
    k = min(top, longest)
    best = by_bag.topk(k, 1).indices  # (B, k, C), the largest first
    chosen = drawn_of_top(uniform[:, :k], lengths, share)
    rows = (best + offsets[:-1, None, None]).clamp_max(scores.shape[0] - 1)
    hits = torch.zeros_like(scores, dtype=torch.int32)
    hits.scatter_add_(0, rows.flatten(0, 1), chosen.flatten(0, 1).int())
    return hits > 0


def sorts(scores: Tensor) -> bool:
    """Whether the largest of several bags are found by sorting all rows: off the CPU, where how
    long padded bags are would have to be read back. On the CPU sorting takes longer.
    """
    return not scores.is_cpu


def drawn_of_top(uniform: Tensor, lengths: Tensor, share: float) -> Tensor:
    """Which of the k largest of each bag are hidden, bool (B, k, C), the largest first: those with
    the smallest random numbers, uniform (B, k, C).
    """
    k = uniform.shape[1]
    among = lengths.clamp_max(k)  # how many of them there are
    wide = torch.float32 if uniform.device.type == "mps" else torch.float64
    count = torch.minimum((among.to(wide) * share).floor().long(), lengths - 1).clamp_min(0)
    beyond = torch.arange(k, device=uniform.device)[:, None] >= among[:, None, None]
    rank = uniform.masked_fill(beyond, 2.0).argsort(1).argsort(1)
    return rank < count[:, None, None]


def _top_by_sorting(scores: Tensor, offsets: Tensor, chosen: Tensor) -> Tensor:
    """Where the chosen ones (B, k, C) of the k largest of each bag are: bool (M, C)."""
    bag, k = bag_of(offsets, scores), chosen.shape[1]
    order = scores.argsort(0, descending=True)
    order = order.gather(0, bag[order].argsort(stable=True, dim=0))
    # Sorted rows of a bag lie where its rows lie, so their places are ranks.
    rank = places(offsets, bag)
    hide = chosen[bag, rank.clamp_max(k - 1)] & (rank < k)[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(0, order, hide)
