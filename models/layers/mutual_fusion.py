"""Mutual fusion of two feature maps of one scene, such as colour and depth, by position and by
channel.

Shapes: B batch, C channels, Y x X cells of a map, N = Y X.

From GL-DMNet (arXiv 2501.01648, section III-B, equations 3 to 23). Some of its formulas do not
type-check as printed; what is built instead is a reading of ours, named here:

    printed                                 built
    M(x) = sign(x) x^(-1/2)                 sign(x) (sqrt(|x| + eps) - sqrt(eps)), the signed square
                                            root of bilinear pooling: the printed one has no value
                                            where x <= 0
    (6-8) f_SP f_RGB^T, f in (C, N)         f_SP^T f_RGB, (N, N): a map of positions, as its use in
                                            (9-11) needs
    (15-17) f_RGB f_CH                      f_RGB f_CH^T, (C, C): a map of channels
    (4), (13) no sigmoid                    a sigmoid, as in CBAM, whose form they have
    N(x) = x / ||x||                        over the positions of each channel
"""

import inspect
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.signed_root_attention import signed_root_attention
from ..attention import build_attention
from ..attention.base import to_image, to_tokens

FusionKind = Literal["both", "position", "channel", "concat"]
SIGNED_ROOT = "signed-root"


def conv(inputs: int, outputs: int, side: int) -> nn.Sequential:
    """Conv_k of the paper: a k x k convolution, batch normalisation, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def conv13(inputs: int, outputs: int) -> nn.Sequential:
    """Conv3(Conv1(x))."""
    return nn.Sequential(conv(inputs, outputs, 1), conv(outputs, outputs, 3))


class PositionFusion(nn.Module):
    """Position mutual fusion, equations 3 to 11: (B, C, Y, X) twice -> three of them, of colour,
    depth and both.

    attention: "signed-root", the paper's softmax-free attention between all positions, never held
    as a map; or a mechanism of the core (`headwise list attention`) in its place, which asks the
    joint features where it takes a context and sees each map alone where it does not."""

    def __init__(
        self, channels: int, *, attention: str = SIGNED_ROOT, heads: int = 4, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.eps = eps
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.mix = conv(channels, channels, 1)
        self.attention = attention
        heads = max(h for h in range(1, heads + 1) if channels % h == 0)
        mixers = (
            []
            if attention == SIGNED_ROOT
            else [build_attention(attention, channels, heads) for _ in range(3)]
        )
        self.mixers = nn.ModuleList(mixers)

    def forward(self, colour: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        size = (colour.shape[2], colour.shape[3])
        total = colour + depth
        pooled = torch.cat([total.amax(1, keepdim=True), total.mean(1, keepdim=True)], 1)
        joint = self.mix(total * self.spatial(pooled).sigmoid() + total)
        rgb, d, both = to_tokens(colour), to_tokens(depth), to_tokens(joint)
        if self.attention == SIGNED_ROOT:
            # One map serves two products, P_RGB and its half of P_Fu: their values are taken side
            # by side.
            width = rgb.shape[2]
            of_rgb = signed_root_attention(rgb, both, torch.cat([rgb, both], 2), eps=self.eps)
            of_depth = signed_root_attention(d, both, torch.cat([d, both], 2), eps=self.eps)
            maps = (
                of_rgb[..., :width],
                of_depth[..., :width],
                of_rgb[..., width:] + of_depth[..., width:],
            )
        else:
            maps = tuple(
                on_grid(mixer, x, size, context if mixer.crosses else None)
                for mixer, x, context in zip(self.mixers, (rgb, d, both), (both, both, None))
            )
        first, second, third = (to_image(F.normalize(x, dim=1), size) for x in maps)
        return first, second, third


def on_grid(part: Any, x: Tensor, size: tuple[int, int], *context: Tensor | None) -> Tensor:
    """A part of the core on the cells of a map (B, N, C), told the size of the map if it takes
    it.
    """
    return part(x, *context, **({"size": size} if "size" in getattr(part, "extras", ()) else {}))


class ChannelFusion(nn.Module):
    """Channel mutual fusion, equations 12 to 20: (B, C, Y, X) twice -> three of them, of colour,
    depth and both.
    """

    def __init__(self, channels: int, *, reduction: int = 16, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        inner = max(4, 2 * channels // reduction)
        self.weigh = nn.Sequential(
            nn.Linear(2 * channels, inner), nn.ReLU(), nn.Linear(inner, 2 * channels)
        )
        self.mix = conv(2 * channels, channels, 1)

    def forward(self, colour: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        size = (colour.shape[2], colour.shape[3])
        joined = torch.cat([colour, depth], 1)
        gate = (self.weigh(joined.amax((2, 3))) + self.weigh(joined.mean((2, 3)))).sigmoid()
        both = self.mix(joined * gate[:, :, None, None]).flatten(2)
        rgb, d = colour.flatten(2), depth.flatten(2)
        # The same operator with channels for tokens; its map is only (C, C).
        of_rgb = signed_root_attention(rgb, both, torch.cat([rgb, both], 2), eps=self.eps)
        of_depth = signed_root_attention(d, both, torch.cat([d, both], 2), eps=self.eps)
        cells = rgb.shape[2]
        maps = (
            of_rgb[..., :cells],
            of_depth[..., :cells],
            of_rgb[..., cells:] + of_depth[..., cells:],
        )
        first, second, third = (F.normalize(x, dim=2).unflatten(2, size) for x in maps)
        return first, second, third


class MutualFusion(nn.Module):
    """Both fusions side by side, equations 21 to 23: (B, C, Y, X) of colour and of depth -> (B, C,
    Y, X).

    kind: "both" as the paper, "position" or "channel" alone, or "concat", neither (its ablations,
    table III)."""

    def __init__(self, channels: int, *, kind: FusionKind = "both", **position: Any) -> None:
        super().__init__()
        if kind not in ("both", "position", "channel", "concat"):
            raise ValueError(
                f"MutualFusion: kind must be both, position, channel or concat, got {kind!r}"
            )
        known = inspect.signature(PositionFusion).parameters
        if wrong := [name for name in position if name not in known]:
            raise ValueError(f"MutualFusion: no option {wrong[0]!r}")
        self.position = (
            PositionFusion(channels, **position) if kind in ("both", "position") else None
        )
        self.channel = ChannelFusion(channels) if kind in ("both", "channel") else None
        self.after_position = conv13(3 * channels, channels) if self.position is not None else None
        self.after_channel = conv13(3 * channels, channels) if self.channel is not None else None
        self.plain = conv13(2 * channels, channels) if kind == "concat" else None

    def forward(self, colour: Tensor, depth: Tensor) -> Tensor:
        """See the class."""
        if self.plain is not None:
            return self.plain(torch.cat([colour, depth], 1))
        fused = []
        if self.position is not None and self.after_position is not None:
            fused.append(self.after_position(torch.cat(self.position(colour, depth), 1)))
        if self.channel is not None and self.after_channel is not None:
            fused.append(self.after_channel(torch.cat(self.channel(colour, depth), 1)))
        return fused[0] + fused[1] if len(fused) == 2 else fused[0]
