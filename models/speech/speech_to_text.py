"""Speech to text: an encoder of speech and a decoder of text that attends to it, in Whisper's
shape.

Shapes: B batch, F mel bands, T frames, N states of the encoder, I tokens, D width, H heads, d width
of a head, L layers of the decoder, V vocabulary, S maps that are asked for.

Source: Whisper (Radford et al., arXiv 2212.04356): pre-normalised layers, learned positions of the
text, embeddings shared with the output. Every mixer can be another mechanism of the core; that
among the tokens must be causal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention_maps import attention_maps
from ..attention.base import Attention, attend, join_heads, split_heads
from ..attention.softmax import SoftmaxAttention
from ..layers.blocks import NetworkKind, build_feedforward
from .encoder import EncoderKind, SpeechEncoder
from .mixers import MixerOptions, causal_attention, crossing_attention, is_plain

Maps = Literal["layers"] | Sequence[tuple[int, int]]
"""Of the mean of each layer's heads, or of heads as (layer, head)."""
KeysValues = tuple[Tensor, Tensor]
"""Keys and values of a layer, (B, H, tokens or states, d) each."""


class Memory(NamedTuple):
    """What the decoder attends to: states (B, N, D), and which of them are no padding, bool (B, N);
    None: all of them.
    """

    states: Tensor
    mask: Tensor | None


class Decoded(NamedTuple):
    """logits: (B, I, V); maps: (B, L, I, N), means over the heads of each layer, or (B, S, I, N) of
    the heads that are asked for, or None.
    """

    logits: Tensor
    maps: Tensor | None


class DecoderLayer(nn.Module):
    """x + own(x), + cross(x, memory), + f(x), each on a normalised input.

    mixer: the mechanism among the tokens, `own` in stored weights.
    """

    def __init__(
        self, width: int, mixer: Attention, cross: Attention, feedforward: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.own, self.cross, self.feedforward = mixer, cross, feedforward
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        *,
        mask: Tensor | None,
        heads: Tensor | None,
        mean: bool,
        pair: KeysValues | None = None,
        bias: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, I, D) -> the same, and maps (B, S, I, N), or (B, 1, I, N) of a mean.

        mask: bool (B, I), which tokens are no padding; heads: int64 (S,), None: no maps; pair: keys
        and values of the memory, if they are known; bias: (B, N), added to the scores of these
        keys; static: the tokens before any layer.
        """
        extras = {"static": static} if "static" in self.own.extras else {}
        x = x + self.dropout(self.own(self.norm1(x), **extras))
        mixed, maps = self._cross(self.norm2(x), memory, heads, mean, pair, bias)
        x = x + self.dropout(mixed)
        return x + self._network(self.norm3(x), mask), maps

    def _network(self, x: Tensor, mask: Tensor | None) -> Tensor:
        takes_mask = "mask" in getattr(self.feedforward, "extras", ())
        return self.feedforward(x, mask=mask) if takes_mask else self.feedforward(x)

    def _cross(
        self,
        x: Tensor,
        memory: Memory,
        heads: Tensor | None,
        mean: bool,
        pair: KeysValues | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        cross = self.cross
        if is_plain(cross) and (heads is not None or pair is not None):
            query = split_heads(cross.query(x), cross.heads)
            key, value = cross.keys_values(memory.states) if pair is None else pair
            if heads is None:
                mask = None if memory.mask is None else memory.mask[:, None, None]
                score_bias = None if bias is None else bias[:, None, None]
                mixed = attend(query, key, value, mask, bias=score_bias)
                return cross.out(join_heads(mixed)), None
            mapped = attention_maps(query, key, value, heads, mean=mean, mask=memory.mask)
            return cross.out(join_heads(mapped.output)), mapped.maps
        mixed = cross(x, memory.states, mask=memory.mask)
        if heads is None:
            return mixed, None
        weights = cross.weights(x, memory.states, mask=memory.mask).detach()[:, heads]
        return mixed, weights.mean(1, keepdim=True) if mean else weights

    def step(self, x: Tensor, cache: Cache, memory: Memory) -> Tensor:
        """One more token each, (B, 1, D), that sees those in the cache and is added to it."""
        assert isinstance(self.own, SoftmaxAttention)
        query = self.norm1(x)
        key, value = self.own.keys_values(query)
        if cache.tokens is not None:
            key = torch.cat([cache.tokens[0], key], 2)
            value = torch.cat([cache.tokens[1], value], 2)
        cache.tokens = key, value
        mixed = attend(split_heads(self.own.query(query), self.own.heads), key, value)
        x = x + self.own.out(join_heads(mixed))
        x = x + self._cross(self.norm2(x), memory, None, False, cache.memory)[0]
        return x + self._network(self.norm3(x), None)


@dataclass
class Cache:
    """Keys and values of a layer: of the memory, and of the tokens so far."""

    memory: KeysValues
    tokens: KeysValues | None = None

    def select(self, rows: Tensor) -> None:
        """Take these entries of the batch, in this order."""
        self.memory = self.memory[0][rows], self.memory[1][rows]
        if self.tokens is not None:
            self.tokens = self.tokens[0][rows], self.tokens[1][rows]


class TextDecoder(nn.Module):
    """Tokens to logits of the next; see `SpeechToText` for the options."""

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        heads: int,
        depth: int,
        positions: int,
        attention: str = "softmax",
        cross: str = "softmax",
        options: MixerOptions | None = None,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        dropout: float = 0.0,
        moe: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)  # it is the output layer, too
        self.positions = nn.Parameter(0.01 * torch.randn(positions, width))
        self.layers = nn.ModuleList(
            DecoderLayer(
                width,
                causal_attention(attention, width, heads, options),
                crossing_attention(cross, width, heads, options),
                build_feedforward(ffn, width, hidden, dropout=dropout, moe=moe),
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def _layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))

    @property
    def cached(self) -> bool:
        """Whether tokens can be added one by one, from keys and values of those before them."""
        return all(is_plain(layer.own) and is_plain(layer.cross) for layer in self._layers())

    @property
    def heads(self) -> int:
        """Heads of the cross-attention."""
        return self._layers()[0].cross.heads

    @property
    def has_attention_weights(self) -> bool:
        """Whether the cross-attention has weights, from which word times can be read."""
        x = self.tokens.weight.new_zeros((1, 2, self.tokens.weight.shape[1]))
        try:
            self._layers()[0].cross.weights(x, x)
        except ValueError:
            return False
        return True

    def pairs(self, memory: Memory) -> list[KeysValues]:
        """Keys and values of the memory for each layer; softmax attention only."""
        crosses = [cast(SoftmaxAttention, layer.cross) for layer in self._layers()]
        return [cross.keys_values(memory.states) for cross in crosses]

    def forward(
        self,
        tokens: Tensor,
        memory: Memory,
        *,
        mask: Tensor | None = None,
        maps: Maps | None = None,
        pairs: Sequence[KeysValues] | None = None,
        bias: Tensor | None = None,
    ) -> Decoded:
        """Logits of the tokens after each.

        tokens: int64 (B, I); mask: bool (B, I), which are no padding, by default all (padding comes
        last); maps: what to return the cross-attention of; pairs: as returned by `pairs`; bias:
        (B, N), added to the scores of their keys.

        Raises ValueError for more tokens than positions, heads that do not exist, or a bias without
        pairs.
        """
        if bias is not None and (pairs is None or maps is not None):
            raise ValueError("TextDecoder: a bias needs pairs, and gives no maps")
        if tokens.shape[1] > len(self.positions):
            raise ValueError(
                f"TextDecoder: {tokens.shape[1]} tokens, built for up to {len(self.positions)}"
            )
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        static = x
        by_layer: list[Tensor] = []
        order: list[tuple[int, int]] = []  # (layer, head) of each map
        for number, layer in enumerate(self._layers()):
            heads, mean = self._heads_of(maps, number)
            x, layer_maps = layer(
                x,
                memory,
                mask=mask,
                heads=heads,
                mean=mean,
                static=static,
                pair=None if pairs is None else pairs[number],
                bias=bias,
            )
            if heads is not None and layer_maps is not None:
                by_layer.append(layer_maps)
                order += [(number, head) for head in heads.tolist()]
        logits = F.linear(self.norm(x), self.tokens.weight)
        if maps is None:
            return Decoded(logits, None)
        chosen = torch.cat(by_layer, 1)
        if maps != "layers":
            chosen = chosen[:, [order.index((layer, head)) for layer, head in maps]]
        return Decoded(logits, chosen)

    def _heads_of(self, maps: Maps | None, layer: int) -> tuple[Tensor | None, bool]:
        """The heads of a layer whose maps are asked for, and whether their mean is."""
        if maps is None:
            return None, False
        if maps == "layers":
            return torch.arange(self.heads), True
        if not maps or any(
            not (0 <= number < len(self.layers) and 0 <= head < self.heads) for number, head in maps
        ):
            raise ValueError(
                f"TextDecoder: maps of {len(self.layers)} layers of {self.heads} heads, "
                f"got {maps!r}"
            )
        heads = [head for number, head in maps if number == layer]
        return (torch.tensor(heads), False) if heads else (None, False)

    def begin(self, memory: Memory) -> list[Cache]:
        """A cache without tokens for each layer."""
        return [Cache(pair) for pair in self.pairs(memory)]

    def step(self, tokens: Tensor, place: int, caches: Sequence[Cache], memory: Memory) -> Tensor:
        """Logits (B, V) after one more token at `place`, int64 (B,); the caches grow."""
        x = (self.tokens(tokens) + self.positions[place])[:, None]
        for layer, cache in zip(self._layers(), caches, strict=True):
            x = layer.step(x, cache, memory)
        return F.linear(self.norm(x[:, 0]), self.tokens.weight)


class SpeechToText(nn.Module):
    """Log-mel features to text.

    vocabulary: V; features: F; width: D, even; heads: H of both sides; encoder_layers,
    decoder_layers; audio_positions: most states of the encoder, two frames each; text_positions:
    most tokens; encoder: "transformer" or "conformer"; encoder_attention, decoder_attention,
    cross_attention: mechanisms of the core, options: theirs, by their names; ffn: of the
    feed-forward networks, moe: options of their experts; ctc: add a head for connectionist temporal
    classification (Graves et al., 2006) on the encoder, with a blank as its class V.

    Raises ValueError for options that do not fit.

    >>> model = SpeechToText(11, width=16, heads=2, encoder_layers=1, decoder_layers=1)
    >>> model(torch.zeros(1, 80, 100), torch.tensor([[0, 1, 2]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        features: int = 80,
        width: int = 384,
        heads: int = 6,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        audio_positions: int = 1500,
        text_positions: int = 448,
        encoder: EncoderKind = "transformer",
        encoder_attention: str = "softmax",
        decoder_attention: str = "softmax",
        cross_attention: str = "softmax",
        options: MixerOptions | None = None,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        kernel: int = 15,
        dropout: float = 0.0,
        moe: Mapping[str, object] | None = None,
        ctc: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(
            features,
            width,
            heads=heads,
            depth=encoder_layers,
            positions=audio_positions,
            kind=encoder,
            attention=encoder_attention,
            options=options,
            ffn=ffn,
            hidden=hidden,
            kernel=kernel,
            dropout=dropout,
            moe=moe,
        )
        self.decoder = TextDecoder(
            vocabulary,
            width,
            heads=heads,
            depth=decoder_layers,
            positions=text_positions,
            attention=decoder_attention,
            cross=cross_attention,
            options=options,
            ffn=ffn,
            hidden=hidden,
            dropout=dropout,
            moe=moe,
        )
        self.ctc = nn.Linear(width, vocabulary + 1) if ctc else None

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Memory:
        """The states that the decoder attends to; arguments as of `SpeechEncoder`."""
        return Memory(*self.encoder(features, lengths))

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, I, V) of the tokens after each; all frames of the features (B, F, T) count."""
        return self.decoder(tokens, self.encode(features)).logits
