"""Encoder of speech: log-mel features to states, for any number of frames, independent of padding.

Shapes: B batch, F mel bands, T frames, N = ceil(T / 2) states, D width.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.positions import sinusoids
from ..layers.blocks import EncoderLayer, NetworkKind, build_feedforward
from .mixers import MixerOptions, mixer_of

EncoderKind = Literal["transformer", "conformer"]


class ConvModule(nn.Module):
    """The convolution of a Conformer (Gulati et al., arXiv 2005.08100, figure 2), (B, N, D) ->
    (B, N, D).

    It is normalised by layer, not by batch, and padding is set to 0 before the convolution along
    time, so that what a recording is batched with changes nothing (Papi et al., arXiv 2303.16166,
    on such faults).
    """

    def __init__(self, width: int, kernel: int = 15, dropout: float = 0.0) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ConvModule: the kernel must be odd, got {kernel}")
        self.before = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * width)
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.between = nn.LayerNorm(width)
        self.leave = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D); mask: bool (B, N), True = a state -> (B, N, D)."""
        x = F.glu(self.enter(self.before(x)), -1)
        if mask is not None:
            x = x * mask[..., None].to(x.dtype)
        x = self.along(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.leave(F.silu(self.between(x))))


class ConformerLayer(nn.Module):
    """x + f1(x) / 2, + mixer, + convolution, + f2 / 2, normalised (arXiv 2005.08100, equation 1);
    each on a normalised input.

    Departure: the encoder adds positions once, where the paper has relative ones in the mixer.
    """

    def __init__(
        self,
        width: int,
        mixer: nn.Module,
        first: nn.Module,
        second: nn.Module,
        *,
        kernel: int = 15,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first, self.mixer, self.second = first, mixer, second
        self.convolution = ConvModule(width, kernel, dropout)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, static: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D); mask: bool (B, N); static: as in `EncoderLayer` -> (B, N, D)."""
        x = x + 0.5 * _network(self.first, self.norm1(x), mask)
        extras = {"static": static} if "static" in getattr(self.mixer, "extras", ()) else {}
        x = x + self.dropout(self.mixer(self.norm2(x), mask=mask, **extras))
        x = x + self.convolution(x, mask)
        x = x + 0.5 * _network(self.second, self.norm3(x), mask)
        return self.norm4(x)


def _network(network: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a feed-forward network, with the mask of tokens if it takes one."""
    return network(x, mask=mask) if "mask" in getattr(network, "extras", ()) else network(x)


class SpeechEncoder(nn.Module):
    """Two convolutions, the second of stride 2, sinusoids, layers, a last norm, as in Whisper
    (arXiv 2212.04356, figure 1).

    features: F; width: D, even; positions: most states N; kind: "transformer" or "conformer";
    attention: a mechanism of the core for tokens in a row, options: its own by its name; ffn,
    hidden, moe: as in `build_feedforward`; kernel: width of the Conformer's convolution.

    Raises ValueError for options that do not fit.

    >>> encoder = SpeechEncoder(80, 16, heads=2, depth=1)
    >>> encoder(torch.zeros(1, 80, 101))[0].shape
    torch.Size([1, 51, 16])
    """

    positions: Tensor

    def __init__(
        self,
        features: int,
        width: int,
        *,
        heads: int,
        depth: int,
        positions: int = 1500,
        kind: EncoderKind = "transformer",
        attention: str = "softmax",
        options: MixerOptions | None = None,
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        kernel: int = 15,
        dropout: float = 0.0,
        moe: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(EncoderKind) or width % 2 or depth < 1:
            raise ValueError(
                "SpeechEncoder: needs an even width, a layer, and transformer or conformer, got "
                f"{width}, {depth}, {kind!r}"
            )
        self.conv1 = nn.Conv1d(features, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(positions, width))

        def network() -> nn.Module:
            return build_feedforward(ffn, width, hidden, dropout=dropout, moe=moe)

        def layer() -> nn.Module:
            mixer = mixer_of(attention, width, heads, options)
            if kind == "conformer":
                return ConformerLayer(
                    width, mixer, network(), network(), kernel=kernel, dropout=dropout
                )
            return EncoderLayer(width, mixer, network(), dropout=dropout, norm="pre")

        self.layers = nn.ModuleList(layer() for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, features: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The states (B, N, D), 0 in the padding, and which of them are no padding, bool (B, N),
        None without lengths.

        features: (B, F, T); lengths: int64 (B,), frames of each recording; None: all frames count.

        Raises ValueError for more frames than there are positions.
        """
        x, mask = self._entered(features, lengths)
        static = x
        for layer in self.layers:
            x = layer(x, mask=mask, static=static)
        x = self.norm(x)
        return (x, None) if mask is None else (x * mask[..., None].to(x.dtype), mask)

    def layer_states(self, features: Tensor) -> Tensor:
        """The states of all layers of recordings of one length, (L + 1, B, N, D): those that enter
        the first layer, and what leaves each, the last one normalised.

        features: (B, F, T). Raises ValueError as `forward`.
        """
        x, _ = self._entered(features, None)
        states = [static := x]
        for layer in self.layers:
            states.append(layer(states[-1], mask=None, static=static))
        states[-1] = self.norm(states[-1])
        return torch.stack(states)

    def _entered(self, features: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The states (B, N, D) that enter the first layer, and the mask (B, N) of those that are no
        padding, None without lengths.
        """
        size = -(-features.shape[2] // 2)
        if (
            features.ndim != 3
            or features.shape[1] != self.conv1.in_channels
            or size > len(self.positions)
        ):
            raise ValueError(
                f"SpeechEncoder: needs (batch, {self.conv1.in_channels}, up to "
                f"{2 * len(self.positions)} frames), got {tuple(features.shape)}"
            )
        mask = present = None
        if lengths is not None:
            present = torch.arange(features.shape[2], device=lengths.device) < lengths[:, None]
            mask = present[:, ::2]
            features = features * present[:, None].to(features.dtype)
        x = F.gelu(self.conv1(features))
        if present is not None:
            x = x * present[:, None].to(x.dtype)
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positions[:size].to(x.dtype)
        return x, mask
