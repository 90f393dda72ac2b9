"""Encoders of text: ids of tokens to states, in batches padded at their ends.

Shapes: B batch, N tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import build_attention
from ..attention.positions import sinusoids
from ..layers.blocks import EncoderLayer, FeedForward, NetworkKind, build_feedforward
from ..layers.tuning import TunedBackbone

EncoderForm = Literal["bert", "static", "tokens"]
BLOCK = 32  # weights of a 4-bit word vector that share a scale
MIDDLE = 8  # the four bits that stand for 0


class TextEncoder(TunedBackbone):
    """Base of the encoders: `forward(ids, mask) -> states`, 0 where the mask is False. What a text
    is padded with, or batched with, changes nothing.

    width: D; positions: most tokens N that it takes, None for any number.

    `tune` chooses what a training changes, see `TunedBackbone`. `options` are those of the class,
    as JSON: `build_text_encoder(form, options)` makes the same encoder with other weights.
    """

    form: ClassVar[EncoderForm]

    def __init__(self, width: int, positions: int | None, options: Mapping[str, object]) -> None:
        super().__init__()
        self.width, self.positions, self.options = width, positions, dict(options)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids: int64 (B, N), below V; mask: bool (B, N), True = a token -> (B, N, D).

        Raises ValueError for shapes that do not fit, and for more tokens than positions.
        """
        raise NotImplementedError

    def check(self, ids: Tensor, mask: Tensor) -> None:
        """Raises ValueError for ids and a mask that do not fit each other, or are too long."""
        name = type(self).__name__
        if ids.ndim != 2 or mask.shape != ids.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"{name}: needs ids (batch, tokens) and a bool mask of their shape, got "
                f"{tuple(ids.shape)} and {mask.dtype} {tuple(mask.shape)}"
            )
        if self.positions is not None and ids.shape[1] > self.positions:
            raise ValueError(
                f"{name}: takes up to {self.positions} tokens, got {ids.shape[1]}; cut the text "
                "into windows"
            )


class PackedVectors(nn.Module):
    """Word vectors of four bits for each weight, unpacked for the words that are looked up: the
    bits are those of a whole number from -8 to 7, and 32 weights in a row share a scale.

    They are not trained.
    """

    scales: Tensor
    bits: Tensor

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        if width % BLOCK:
            raise ValueError(f"PackedVectors: the width must divide by {BLOCK}, got {width}")
        blocks = width // BLOCK
        self.register_buffer("scales", torch.zeros(vocabulary, blocks, dtype=torch.float16))
        shape = (vocabulary, blocks, BLOCK // 2)
        self.register_buffer("bits", torch.full(shape, MIDDLE * 17, dtype=torch.uint8))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, N) -> float32 (B, N, D)."""
        return unpacked(self.scales[ids], self.bits[ids]).flatten(-2)


def unpacked(scales: Tensor, bits: Tensor) -> Tensor:
    """Weights of four bits as float32: scales (..., K) and bits uint8 (..., K, 16) -> (..., K, 32);
    byte j holds weight j in its lower half and weight j + 16 in its upper one.
    """
    numbers = torch.cat([bits & 15, bits >> 4], -1).to(torch.float32) - MIDDLE
    return numbers * scales.float()[..., None]


class BertSizes(TypedDict):
    """Options of `BertEncoder`."""

    vocabulary: int
    width: int
    heads: int
    layers: int
    hidden: int
    positions: int
    epsilon: float
    packed: bool


class BertEncoder(TextEncoder):
    """BERT (Devlin et al., arXiv 1810.04805), as far as the last hidden states.

    vocabulary: V; width: D; heads, layers; hidden: width of the feed-forward networks; positions:
    most tokens; epsilon: of the norms; packed: word vectors of four bits, which are not trained;
    dropout: in training.

    Of its two segments a text is the first, whose vector is in the positions here.

    >>> encoder = BertEncoder(10, 8, heads=2, layers=1, hidden=16, positions=4)
    >>> encoder(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)).shape
    torch.Size([1, 3, 8])
    """

    form = "bert"

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        heads: int,
        layers: int,
        hidden: int,
        positions: int = 512,
        epsilon: float = 1e-12,
        packed: bool = False,
        dropout: float = 0.0,
    ) -> None:
        sizes: BertSizes = {
            "vocabulary": vocabulary,
            "width": width,
            "heads": heads,
            "layers": layers,
            "hidden": hidden,
            "positions": positions,
            "epsilon": epsilon,
            "packed": packed,
        }
        super().__init__(width, positions, {**sizes, "dropout": dropout})
        self.words = PackedVectors(vocabulary, width) if packed else nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.zeros(positions, width))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                build_attention("softmax", width, heads, dropout=dropout),
                FeedForward(width, hidden, dropout=dropout),
                dropout=dropout,
                norm="post",
            )
            for _ in range(layers)
        )
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = epsilon

    def last_stage(self) -> list[nn.Module]:
        """The last layer."""
        return [self.layers[-1]]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As in `TextEncoder`."""
        self.check(ids, mask)
        words = self.words(ids).to(self.places.dtype)
        x = self.dropout(self.norm(words + self.places[: ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, mask=mask)
        return x * mask[..., None].to(x.dtype)


class StaticEncoder(TextEncoder):
    """A vector for each word, whatever stands beside it.

    vocabulary: V; width: D; trained: whether a training changes the vectors.
    """

    form = "static"

    def __init__(self, vocabulary: int, width: int, *, trained: bool = False) -> None:
        options = {"vocabulary": vocabulary, "width": width, "trained": trained}
        super().__init__(width, None, options)
        self.words = nn.Embedding(vocabulary, width)
        self.words.weight.requires_grad_(trained)

    def last_stage(self) -> list[nn.Module]:
        """The vectors."""
        return [self.words]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As in `TextEncoder`."""
        self.check(ids, mask)
        x = self.words(ids)
        return x * mask[..., None].to(x.dtype)


class TokenEncoder(TextEncoder):
    """A transformer from scratch on any mechanism of the core: word vectors and sinusoids, layers
    that normalise first, a last norm.

    vocabulary: V; width: D, even; positions: most tokens N; attention: a mechanism of the core for
    tokens in a row, options: of it; layers: how many, 0 for the word vectors alone; ffn, hidden,
    moe: as in `build_feedforward`; dropout: of the word vectors, and in the layers.

    Raises ValueError for options that do not fit, and for a mechanism of grids.

    >>> encoder = TokenEncoder(10, 8, heads=2, attention="taylor")
    >>> encoder(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)).shape
    torch.Size([1, 3, 8])
    """

    form = "tokens"
    sinusoids: Tensor

    def __init__(
        self,
        vocabulary: int,
        width: int,
        *,
        heads: int = 4,
        layers: int = 1,
        positions: int = 512,
        attention: str = "softmax",
        options: Mapping[str, object] | None = None,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        moe: Mapping[str, object] | None = None,
        dropout: float = 0.1,
    ) -> None:
        chosen = {
            "vocabulary": vocabulary,
            "width": width,
            "heads": heads,
            "layers": layers,
            "positions": positions,
            "attention": attention,
            "options": dict(options or {}),
            "ffn": ffn,
            "hidden": hidden,
            "moe": dict(moe or {}),
            "dropout": dropout,
        }
        super().__init__(width, positions, chosen)
        if width % 2 or layers < 0 or positions < 1 or vocabulary < 1:
            raise ValueError(
                "TokenEncoder: needs an even width, words, positions, and no less than 0 layers, "
                f"got {width}, {vocabulary}, {positions}, {layers}"
            )
        if ffn == "convglu":
            raise ValueError("TokenEncoder: convglu needs tokens on a grid; take mlp, glu or moe")
        self.words = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        # As large as the vectors of words are.
        places = sinusoids(positions, width) * (2 / width) ** 0.5
        self.register_buffer("sinusoids", places, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            mixer = build_attention(attention, width, heads, **(options or {}))
            if "size" in mixer.extras:
                raise ValueError(f"TokenEncoder: {attention!r} is for grids, and a text is a row")
            network = build_feedforward(ffn, width, hidden, dropout=dropout, moe=moe)
            self.layers.append(EncoderLayer(width, mixer, network, dropout=dropout, norm="pre"))
        self.norm = nn.LayerNorm(width)

    def last_stage(self) -> list[nn.Module]:
        """The last layer, or the word vectors where there is none, and the norm."""
        return [self.layers[-1] if len(self.layers) else self.words, self.norm]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As in `TextEncoder`."""
        self.check(ids, mask)
        x = self.dropout(self.words(ids) + self.sinusoids[: ids.shape[1]])
        static = x
        for layer in self.layers:
            x = layer(x, mask=mask, static=static)
        x = self.norm(x)
        return x * mask[..., None].to(x.dtype)


FORMS: Mapping[EncoderForm, type[TextEncoder]] = {
    "bert": BertEncoder,
    "static": StaticEncoder,
    "tokens": TokenEncoder,
}


def build_text_encoder(form: EncoderForm, options: Mapping[str, object]) -> TextEncoder:
    """An encoder with new weights, of the form and options of another.

    Raises ValueError for options that do not fit.
    """
    if form not in FORMS:
        raise ValueError(f"no form of encoder {form!r}; the forms are {', '.join(FORMS)}")
    try:
        return FORMS[form](**options)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise ValueError(f"encoder {form!r}: {error}") from None


def mean_vector(states: Tensor, mask: Tensor, *, normalised: bool = True) -> Tensor:
    """The mean of the tokens' states, of length 1 if normalised: states (B, N, D), mask bool (B, N)
    -> (B, D); 0 for a text without tokens.
    """
    weight = mask[..., None].to(states.dtype)
    mean = (states * weight).sum(1) / weight.sum(1).clamp_min(1)
    return F.normalize(mean, dim=-1) if normalised else mean
