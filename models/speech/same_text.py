"""The naive answer to speech: one text, whatever is said.

Shapes: B recordings, F mel bands, T frames, I tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .speech_to_text import Cache, Decoded, KeysValues, Memory, SpeechToText, TextDecoder

CERTAIN = 40.0  # logit of the next token, beside zeros


class SameText(nn.Module):
    """Writes one text for every recording, and is called as `SpeechToText` is.

    model: what listens where a text is known: its attention says when words are said, and its
    probabilities how well they fit. Only what is searched for is replaced.

    >>> model = SpeechToText(9, width=16, heads=2, encoder_layers=1, decoder_layers=1)
    >>> same = SameText(model)
    >>> same.write((1, 2), (5, 6), end=0)
    >>> same(torch.zeros(1, 80, 100), torch.tensor([[1, 2, 5, 6]])).argmax(-1)
    tensor([[0, 5, 6, 0]])
    """

    following: Tensor

    def __init__(self, model: SpeechToText) -> None:
        super().__init__()
        self.model = model
        positions = len(model.decoder.positions)
        self.register_buffer("following", torch.zeros(positions, dtype=torch.int64))

    def write(self, prompt: Sequence[int], text: Sequence[int], end: int) -> None:
        """Choose the text, by its tokens: as much of it as there are positions for."""
        rest = len(self.following) - len(prompt)
        tokens = [*text[:rest], end]
        self.following.fill_(end)
        begin = len(prompt) - 1
        self.following[begin : begin + len(tokens)] = torch.tensor(tokens)

    @property
    def decoder(self) -> SameTextDecoder:
        """What the search asks for the next token."""
        return SameTextDecoder(self.model.decoder, self.following)

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Memory:
        """The states of `model`."""
        return self.model.encode(features, lengths)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, I, V) of the tokens after each, of features (B, F, T)."""
        logits = self.decoder.logits(self.following[: tokens.shape[1]])
        return logits.expand(features.shape[0], -1, -1)


class SameTextDecoder:
    """A decoder whose search gives one text; known texts are decoded as they are."""

    def __init__(self, decoder: TextDecoder, following: Tensor) -> None:
        self.decoder, self.following = decoder, following
        self.tokens, self.positions, self.layers = decoder.tokens, decoder.positions, decoder.layers
        self.heads, self.has_attention_weights = decoder.heads, decoder.has_attention_weights
        self.cached = True

    def __call__(
        self, tokens: Tensor, memory: Memory, *, mask: Tensor | None = None, **options: object
    ) -> Decoded:
        """As of `TextDecoder`."""
        return self.decoder(tokens, memory, mask=mask, **options)

    def pairs(self, memory: Memory) -> list[KeysValues]:
        """As of `TextDecoder`."""
        return self.decoder.pairs(memory)

    def begin(self, memory: Memory) -> list[Cache]:
        """Nothing needs to be remembered."""
        return []

    def step(self, tokens: Tensor, place: int, caches: Sequence[Cache], memory: Memory) -> Tensor:
        """Logits (B, V) after the token at `place`, whatever it is."""
        return self.logits(self.following[place].expand(len(tokens)))

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits by which these tokens are certain: (...) -> (..., V).

        The end is the least likely of the others: a search by beams stops when as many texts have
        ended as there are beams.
        """
        vocabulary = self.tokens.weight.shape[0]
        likely = nn.functional.one_hot(tokens, vocabulary)
        ends = nn.functional.one_hot(self.following[-1], vocabulary)
        return CERTAIN * (2 * likely - ends).float()
