"""What stands beside DCAL and predicts as it does: colours, shares of the classes, and blends of a
model with a simple one.

Shapes: B pictures of Y x X pixels, K classes, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.blend import BlendedClassifier
from .dcal import DCAL, probabilities
from .frozen import FrozenLinear

STRIPES, BINS = 6, 8  # of the colour histograms
COLOUR_WIDTH = STRIPES * 3 * BINS
LEAST = 1e-12  # probability of which a logarithm is taken
Outputs = dict[str, Tensor]
"""`vectors` (B, E) of length 1, and `probability` (B, K) of a model of classes."""


def stripe_histograms(level: Tensor) -> Tensor:
    """Square roots of the colour histograms of six stripes, of length 1 (Hellinger).

    level: (B, 3, Y, X), whole numbers below 8 of any type -> float32 (B, 144)."""
    bins = torch.arange(BINS, device=level.device)
    histograms = [
        (stripe.flatten(2)[..., None] == bins).float().mean(2).flatten(1)
        for stripe in level.tensor_split(STRIPES, 2)
    ]
    return F.normalize(torch.cat(histograms, 1).sqrt())


class ColourVectors(nn.Module):
    """Pictures as the histograms of their colours; nothing is learned.

    mean, deviation: what the pipeline normalises by, which is undone.
    """

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, Y, X) -> (B, 144) of length 1."""
        value = ((images * self.deviation + self.mean) * 255).round().clamp(0, 255)
        return stripe_histograms((value / (256 // BINS)).floor())


class ClassShares(nn.Module):
    """The shares of the classes, whatever the picture; its vectors are colours.

    The buffer `logits` (K,) is set by whoever counts them.
    """

    logits: Tensor

    def __init__(self, classes: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.colours = ColourVectors(mean, deviation)
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, Y, X) -> probabilities (B, K)."""
        return self.logits.softmax(0).expand(images.shape[0], -1)


class BlendedVectors(nn.Module):
    """The vectors of a model and of a simple one side by side, so that their cosine is the weighted
    mean of the two cosines.

    share: weight of the model's, set by whoever fits it; centre (E,): taken off its vectors, which
    then have length 1 again. It is 0 but in runs of before models had centres themselves.
    """

    share: Tensor
    centre: Tensor

    def __init__(self, model: nn.Module, simple: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.simple = model, simple
        self.register_buffer("share", torch.tensor(0.5))
        self.register_buffer("centre", torch.zeros(width))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, Y, X) -> (B, E) of length 1."""
        return outputs(self, images)["vectors"]

    def join(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Outputs:
        """Of the outputs of the two."""
        centred = F.normalize(first["vectors"] - self.centre)
        return {"vectors": _side_by_side(centred, second["vectors"], self.share)}


class BlendedPictures(BlendedClassifier):
    """The mean of the class probabilities of a model and of a simple one; their vectors, which are
    compared in no score, are side by side.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures (B, 3, Y, X) -> probabilities (B, K)."""
        return outputs(self, x)["probability"]

    def join(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Outputs:
        """Of the outputs of the two."""
        p, q = (part["probability"].clamp_min(LEAST).log() for part in (first, second))
        both = _side_by_side(first["vectors"], second["vectors"], self.share)
        return {"vectors": both, "probability": self.blend(p, q).exp()}


BLENDS = (BlendedVectors, BlendedPictures)


def _side_by_side(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Vectors of length 1, whose inner products are the weighted means of those of the two."""
    return torch.cat([share.sqrt() * first, (1 - share).sqrt() * second], 1)


def outputs(model: nn.Module, images: Tensor) -> Outputs:
    """`vectors` of normalised pictures (B, 3, Y, X), and `probability` if the model names classes:
    of DCAL and of all that may stand in its place. Any other model gives vectors.
    """
    if isinstance(model, BLENDS):
        return model.join(outputs(model.model, images), outputs(model.simple, images))
    if isinstance(model, FrozenLinear):
        return frozen_outputs(model, model.features(images))
    if isinstance(model, ClassShares):
        return {"vectors": model.colours(images), "probability": model(images)}
    if not isinstance(model, DCAL):
        return {"vectors": model(images)}
    branches = model.branches(images)
    values = {"vectors": model.vectors(branches)}
    if model.output == "probabilities":
        values["probability"] = probabilities(branches, model.heads)
    return values


def frozen_outputs(model: FrozenLinear, features: Tensor) -> Outputs:
    """The same from the features (B, D) of a frozen encoder, which are the vectors of classes."""
    if model.output == "vectors":
        return {"vectors": model.read_out(features)}
    return {"vectors": F.normalize(features), "probability": model.read_out(features)}


def attending(model: nn.Module) -> DCAL | None:
    """The model whose attention explains a prediction: itself, or the part of a blend; None for a
    model without.
    """
    part = model.model if isinstance(model, BLENDS) else model
    return part if isinstance(part, DCAL) else None
