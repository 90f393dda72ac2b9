"""Classifiers of recordings: tokens (frames, or layers of an encoder) that see each other through a
mechanism of the core, and their mean; and the simple models that they have to beat.

Shapes: B recordings, N tokens, D width of a token, W width of the model, S statistics, C classes.

All are called alike: tokens (B, N, D), which of them are there (B, N) bool, and statistics (B, S)
of the recordings -> logits (B, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..attention import build_attention
from ..attention.base import Attention, masked_mean
from ..attention.gaussian import GaussianAdaptiveAttention
from ..attention.softmax import SoftmaxAttention
from ..layers.blend import BlendedClassifier
from ..layers.blocks import EncoderLayer, NetworkKind, build_feedforward
from ..moe.diverse import DiverseClassifier

Head = Literal["attention", "mean", "gaam", "gaam-density", "gaam-mixture", "grouped-gaam"]


class GroupedGaussian(nn.Module):
    """Gaussian adaptive attention, and what it leaves goes through softmax attention whose heads
    share keys and values in groups of four (GQDAAM of arXiv 2401.11143, in its form: the paper has
    8 heads of queries and 2 of keys and values).

    width: W; heads: H, a multiple of 4, or fewer, which then share one.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.gaussian = GaussianAdaptiveAttention(width, heads=heads, mode="product", gain=False)
        self.grouped = SoftmaxAttention(width, heads=heads, kv_heads=max(1, heads // 4))

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, W), mask: bool (B, N) -> (B, N, W)."""
        return self.grouped(x + self.gaussian(x, mask=mask), mask=mask)


def build_mixer(
    head: Head, width: int, heads: int, attention: str, options: Mapping[str, object]
) -> nn.Module:
    """How tokens see each other. head: "attention" is the mechanism that `attention` names, with
    its options; "mean" is none; "gaam" the published code, "gaam-density" the authors' Algorithm 1,
    "gaam-mixture" the text of the paper, see `GaussianAdaptiveAttention`; "grouped-gaam" see
    `GroupedGaussian`.
    """
    if head == "mean":
        return NoMixer()
    if head == "gaam":
        return GaussianAdaptiveAttention(width, heads=heads, mode="product", gain=False)
    if head == "gaam-density":
        return GaussianAdaptiveAttention(
            width, heads=heads, gaussians=1, mode="product", scales="feature", normalised=False
        )
    if head == "gaam-mixture":
        return GaussianAdaptiveAttention(width, heads=heads)
    if head == "grouped-gaam":
        return GroupedGaussian(width, heads)
    return build_attention(attention, width, heads, **options)


class NoMixer(nn.Module):
    """Nothing: a layer with it is its feed-forward network alone."""

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, W) -> 0 of the same shape."""
        return torch.zeros_like(x)


class RecordingClassifier(nn.Module):
    """Tokens are standardised and brought to the model's width; layers of a mixer and a
    feed-forward network; the mean of the tokens; a linear classifier, or diverse experts.

    In the form of the GAAM classifiers (arXiv 2401.11143), which have two convolutions instead of
    the feed-forward network.

    mean, deviation: of the tokens, (N, D) or (1, D); width: W; classes: C; head, attention,
    options: see `build_mixer`; hidden: width inside the feed-forward network; diverse: three
    experts for frequent, even and rare classes (MDCS).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        mean: Tensor,
        deviation: Tensor,
        width: int,
        classes: int,
        *,
        head: Head = "attention",
        attention: str = "softmax",
        options: Mapping[str, object] | None = None,
        layers: int = 1,
        heads: int = 4,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        dropout: float = 0.0,
        diverse: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        # Layers of an encoder come in their order, and each has its place.
        self.places = nn.Parameter(torch.zeros(len(mean), width)) if len(mean) > 1 else None
        self.enter = nn.Linear(mean.shape[1], width)
        moe = {"experts": 8, "active": 2} if ffn == "moe" else None
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                build_mixer(head, width, heads, attention, options or {}),
                build_feedforward(ffn, width, hidden or 2 * width, dropout=dropout, moe=moe),
                dropout=dropout,
                norm="pre",
            )
            for _ in range(layers)
        )
        if head == "mean":
            for layer in self.layers:
                layer.norm1 = nn.Identity()  # of a mixer that reads nothing
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = (
            DiverseClassifier(width, classes) if diverse else nn.Linear(width, classes)
        )

    def entered(self, tokens: Tensor) -> Tensor:
        """The tokens (B, N, D) as the first layer gets them, (B, N, W)."""
        x = self.enter((tokens - self.mean) / self.deviation)
        return x if self.places is None else x + self.places

    def pooled(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The mean of the tokens behind all layers, (B, W)."""
        x = self.entered(tokens)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.dropout(masked_mean(self.norm(x), mask))

    def forward(self, tokens: Tensor, mask: Tensor, statistics: Tensor | None = None) -> Tensor:
        """tokens (B, N, D), mask (B, N) -> logits (B, C), of diverse experts in training (E, B, C);
        the statistics are those of simple models, and not read.
        """
        return self.classifier(self.pooled(tokens, mask))

    @property
    def _first(self) -> EncoderLayer:
        return cast(EncoderLayer, self.layers[0])

    @property
    def has_importance(self) -> bool:
        """Whether the mixer of the first layer tells how much each token weighs."""
        mixer = self._first.mixer
        return isinstance(mixer, GroupedGaussian | GaussianAdaptiveAttention) or (
            isinstance(mixer, Attention) and type(mixer).weights is not Attention.weights
        )

    @torch.no_grad()
    def importance(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """How much each token weighs in the first layer, (B, N), 0 where there is none: the mean
        over features of Gaussian weights, or over heads and present queries of attention weights.

        Raises ValueError for a mixer without weights, see `has_importance`.
        """
        if not self.has_importance:
            raise ValueError("RecordingClassifier: its mixer has no weights of tokens")
        first = self._first
        x, mixer = first.norm1(self.entered(tokens)), first.mixer
        if isinstance(mixer, GroupedGaussian):
            mixer = mixer.gaussian
        if isinstance(mixer, GaussianAdaptiveAttention):
            return mixer.importance(x, mask=mask).mean(2) * mask
        assert isinstance(mixer, Attention)
        weights = mixer.weights(x, mask=mask).mean(1)  # (B, N of queries, N)
        queries = mask[..., None].to(weights.dtype)
        return (weights * queries).sum(1) / queries.sum(1).clamp_min(1) * mask


class PriorRecordings(nn.Module):
    """The same logits (C,) for every recording: those of the shares of the classes."""

    logits: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self, tokens: Tensor, mask: Tensor, statistics: Tensor) -> Tensor:
        """(B, C)."""
        return self.logits.expand(len(tokens), -1)


class LinearRecordings(nn.Module):
    """A linear classifier of a recording's statistics, or of its tokens: all of them in a row where
    their number is fixed, else their mean.

    reads: "statistics", "tokens" or "mean"; size: numbers that it reads.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor

    def __init__(self, reads: Literal["statistics", "tokens", "mean"], size: int, classes: int):
        super().__init__()
        self.reads: Literal["statistics", "tokens", "mean"] = reads
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(classes, size))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, tokens: Tensor, mask: Tensor, statistics: Tensor) -> Tensor:
        """(B, C)."""
        if self.reads == "statistics":
            x = statistics
        else:
            x = tokens.flatten(1) if self.reads == "tokens" else masked_mean(tokens, mask)
        return nn.functional.linear(x - self.centre, self.weight, self.bias)


class BlendedRecordings(BlendedClassifier):
    """The mean of the probabilities of a model of tokens and a simple one."""

    # The names are those of the inputs of an export, as of the model of tokens.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, tokens: Tensor, mask: Tensor, statistics: Tensor
    ) -> Tensor:
        """Logits (B, C)."""
        return self.blend(
            self.model(tokens, mask, statistics), self.simple(tokens, mask, statistics)
        )
