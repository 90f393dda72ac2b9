"""A frozen encoder and a linear map of its features: classes, or vectors to compare by cosine.

Shapes: B pictures of Y x X pixels, D width of a feature, E outputs (classes, or numbers of a
vector).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.encoders import Size, TileEncoder, build_encoder

Output = Literal["logits", "probabilities", "vectors"]


class FrozenFacts(TypedDict):
    """What `rebuilt_frozen` needs besides the tensors; JSON."""

    architecture: str
    size: list[int] | None
    outputs: int
    output: str


class FeatureMap(nn.Module):
    """A linear map of features, (f - centre) W' + b: tensors `centre` (D,), `weight` (E, D) and
    `bias` (E,), which are set by whoever fits it.
    """

    centre: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(outputs, width))
        self.register_buffer("bias", torch.zeros(outputs))

    def read_out(self, features: Tensor) -> Tensor:
        """Features (B, D) -> (B, E)."""
        return F.linear(features - self.centre, self.weight, self.bias)

    def set_map(self, centre: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Take the tensors of a fitted map, of any precision."""
        self.centre.copy_(centre)
        self.weight.copy_(weight)
        self.bias.copy_(bias)


class FrozenLinear(FeatureMap):
    """Called as a model of a domain is: pictures that its pipeline has normalised.

    encoder: of `build_encoder`; outputs: E; mean, deviation: what the pipeline normalises by, one
    number or one for each colour, which is undone, since the encoder normalises by itself.
    output: what `forward` gives: "logits", "probabilities", or "vectors" of length 1.

    Vectors have length 1 before and after the map. It is always in evaluation mode.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        encoder: TileEncoder,
        outputs: int,
        *,
        mean: float | Sequence[float] = 0.0,
        deviation: float | Sequence[float] = 1.0,
        output: Output = "logits",
    ) -> None:
        super().__init__(encoder.width, outputs)
        self.encoder, self.output = encoder.requires_grad_(False), output
        self.register_buffer("mean", _colours(mean))
        self.register_buffer("deviation", _colours(deviation))
        super().train(False)

    def train(self, mode: bool = True) -> FrozenLinear:
        """Stay in evaluation mode: nothing here is trained."""
        return self

    def forward(self, picture: Tensor, small: Tensor | None = None) -> Tensor:
        """(B, 1 or 3, Y, X), normalised by the pipeline -> (B, E). small: a second input that a
        domain model may have, which is not read.
        """
        return self.read_out(self.features(picture))

    def features(self, picture: Tensor) -> Tensor:
        """The same -> (B, D)."""
        return self.encoder.features((picture * self.deviation + self.mean).clamp(0, 1))

    def read_out(self, features: Tensor) -> Tensor:
        """Features (B, D) -> (B, E)."""
        if self.output == "vectors":
            features = F.normalize(features)
        mapped = super().read_out(features)
        if self.output == "vectors":
            return F.normalize(mapped)
        return mapped.softmax(1) if self.output == "probabilities" else mapped

    def facts(self) -> FrozenFacts:
        """What `rebuilt_frozen` needs."""
        return {
            "architecture": self.encoder.name,
            "size": None if self.encoder.size is None else list(self.encoder.size),
            "outputs": len(self.bias),
            "output": self.output,
        }


def rebuilt_frozen(facts: Mapping[str, object]) -> FrozenLinear:
    """A `FrozenLinear` of `FrozenFacts`, whose tensors are still to be loaded.

    Raises ValueError for facts that make no model.
    """
    stored = cast(FrozenFacts, facts)
    size: Size | None = None
    if stored["size"] is not None:
        height, width = stored["size"]
        size = (int(height), int(width))
    if stored["output"] not in ("logits", "probabilities", "vectors"):
        raise ValueError(f"FrozenLinear: there is no output {stored['output']!r}")
    encoder = build_encoder(stored["architecture"], "random", size)
    return FrozenLinear(encoder, int(stored["outputs"]), output=cast(Output, stored["output"]))


def _colours(values: float | Sequence[float]) -> Tensor:
    """One number for each colour, (3, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32).expand(3).reshape(3, 1, 1).clone()
