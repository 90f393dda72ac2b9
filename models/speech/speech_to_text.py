"""Speech to text: an encoder of speech and a decoder of text that attends to it, in Whisper's
shape.

Shapes: B batch, F mel bands, T frames, N states of the encoder, I tokens, D width, H heads, L
layers of the decoder, V vocabulary, S maps that are asked for.

Source: Whisper (Radford et al., arXiv 2212.04356): pre-normalised layers, learned positions of the
text, embeddings shared with the output. Every mixer can be another mechanism of the core; the
decoder's own must be causal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.attention_maps import attention_maps
from ..attention import ATTENTION, accepts_option, attention_class, build_attention
from ..attention.base import attend, join_heads, split_heads
from ..attention.softmax import SoftmaxAttention
from ..layers.blocks import NetworkKind, build_feedforward
from .encoder import EncoderKind, SpeechEncoder

Maps = Literal["layers"] | Sequence[tuple[int, int]]


class Memory(NamedTuple):
    """What the decoder attends to: states (B, N, D) and which are there, bool (B, N), None: all."""

    states: Tensor
    mask: Tensor | None


class Decoded(NamedTuple):
    """logits: (B, I, V); maps: (B, L, I, N), means over the heads of each layer, or (B, S, I, N) of
    the heads asked for, or None."""

    logits: Tensor
    maps: Tensor | None


class DecoderLayer(nn.Module):
    """x + own(x), + cross(x, memory), + f(x), each on a normalised input."""

    def __init__(
        self, width: int, own: nn.Module, cross: nn.Module, feedforward: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.own, self.cross, self.feedforward = own, cross, feedforward
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
        pair: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        static: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, I, D) -> the same, and maps (B, S, I, N), or (B, 1, I, N) of a mean; heads: int64
        (S,), None: no maps; mask: bool (B, I), which tokens are there; pair: keys and values of the
        memory, where they are known; bias: (B, N), added to the scores of these keys."""
        extras = {"static": static} if "static" in getattr(self.own, "extras", ()) else {}
        x = x + self.dropout(self.own(self.norm1(x), **extras))
        mixed, maps = self._cross(self.norm2(x), memory, heads, mean, pair, bias)
        x = x + self.dropout(mixed)
        return x + self._network(self.norm3(x), mask), maps

    def _network(self, x: Tensor, mask: Tensor | None) -> Tensor:
        takes = "mask" in getattr(self.feedforward, "extras", ())
        return self.feedforward(x, mask=mask) if takes else self.feedforward(x)

    def _cross(
        self,
        x: Tensor,
        memory: Memory,
        heads: Tensor | None,
        mean: bool,
        pair: tuple[Tensor, Tensor] | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        cross = self.cross
        if isinstance(cross, SoftmaxAttention) and (heads is not None or pair is not None):
            query = split_heads(cross.query(x), cross.heads)
            key, value = cross.keys_values(memory.states) if pair is None else pair
            if heads is None:
                mask = None if memory.mask is None else memory.mask[:, None, None]
                added = None if bias is None else bias[:, None, None]
                return cross.out(join_heads(attend(query, key, value, mask, bias=added))), None
            found = attention_maps(query, key, value, heads, mean=mean, mask=memory.mask)
            return cross.out(join_heads(found.output)), found.maps
        mixed = cross(x, memory.states, mask=memory.mask)
        if heads is None:
            return mixed, None
        every: Tensor = cross.weights(x, memory.states, mask=memory.mask)  # type: ignore[operator]
        chosen = every.detach()[:, heads]
        return mixed, chosen.mean(1, keepdim=True) if mean else chosen

    def step(self, x: Tensor, cache: Cache, memory: Memory) -> Tensor:
        """One more token each, (B, 1, D), that sees those in the cache and is added to it."""
        assert isinstance(self.own, SoftmaxAttention)
        query = self.norm1(x)
        key, value = self.own.keys_values(query)
        if cache.own is not None:
            key, value = torch.cat([cache.own[0], key], 2), torch.cat([cache.own[1], value], 2)
        cache.own = key, value
        mixed = attend(split_heads(self.own.query(query), self.own.heads), key, value)
        x = x + self.own.out(join_heads(mixed))
        x = x + self._cross(self.norm2(x), memory, None, False, cache.memory)[0]
        return x + self._network(self.norm3(x), None)


@dataclass
class Cache:
    """Keys and values (B, H, ·, d) of a layer: of the tokens so far, and of the memory."""

    memory: tuple[Tensor, Tensor]
    own: tuple[Tensor, Tensor] | None = None

    def select(self, rows: Tensor) -> None:
        """Keep these entries of the batch, in this order."""
        self.memory = self.memory[0][rows], self.memory[1][rows]
        if self.own is not None:
            self.own = self.own[0][rows], self.own[1][rows]


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
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        dropout: float = 0.0,
        moe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)  # it is the output layer, too
        self.positions = nn.Parameter(0.01 * torch.randn(positions, width))
        self.layers = nn.ModuleList(
            DecoderLayer(
                width,
                causal_attention(attention, width, heads),
                crossing_attention(cross, width, heads),
                build_feedforward(ffn, width, hidden, dropout=dropout, moe=moe),
                dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    @property
    def cached(self) -> bool:
        """Whether tokens can be added one by one to what was kept of those before."""
        return all(
            isinstance(layer.own, SoftmaxAttention) and isinstance(layer.cross, SoftmaxAttention)
            for layer in self.layers
        )

    @property
    def heads(self) -> int:
        """Heads of the cross-attention."""
        return self.layers[0].cross.heads  # type: ignore[union-attr, return-value]

    def pairs(self, memory: Memory) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the memory for each layer, (B, H, N, d); softmax attention only."""
        return [layer.cross.keys_values(memory.states) for layer in self.layers]  # type: ignore[union-attr, operator]

    def forward(
        self,
        tokens: Tensor,
        memory: Memory,
        *,
        mask: Tensor | None = None,
        maps: Maps | None = None,
        pairs: Sequence[tuple[Tensor, Tensor]] | None = None,
        bias: Tensor | None = None,
    ) -> Decoded:
        """tokens: int64 (B, I); mask: bool (B, I), which are there, all by default (padding stands
        at the end); maps: "layers", or pairs (layer, head); pairs: as of `pairs`; bias: (B, N),
        added to the scores of their keys.

        Raises ValueError for more tokens than positions, heads that are not there, or a bias
        without pairs."""
        if bias is not None and (pairs is None or maps is not None):
            raise ValueError("TextDecoder: a bias needs pairs, and gives no maps")
        if tokens.shape[1] > len(self.positions):
            raise ValueError(
                f"TextDecoder: {tokens.shape[1]} tokens, built for up to {len(self.positions)}"
            )
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        static, found, order = x, [], []
        for number, layer in enumerate(self.layers):
            heads, mean = self._wanted(maps, number)
            x, drawn = layer(
                x,
                memory,
                mask=mask,
                heads=heads,
                mean=mean,
                static=static,
                pair=None if pairs is None else pairs[number],
                bias=bias,
            )
            if drawn is not None:
                found.append(drawn)
                order += [number] if mean else [(number, head) for head in heads.tolist()]  # type: ignore[union-attr]
        logits = F.linear(self.norm(x), self.tokens.weight)
        if maps is None:
            return Decoded(logits, None)
        drawn = torch.cat(found, 1)
        return Decoded(
            logits,
            drawn if maps == "layers" else drawn[:, [order.index(tuple(pair)) for pair in maps]],
        )

    def _wanted(self, maps: Maps | None, layer: int) -> tuple[Tensor | None, bool]:
        if maps is None:
            return None, False
        if maps == "layers":
            return torch.arange(self.heads), True
        if not maps or any(
            not (0 <= at < len(self.layers) and 0 <= head < self.heads) for at, head in maps
        ):
            raise ValueError(
                f"TextDecoder: maps of {len(self.layers)} layers of {self.heads} heads, got {maps!r}"
            )
        heads = [head for at, head in maps if at == layer]
        return (torch.tensor(heads), False) if heads else (None, False)

    def begin(self, memory: Memory) -> list[Cache]:
        """A cache without tokens."""
        return [Cache(pair) for pair in self.pairs(memory)]

    def step(self, tokens: Tensor, place: int, caches: Sequence[Cache], memory: Memory) -> Tensor:
        """tokens: int64 (B,), the one at `place` -> logits (B, V) of the next; the caches grow."""
        x = (self.tokens(tokens) + self.positions[place])[:, None]
        for layer, cache in zip(self.layers, caches):
            x = layer.step(x, cache, memory)  # type: ignore[operator]
        return F.linear(self.norm(x[:, 0]), self.tokens.weight)


class SpeechToText(nn.Module):
    """Log-mel features to text.

    vocabulary: V; features: F; width: D, even; heads: H of both sides; encoder_layers,
    decoder_layers; audio_positions: most states of the encoder, two frames each; text_positions:
    most tokens; encoder: "transformer" or "conformer"; encoder_attention, decoder_attention,
    cross_attention: mechanisms of the core; ffn: of the feed-forward networks, moe: options of
    their experts; ctc: add a head for connectionist temporal classification (Graves et al., 2006)
    on the encoder, with a blank as its class V.

    Raises ValueError for options that do not fit.
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
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        kernel: int = 15,
        dropout: float = 0.0,
        moe: Mapping[str, Any] | None = None,
        ctc: bool = False,
    ) -> None:
        super().__init__()
        shared: dict[str, Any] = {
            "heads": heads,
            "ffn": ffn,
            "hidden": hidden,
            "dropout": dropout,
            "moe": moe,
        }
        self.encoder = SpeechEncoder(
            features,
            width,
            depth=encoder_layers,
            positions=audio_positions,
            kind=encoder,
            kernel=kernel,
            attention=encoder_attention,
            **shared,
        )
        self.decoder = TextDecoder(
            vocabulary,
            width,
            depth=decoder_layers,
            positions=text_positions,
            attention=decoder_attention,
            cross=cross_attention,
            **shared,
        )
        self.ctc = nn.Linear(width, vocabulary + 1) if ctc else None

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Memory:
        """As `SpeechEncoder`."""
        return Memory(*self.encoder(features, lengths))

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B, I, V) of the tokens after each, of features (B, F, T) that all count."""
        return self.decoder(tokens, self.encode(features)).logits


def causal_attention(name: str, width: int, heads: int) -> nn.Module:
    """A mechanism whose tokens are blind to later ones.

    Raises ValueError for a mechanism without a causal form.
    """
    if not accepts_option(name, "causal"):
        raise ValueError(
            f"decoder attention {name!r} has no causal form; "
            f"take one of {', '.join(causal_names())}"
        )
    return build_attention(name, width, heads, causal=True)


def crossing_attention(name: str, width: int, heads: int) -> nn.Module:
    """A mechanism that takes a context. Raises ValueError for one that takes none."""
    if not attention_class(name).crosses:
        raise ValueError(
            f"cross-attention {name!r} takes no context; softmax, differential, taylor, ... do"
        )
    return build_attention(name, width, heads)


def causal_names() -> list[str]:
    """Mechanisms with a causal form."""
    return [name for name in ATTENTION if accepts_option(name, "causal")]
