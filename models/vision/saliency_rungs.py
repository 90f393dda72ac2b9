"""What stands beside GL-DMNet and predicts as it does: the mean mask, a linear readout of every
pixel, and blends of a model with it.

Shapes: B scenes of Y x X pixels, P features of a pixel, D of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.blend import BlendedClassifier
from ..layers.encoders import TileEncoder, build_encoder
from .frozen import FeatureMap

LEAST = 1e-6  # probability of which a logit is taken
FLAT = 1e-3  # deviation below which colour or depth is constant
PIXEL_WIDTH = 27
"""Features of a pixel: its colour, depth and place, and how they differ from what is around it."""


class SceneNormalisation(NamedTuple):
    """What a pipeline normalises scenes by: mean and deviation of the three colours, and of the
    depth.
    """

    mean: Sequence[float]
    deviation: Sequence[float]
    depth_mean: float
    depth_deviation: float


class MeanMask(nn.Module):
    """The same map for all scenes: how often each place was salient, the buffer `share` (Y, X)."""

    share: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("share", torch.full(size, 0.5))

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        """Scenes (B, 3, Y, X) and (B, 1, Y, X) -> (B, 1, Y, X)."""
        return self.share.expand(image.shape[0], 1, -1, -1)


class PixelFacts(TypedDict):
    """What `rebuilt_pixels` needs besides the tensors; JSON. architecture: of the encoder, "" for
    none.
    """

    architecture: str
    size: list[int] | None


class LinearSaliency(FeatureMap):
    """Logistic regression of each pixel on its colour, depth and place and, with an encoder, on the
    features of the patches around it, bilinear between them.

    encoder: a vision transformer of `build_encoder`, or None; scale: what the pipeline normalises
    by, which is undone. It is always in evaluation mode.
    """

    colour_scale: Tensor
    depth_scale: Tensor

    def __init__(self, encoder: TileEncoder | None, scale: SceneNormalisation) -> None:
        width = 0 if encoder is None else encoder.width
        super().__init__(PIXEL_WIDTH + width, 1)
        self.encoder = None if encoder is None else encoder.requires_grad_(False)
        colours = torch.tensor([[*scale.mean], [*scale.deviation]], dtype=torch.float32)
        self.register_buffer("colour_scale", colours)
        depths = torch.tensor([scale.depth_mean, scale.depth_deviation])
        self.register_buffer("depth_scale", depths)
        super().train(False)

    def train(self, mode: bool = True) -> LinearSaliency:
        """Stay in evaluation mode: nothing here is trained."""
        return self

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        """The saliency in [0, 1], (B, 1, Y, X), of normalised (B, 3, Y, X) and (B, 1, Y, X)."""
        pixels, patches = self.features(image, depth)
        parts = self.centre.split([PIXEL_WIDTH, len(self.centre) - PIXEL_WIDTH])
        weights = self.weight[0].split([len(part) for part in parts])
        logits = torch.einsum("bpyx,p->byx", pixels, weights[0])[:, None]
        if patches is not None:
            read = torch.einsum("bdyx,d->byx", patches, weights[1])[:, None]
            size = (image.shape[2], image.shape[3])
            logits = logits + F.interpolate(read, size, mode="bilinear", align_corners=False)
        return (logits + self.bias - self.weight[0] @ self.centre).sigmoid()

    def features(self, image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same -> features of the pixels (B, P, Y, X) and of the patches (B, D, y, x)."""
        mean, deviation = self.colour_scale[:, :, None, None]
        colour = (image * deviation + mean).clamp(0, 1)
        pixels = pixel_features(colour, depth * self.depth_scale[1] + self.depth_scale[0])
        return pixels, None if self.encoder is None else self.encoder.patches(colour)

    def sampled(self, image: Tensor, depth: Tensor, places: Tensor) -> Tensor:
        """What is read of some pixels: places int (B, n) in a picture row by row -> (B, n, P+D)."""
        pixels, patches = self.features(image, depth)
        values = pixels.flatten(2).gather(2, places[:, None].expand(-1, PIXEL_WIDTH, -1))
        if patches is None:
            return values.transpose(1, 2)
        height, width = image.shape[2:]
        x = (places % width + 0.5) / width * 2 - 1
        y = (places.div(width, rounding_mode="floor") + 0.5) / height * 2 - 1
        grid = torch.stack([x, y], -1)[:, None]
        around = F.grid_sample(patches, grid, padding_mode="border", align_corners=False)[:, :, 0]
        return torch.cat([values, around], 1).transpose(1, 2)

    def facts(self) -> PixelFacts:
        """What `rebuilt_pixels` needs."""
        encoder = self.encoder
        if encoder is None:
            return {"architecture": "", "size": None}
        size = None if encoder.size is None else list(encoder.size)
        return {"architecture": encoder.name, "size": size}


def rebuilt_pixels(facts: Mapping[str, object], scale: SceneNormalisation) -> LinearSaliency:
    """A `LinearSaliency` of `PixelFacts`, whose tensors are still to be loaded.

    Raises ValueError for facts that make no model.
    """
    stored = cast(PixelFacts, facts)
    if not stored["architecture"]:
        return LinearSaliency(None, scale)
    if stored["size"] is None:
        raise ValueError("LinearSaliency: an encoder of patches has a size")
    height, width = stored["size"]
    size = (int(height), int(width))
    return LinearSaliency(build_encoder(stored["architecture"], "random", size), scale)


def pixel_features(colour: Tensor, depth: Tensor) -> Tensor:
    """Colour (B, 3, Y, X) and depth (B, 1, Y, X) in [0, 1] -> (B, P, Y, X).

    Colour contrast is that to the border of the picture, to its mean and to the surroundings
    (boundary prior: Zhu et al., CVPR 2014; regional contrast: Cheng et al., CVPR 2011); depth is
    compared with the scene, its nearest point, the row and the surroundings.
    """
    batch, height, width = colour.shape[0], colour.shape[2], colour.shape[3]
    red, green, blue = colour.split(1, 1)
    opponent = torch.cat([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], 1)
    border = _border(height, width, colour)
    edge = (opponent * border).sum((2, 3), True) / border.sum()
    spread = ((opponent - edge) ** 2 * border).sum((2, 3), True) / border.sum()
    to_border = ((opponent - edge) ** 2 / (spread + FLAT)).sum(1, True).add(FLAT**2).sqrt()
    to_mean = _length(opponent - opponent.mean((2, 3), True))
    to_near = _length(opponent - _around(opponent, 6))
    deviation = depth.var((2, 3), correction=0, keepdim=True).add(FLAT**2).sqrt()
    standard = (depth - depth.mean((2, 3), True)) / deviation
    behind = depth.amax((2, 3), True) - depth  # the nearest point
    above_near, above_wide = (depth - _around(depth, share) for share in (6, 3))
    above_row = depth - depth.mean(3, True)
    y = torch.linspace(-1, 1, height, device=depth.device)[:, None].expand(batch, 1, height, width)
    x = torch.linspace(-1, 1, width, device=depth.device).expand(batch, 1, height, width)
    middle = (-2 * (x * x + y * y)).exp()
    return torch.cat(
        [
            *(opponent, to_border, to_mean, to_near),
            *(depth, standard, standard**2, behind, behind**2, above_near, above_wide),
            *(above_row, above_row.clamp_min(0)),
            *(y, x.abs(), x * x, y * y, middle),
            *(middle * standard, middle * to_border, middle * above_near, middle * to_near),
            *(standard * to_border, y * standard, above_near * to_near),
        ],
        1,
    )


def _length(difference: Tensor) -> Tensor:
    return (difference**2).sum(1, True).add(FLAT**2).sqrt()


def _around(x: Tensor, share: int) -> Tensor:
    """The mean over what lies within a share (1/6, say) of each side."""
    for axis in (2, 3):
        reach = [0, 0]
        reach[axis - 2] = x.shape[axis] // share
        kernel = [2 * length + 1 for length in reach]
        x = F.avg_pool2d(x, kernel, 1, reach, count_include_pad=False)
    return x


def _border(height: int, width: int, like: Tensor) -> Tensor:
    """1 in the outermost twelfth of each side, else 0: (Y, X)."""
    inner = torch.zeros(height - 2 * max(1, height // 12), width - 2 * max(1, width // 12))
    down, across = (max(1, length // 12) for length in (height, width))
    return F.pad(inner, (across, across, down, down), value=1.0).to(like.device)


class BlendedSaliency(BlendedClassifier):
    """The mean of the probabilities that a model and a simple one give each pixel, with a
    temperature each.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: Tensor, depth: Tensor
    ) -> Tensor:
        """Normalised scenes -> saliency (B, 1, Y, X)."""
        return self.blend(self.model(image, depth), self.simple(image, depth))

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Of the maps of the two, probabilities of one shape."""
        p, q = (
            (logit_of(values) / temperature).sigmoid()
            for values, temperature in zip((first, second), self.temperatures)
        )
        return self.share * p + (1 - self.share) * q


def logit_of(probability: Tensor) -> Tensor:
    """The logit of probabilities, those next to 0 and 1 drawn in."""
    return torch.logit(probability.float(), eps=LEAST)
