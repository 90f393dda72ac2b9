"""RGB-D salient object detection with GL-DMNet: train, evaluate, predict, cross-validate.

The six answers of the task; scenes are read and split in `cohort`, varied in `augment`, scored in
`scoring`, drawn in `figures`, predicted in `infer`; `folds` leaves one group of scenes out after
the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.command_line import python_verb
from ..engine.task import Item, Review, Splits, Task, Verb
from .options import CrossvalOptions, SaliencyOptions, SaliencyPredictOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Saliency(Task[SaliencyOptions]):
    """RGB-D salient object detection."""

    name = "saliency"
    summary = "find what is salient in pictures with depth"
    options = SaliencyOptions
    predict_options = SaliencyPredictOptions
    monitor = "error"
    intended_use = (
        "Maps of what draws the eye, as the people who drew the masks of the training data saw it. Depth must be of "
        "the kind it was trained on, near and far the same way round."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "crossval": Verb(
            CrossvalOptions,
            "headwise.pipelines.saliency.verbs.crossval:crossval",
            "leave one group of scenes out in turn",
        )
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        from .checks import check

        check(options)

    def write_sample(self, folder: Path) -> Path:
        """Generated scenes in folders RGB, depth and GT."""
        from ...data.scenes.generate import write_sample_scenes

        return write_sample_scenes(folder)

    def open(
        self, options: SaliencyOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read the list of scenes, split it by groups, check which way round depth is."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: SaliencyOptions, spec: dict[str, Any]) -> nn.Module:
        """GL-DMNet."""
        from .build import build

        return build(options)

    def warm_start(self, model: nn.Module, options: SaliencyOptions, spec: dict[str, Any]) -> None:
        """The weights of timm's backbones."""
        from .build import warm_start

        warm_start(model, options)

    def optimizer(self, model: nn.Module, options: SaliencyOptions) -> torch.optim.Optimizer:
        """Adam; pretrained parts at their own share of the learning rate."""
        from .build import optimizer

        return optimizer(model, options)

    def begin_epoch(
        self, model: nn.Module, optimizer: Any, options: SaliencyOptions, epoch: int
    ) -> None:
        """Hold the parts that this stage of the training holds."""
        from .build import freeze

        freeze(model, optimizer, options, epoch)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: SaliencyOptions
    ) -> torch.Tensor:
        """Cross-entropy and IoU of the four maps."""
        from .losses import loss

        return loss(model, batch, options)

    def validate(
        self, model: nn.Module, batches: Any, options: SaliencyOptions
    ) -> dict[str, float]:
        """MAE and one minus S-measure, at the size of the model."""
        from .scoring import validate

        return validate(model, batches)

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: SaliencyOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Every metric of the field by data set, beside depth alone and the middle of the
        picture.
        """
        from .scoring import review

        return review(model, dataset, options, spec, device)

    def own_prediction(self, options: SaliencyOptions) -> dict[str, Any]:
        """Where depth lies, if its folder is named."""
        return {"depth": options.depth}

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures and depths; their number is free."""
        from .data import example

        return example(splits)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Pictures, with the depth of each."""
        from .prediction import list_inputs

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """map, height, width, depth, salient, and the box of what is salient."""
        from .prediction import schema

        return schema()

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """A map of 8 bits and a row for each picture."""
        from .prediction import predict_items

        return predict_items(model, items, options, spec, device)


TASK = Saliency()
train, evaluate, predict, export, crossval = (
    python_verb(TASK, verb) for verb in ("train", "evaluate", "predict", "export", "crossval")
)
