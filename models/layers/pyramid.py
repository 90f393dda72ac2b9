"""Backbones of timm that give maps of strides 4, 8, 16 and 32, as wholes or stage by stage.

Shapes: B batch, Y x X pixels, stage j = 1..4 of strides 4, 8, 16, 32 with C_j channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..weights.adopted import Normalisation, for_normalisation
from .encoders import fitting, not_made, read_weights, require_timm
from .tuning import TunedBackbone

SMALL = "small"
STRIDES = (4, 8, 16, 32)


class Pyramid(TunedBackbone):
    """A backbone of timm and the `widths` C_1..C_4 of its maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.widths: tuple[int, ...] = tuple(model.feature_info.channels())

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, Y, X) -> the four maps."""
        return self.model(x)

    def staged(self, x: Tensor, change: Callable[[int, Tensor], Tensor]) -> Tensor:
        """The last map, where the map of each stage is changed before the next stage sees it.

        change: (0..3, map) -> map of the same shape. Raises ValueError for a backbone that is no
        sequence of stages."""
        stage = 0
        for part, is_end in self._steps():
            x = part(x)
            if is_end:
                x = change(stage, x)
                stage += 1
        return x

    def last_stage(self) -> list[nn.Module]:
        """The parts after the map of stride 16."""
        stages: list[list[nn.Module]] = [[]]
        for part, is_end in self._steps():
            stages[-1].append(part)
            if is_end:
                stages.append([])
        return stages[len(STRIDES) - 1]

    def _steps(self) -> Iterator[tuple[nn.Module, bool]]:
        """The parts of the backbone in order, and whether a stage ends with each."""
        from timm.models._features import FeatureListNet
        from timm.models.efficientnet import EfficientNetFeatures

        if isinstance(self.model, FeatureListNet):
            for name, part in self.model.items():
                yield part, name in self.model.return_layers
        elif isinstance(self.model, EfficientNetFeatures) and self.model.feature_hooks is None:
            ends = self.model._stage_out_idx
            yield self.model.conv_stem, False
            yield self.model.bn1, 0 in ends
            for number, block in enumerate(self.model.blocks, 1):
                yield block, number in ends
        else:
            raise ValueError(
                "this backbone is no sequence of stages; take a resnet, resnext, densenet, "
                "convnext, efficientnet or mobilenetv2"
            )


def build_pyramid(name: str, weights: str, normalised_by: Normalisation | None = None) -> Pyramid:
    """A backbone by its name in timm, or "small", a residual network of 1.2 million parameters.

    weights: "pretrained" (timm fetches them once), "random", or a file, safetensors or a state dict
    that torch reads without unpickling code. normalised_by: mean and deviation of the colours by
    which the caller normalises pictures; weights of a file that says another one are changed for
    it. Raises ValueError for unknown names, backbones without
    such maps, and weights that are missing or do not fit."""
    if name == SMALL:
        from timm.models._features import FeatureListNet
        from timm.models.resnet import BasicBlock, ResNet

        if weights == "pretrained":
            raise ValueError("backbone 'small' has no pretrained weights; give 'random' or a file")
        plain = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=(32, 64, 128, 192))  # pyright: ignore
        model: Any = FeatureListNet(plain, out_indices=(1, 2, 3, 4))
    else:
        probe = make_timm(name, False, features_only=True)
        strides = probe.feature_info.reduction()
        if not set(STRIDES) <= set(strides):
            needed = ", ".join(map(str, STRIDES))
            raise ValueError(f"backbone {name!r} has maps of strides {strides}; it needs {needed}")
        # Where two maps have one stride, the later one has seen more.
        places = tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES)
        model = make_timm(name, weights == "pretrained", features_only=True, out_indices=places)
    load_timm(model, weights, name, normalised_by)
    return Pyramid(model)


def make_timm(name: str, pretrained: bool, **options: Any) -> Any:
    """`timm.create_model`; ValueError for a name that timm does not know and a model that it cannot
    make.
    """
    import timm

    require_timm(name, repr(name))
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # of the network, the hub, or timm
        raise not_made(repr(name), error) from None


def load_timm(
    model: nn.Module, weights: str, name: str, normalised_by: Normalisation | None = None
) -> None:
    """Weights from a file, unless they are "pretrained" or "random"; those of a classifier are left
    out. ValueError where they do not fit."""
    if weights in ("pretrained", "random"):
        return
    state = for_normalisation(read_weights(Path(weights)), weights, normalised_by)
    # Backbones of maps name their parts with underscores in place of dots.
    matching, missing = fitting(
        model, state | {key.replace(".", "_", 1): value for key, value in state.items()}
    )
    if missing:
        raise ValueError(
            f"{weights}: weights of another model than {name!r}; it lacks {missing[0]}"
        )
    model.load_state_dict(matching, strict=False)
