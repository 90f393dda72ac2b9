"""What a model of speech uses for each token: many masked passes, and gradients.

Shapes: K masks, F mel bands, T frames, N states, I tokens of a text, D width, V vocabulary.

A known text is decoded; its score under a mask is the divergence, token by token,

    s_k = KL(P_k || P_k^masked) = sum_v P_k(v) (log P_k(v) - log P_k^masked(v))

of the next token's probabilities (SPES, arXiv 2411.01710). Masking states of the encoder needs
neither the encoder nor the keys and values again: a state of zeros has the bias of the layer as its
key and value, the same for all, so that the hidden states are one more key with the logarithm of
their number added to its score. That is exact, and nothing is copied for a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.softmax import SoftmaxAttention
from .speech_to_text import Memory, SpeechToText

MOST_LOGITS = 60_000_000  # numbers of one pass


@dataclass(frozen=True)
class KnownText:
    """A text to decode. tokens: int64 (P + I,), prompt and text; prompt: P."""

    tokens: Tensor
    prompt: int

    @property
    def fed(self) -> Tensor:
        """What the decoder reads while it writes the I tokens, (1, P + I - 1)."""
        return self.tokens[None, :-1]

    @property
    def target(self) -> Tensor:
        """What it should write, (I,)."""
        return self.tokens[self.prompt :]


class StateMasking:
    """Divergence of a text under masks of the states that it is decoded from.

    memory: of one recording, without padding; text: with at least one token. Raises ValueError
    otherwise.
    """

    def __init__(self, model: SpeechToText, memory: Memory, text: KnownText) -> None:
        if len(memory.states) != 1 or memory.mask is not None or len(text.target) < 1:
            raise ValueError(
                "StateMasking: needs one recording without padding and a text with a token"
            )
        self.decoder, self.memory, self.text = model.decoder, memory, text
        self.pairs = None
        with torch.no_grad():
            if all(isinstance(layer.cross, SoftmaxAttention) for layer in self.decoder.layers):
                blank = self.decoder.pairs(Memory(torch.zeros_like(memory.states[:, :1]), None))
                self.pairs = [
                    (torch.cat([key, blank_key], 2), torch.cat([value, blank_value], 2))
                    for (key, value), (blank_key, blank_value) in zip(
                        self.decoder.pairs(memory), blank, strict=True
                    )
                ]
            visible = torch.ones_like(memory.states[:, :, 0], dtype=torch.bool)
            self.divergence = Divergence(self._logits(visible)[0])

    @torch.no_grad()
    def __call__(self, visible: Tensor) -> Tensor:
        """visible: bool (K, N), False = the state is zeroed -> scores (K, I), float32."""
        vocabulary = len(self.decoder.tokens.weight)
        return _in_parts(
            visible, self.text, vocabulary, lambda part: self.divergence(self._logits(part))
        )

    def _logits(self, visible: Tensor) -> Tensor:
        count = len(visible)
        fed = self.text.fed.expand(count, -1)
        states = self.memory.states
        if self.pairs is None:  # another mechanism than softmax: masked states themselves
            decoded = self.decoder(fed, Memory(states * visible[..., None], None))
        else:
            bias = torch.zeros(visible.shape, device=states.device)
            bias = bias.masked_fill(~visible, -torch.inf)
            bias = torch.cat([bias, (~visible).sum(1, keepdim=True).float().log()], 1)
            pairs = [
                (key.expand(count, -1, -1, -1), value.expand(count, -1, -1, -1))
                for key, value in self.pairs
            ]
            memory = Memory(states.expand(count, -1, -1), None)
            decoded = self.decoder(fed, memory, pairs=pairs, bias=bias)
        return decoded.logits[:, self.text.prompt - 1 :]


class FeatureMasking:
    """Divergence of a text under masks of the features: encoder and decoder run for each.

    features: (1, F, T), of one recording; fill: (F,), what a masked place becomes. Raises
    ValueError as `StateMasking` does.
    """

    def __init__(
        self, model: SpeechToText, features: Tensor, fill: Tensor, text: KnownText
    ) -> None:
        if len(features) != 1 or len(text.target) < 1:
            raise ValueError("FeatureMasking: needs one recording and a text with a token")
        self.model, self.features, self.fill, self.text = model, features, fill[None, :, None], text
        with torch.no_grad():
            self.divergence = Divergence(self._logits(features)[0])

    @torch.no_grad()
    def __call__(self, visible: Tensor) -> Tensor:
        """visible: bool (K, F, T), False = the place is filled -> scores (K, I), float32."""
        return _in_parts(
            visible,
            self.text,
            len(self.model.decoder.tokens.weight),
            lambda part: self.divergence(self._logits(torch.where(part, self.features, self.fill))),
        )

    def _logits(self, features: Tensor) -> Tensor:
        memory = self.model.encode(features)
        fed = self.text.fed.expand(len(features), -1)
        return self.model.decoder(fed, memory).logits[:, self.text.prompt - 1 :]


def _in_parts(
    masks: Tensor, text: KnownText, vocabulary: int, score: Callable[[Tensor], Tensor]
) -> Tensor:
    """Scores of all masks, no more of them at once than fit into `MOST_LOGITS`."""
    rows = max(1, MOST_LOGITS // (len(text.tokens) * vocabulary))
    return torch.cat([score(part) for part in masks.split(rows)])


class Divergence:
    """KL(P || Q) of distributions over the vocabulary, token by token; logits: (I, V) of P."""

    def __init__(self, logits: Tensor) -> None:
        log = logits.float().log_softmax(-1)
        self.probability = log.exp()
        self.negative_entropy = (self.probability * log).sum(-1)

    def __call__(self, logits: Tensor) -> Tensor:
        """logits: (K, I, V) of Q -> (K, I), 0 or more, without another tensor of their size."""
        logits = logits.float()
        crossed = torch.einsum("iv,kiv->ki", self.probability, logits) - logits.logsumexp(-1)
        return (self.negative_entropy - crossed).clamp_min(0)


def gradient_times_input(
    model: SpeechToText, features: Tensor, fill: Tensor, text: KnownText
) -> tuple[Tensor, Tensor]:
    """|gradient x (input - fill)| of the log-probability of each token (Shrikumar et al., arXiv
    1605.01713).

    Returns maps (I, F, T) of the features (1, F, T), and (I, N) of the encoder's states, summed
    over their width.
    """
    with torch.enable_grad():
        x = features.detach().clone().requires_grad_()
        memory = model.encode(x)
        logits = model.decoder(text.fed, memory).logits[0, text.prompt - 1 :]
        scores = logits.float().log_softmax(-1).gather(-1, text.target[:, None])[:, 0]
        inputs, states = [], []
        for score in scores:
            by_input, by_states = torch.autograd.grad(score, (x, memory.states), retain_graph=True)
            inputs.append((by_input[0] * (x[0] - fill[:, None])).abs().detach())
            states.append((by_states[0] * memory.states[0]).sum(-1).abs().detach())
    return torch.stack(inputs), torch.stack(states)
