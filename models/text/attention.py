"""The network of texts: tokens in windows through an encoder, read by attention for each label.

Shapes: B texts, N tokens, W windows of M tokens, L outputs, D width. Inputs are named in `inputs`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .encoder import TextEncoder
from .frozen import FrozenEncoder
from .inputs import CorrectingModel, TextInputs, TextModel
from .label_attention import LabelAttention
from .linear import LinearTexts, of_labels
from .windows import windowed_states


class Contributions(NamedTuple):
    """What makes up the logits (B, L): of each token of the text, then of the knowledge (B, L, N +
    K), of each counted feature (B, L, F), of the table (B, L), and the bias, (L,) or (B, L). They
    sum to the logits. L: of the labels that are explained.
    """

    logits: Tensor
    tokens: Tensor
    features: Tensor
    table: Tensor
    bias: Tensor


class AttentionTexts(TextModel):
    """Each label reads the tokens that speak for or against it; its logit is the sum of their
    contributions, which makes the explanation exact.

    encoder: of tokens; head: reads the labels from its states; window: tokens that the encoder sees
    at once; a longer text is encoded window by window, and the head reads all of them together;
    dropout: of the states that the head reads, in training.
    """

    def __init__(
        self,
        encoder: TextEncoder | FrozenEncoder,
        head: LabelAttention,
        *,
        window: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.window = encoder, head, window
        self.dropout = nn.Dropout(dropout)

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        known = self.known_states(x)
        if known is not None:
            known = self.dropout(known)
        states = self.dropout(self.states(x))
        return self.head(states, x.mask, knowledge=known, knowledge_mask=x.knowledge_mask)

    def states(self, x: TextInputs) -> Tensor:
        """States (B, N, D) of the tokens, of all windows."""
        return windowed_states(self.encoder, x.tokens, x.mask, self.window)

    def known_states(self, x: TextInputs) -> Tensor | None:
        """States (B, K, D) of the tokens of knowledge, of the same encoder; None without any."""
        if x.knowledge is None or x.knowledge_mask is None:
            return None
        return windowed_states(self.encoder, x.knowledge, x.knowledge_mask, self.window)

    def contributions(self, x: TextInputs, labels: Tensor | None = None) -> Contributions:
        """What each token adds to each logit; labels: int64, those to explain, by default all."""
        logits, by_token, bias = self.head.contributions(
            self.states(x),
            x.mask,
            knowledge=self.known_states(x),
            knowledge_mask=x.knowledge_mask,
            labels=labels,
        )
        nothing = logits.new_zeros(*logits.shape, x.features.shape[1])
        return Contributions(logits, by_token, nothing, torch.zeros_like(logits), bias)


class ScaledTexts(TextModel):
    """A linear model whose logits are scaled and shifted for each output, which is all that is
    learned: by logits that each training text had no part in, so that they can be trusted.

    linear: as it was fitted; outputs: L.
    """

    def __init__(self, linear: LinearTexts, outputs: int) -> None:
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        return self.scale * self.linear(*x) + self.shift

    def corrected(self, base: Tensor, *inputs: Tensor) -> Tensor:
        """(B, L), with other logits (B, L) in place of the linear model's."""
        return self.scale * base + self.shift

    def contributions(self, x: TextInputs, labels: Tensor | None = None) -> Contributions:
        """What each counted feature adds to each logit; labels: as of `AttentionTexts`."""
        of_linear = linear_contributions(self.linear, x, labels)
        return scaled(of_linear, of_labels(self.scale, labels), of_labels(self.shift, labels))


class HybridTexts(CorrectingModel[LinearTexts]):
    """A network that corrects a linear model of counted words: their logits are summed. The linear
    model stands as it was fitted; the network learns what it does not know, from logits of it that
    each training text had no part in.
    """

    def __init__(self, linear: LinearTexts, network: AttentionTexts) -> None:
        super().__init__()
        self.linear, self.network = linear, network

    def change(self, x: TextInputs) -> Tensor:
        """What the network adds, (B, L)."""
        return self.network(*x)

    def contributions(self, x: TextInputs, labels: Tensor | None = None) -> Contributions:
        """What each token and each counted feature add to each logit; labels: as of
        `AttentionTexts`.
        """
        return added(
            linear_contributions(self.linear, x, labels), self.network.contributions(x, labels)
        )


def linear_contributions(
    model: LinearTexts, x: TextInputs, labels: Tensor | None = None
) -> Contributions:
    """What each counted feature adds to each logit of a linear model; labels: as of
    `AttentionTexts`.
    """
    by_feature, of_table, bias = model.parts(x, labels)
    logits = by_feature.sum(1) + of_table + bias
    nothing = logits.new_zeros(*logits.shape, x.places)
    return Contributions(logits, nothing, by_feature.mT, of_table, bias)


def added(first: Contributions, second: Contributions) -> Contributions:
    """The contributions to the sum of two logits."""
    return Contributions(*(a + b for a, b in zip(first, second, strict=True)))


def scaled(contributions: Contributions, factor: Tensor, shift: Tensor) -> Contributions:
    """The contributions to factor (L,) · logits + shift (L,)."""
    logits, tokens, features, table, bias = contributions
    wide = factor[:, None]
    return Contributions(
        factor * logits + shift,
        wide * tokens,
        wide * features,
        factor * table,
        factor * bias + shift,
    )
