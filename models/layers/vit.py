"""A small plain vision transformer and a token model, of any mechanism of the core.

Shapes: B batch, C channels, Y x X pixels, N tokens, F features of a token, D width, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ..attention import build_attention
from ..attention.base import masked_mean
from .blocks import EncoderLayer, NetworkKind, build_feedforward


class EncoderOptions(TypedDict, total=False):
    """Options of `TransformerEncoder` that models pass on to it."""

    depth: int
    heads: int
    attention: str | Sequence[str]
    options: Mapping[str, Mapping[str, Any]] | None
    ffn: NetworkKind
    hidden: int | None
    dropout: float
    moe: Mapping[str, Any] | None


class TransformerEncoder(nn.Module):
    """Stack of pre-norm layers, with a norm at the end.

    width: D. attention: the name of a mechanism for all layers, or a plan: a sequence of names that
    is repeated, so ("static", "softmax") alternates between the two. options: constructor options
    of each mechanism by its name. ffn: kind of the feed-forward networks; moe: options of their
    experts if it is "moe". Raises ValueError for no layer and for no mechanism.
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 6,
        heads: int = 4,
        attention: str | Sequence[str] = "softmax",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        dropout: float = 0.0,
        moe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        plan = (attention,) if isinstance(attention, str) else tuple(attention)
        if depth < 1 or not plan:
            raise ValueError(
                "TransformerEncoder: needs at least one layer and one mechanism, got depth "
                f"{depth} and {plan}"
            )
        names = [plan[i % len(plan)] for i in range(depth)]
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                build_attention(name, width, heads, **(options or {}).get(name, {})),
                build_feedforward(ffn, width, hidden, dropout=dropout, moe=moe),
                dropout=dropout,
                norm="pre",
            )
            for name in names
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D).

        mask: bool (B, N), True = a token; size: (height, width) if x is a grid.
        """
        static = x
        for layer in self.layers:
            x = layer(x, mask=mask, size=size, static=static)
        return self.norm(x)


class TokenModel(nn.Module):
    """Classes or values from a sequence of feature vectors: linear embedding, positions, encoder,
    mean of tokens, head.

    features: F; outputs: K; tokens: longest sequence; positions: whether learned positions are
    added; further options as in `TransformerEncoder`.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        width: int = 64,
        tokens: int = 256,
        positions: bool = True,
        **encoder: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width)) if positions else None
        self.encoder = TransformerEncoder(width, **encoder)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, F) -> (B, K); mask: bool (B, N), True = a token.

        Raises ValueError for a sequence that is too long.
        """
        x = self.embed(x)
        if self.positions is not None:
            if x.shape[1] > self.positions.shape[0]:
                raise ValueError(
                    f"TokenModel: {x.shape[1]} tokens, built for up to {self.positions.shape[0]}"
                )
            x = x + self.positions[: x.shape[1]]
        return self.head(masked_mean(self.encoder(x, mask=mask), mask))


class VisionTransformer(nn.Module):
    """Plain vision transformer (Dosovitskiy et al., arXiv 2010.11929) with the mean of tokens
    instead of a class token.

    image: (height, width) in pixels, multiples of patch; channels: C; classes: K; further options
    as in `TransformerEncoder`. Positions are learned, one for each patch. It works with any
    mechanism, also those on grids.

    >>> model = VisionTransformer(image=(32, 32), classes=4, attention="linear", depth=1)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        *,
        image: tuple[int, int],
        patch: int = 8,
        channels: int = 3,
        classes: int = 10,
        width: int = 96,
        **encoder: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        if patch < 1 or image[0] % patch or image[1] % patch:
            raise ValueError(
                f"VisionTransformer: patches of {patch} pixels do not fill an image of {image}"
            )
        self.size = (image[0] // patch, image[1] // patch)
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(self.size[0] * self.size[1], width))
        self.encoder = TransformerEncoder(width, **encoder)
        self.head = nn.Linear(width, classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, Y, X) -> patches with their positions (B, N, D).

        Raises ValueError for images of another size.
        """
        patches = self.embed(x)
        if tuple(patches.shape[2:]) != self.size:
            raise ValueError(
                f"VisionTransformer: built for {self.size} patches, got an image of "
                f"{tuple(x.shape)}"
            )
        return patches.flatten(2).transpose(1, 2) + self.positions

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, Y, X) -> (B, K)."""
        return self.head(self.encoder(self.tokens(x), size=self.size).mean(1))
