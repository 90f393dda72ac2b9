"""Re-identification and fine-grained recognition with DCAL: train, embed, search, explain.

The six answers of the task; pictures are read and split in `cohort`, scored in `scoring`, drawn in
`figures`, embedded in `infer`, searched in `gallery`, cut out of frames in `crops`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.command_line import python_verb
from ..engine.task import Item, Review, Splits, Task, Verb
from .crop_options import CropOptions
from .options import CompareOptions, ReidOptions, ReidPredictOptions, SearchOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Reid(Task[ReidOptions]):
    """Re-identification and fine-grained recognition."""

    name = "reid"
    summary = "find an identity in a gallery, or name a fine-grained class"
    options = ReidOptions
    predict_options = ReidPredictOptions
    monitor = "error"
    intended_use = (
        "Search and recognition in pictures like those it was trained on. Scores say how alike two pictures are to the "
        "model, not that they show the same person; do not decide over people by them. Other cameras cost much."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "embed": Verb(
            ReidPredictOptions,
            "headwise.pipelines.reid.prediction:embed",
            "pictures to a parquet of vectors",
        ),
        "search": Verb(
            SearchOptions,
            "headwise.pipelines.reid.verbs.search:search",
            "query pictures to ranked lists",
        ),
        "crop": Verb(
            CropOptions,
            "headwise.pipelines.reid.verbs.crop:crop",
            "frames or video to crops of people",
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.reid.verbs.compare:compare",
            "DCAL beside the plain transformer, by seeds",
        ),
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        from .checks import check

        check(options)

    def write_sample(self, folder: Path) -> Path:
        """Generated figures in the layout of Market-1501."""
        from ...data.persons.generate import write_sample_persons

        return write_sample_persons(folder)

    def open(
        self, options: ReidOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read the list of pictures, and split it by identity or by picture."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: ReidOptions, spec: dict[str, Any]) -> nn.Module:
        """DCAL, or the conditional embedder."""
        from .build import build

        return build(options, spec)

    def warm_start(self, model: nn.Module, options: ReidOptions, spec: dict[str, Any]) -> None:
        """The weights of timm's backbone."""
        from .build import warm_start

        warm_start(model, options)

    def optimizer(self, model: nn.Module, options: ReidOptions) -> torch.optim.Optimizer:
        """Weight decay for matrices only."""
        from .build import optimizer

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: ReidOptions
    ) -> torch.Tensor:
        """Cross-entropy and triplets of every branch, weighed by what the model learns of their
        variances.
        """
        from .losses import loss

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: ReidOptions) -> dict[str, float]:
        """One minus mAP (to search) or accuracy."""
        from .scoring import validate

        return validate(model, batches, options)

    def finish(
        self, model: nn.Module, splits: Splits, options: ReidOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The baseline on colours, fitted on the training part."""
        from .scoring import fit_baseline

        return fit_baseline(splits, options.seed)

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: ReidOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """mAP, CMC, mINP or accuracy beside colours alone; ranked lists; attention."""
        from .scoring import review

        return review(model, dataset, calibration, options, spec, device)

    def own_prediction(self, options: ReidOptions) -> dict[str, Any]:
        """Where the pictures of a table lie."""
        return {"images": options.images}

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures; their number is free."""
        from .data import example

        return example(splits)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Pictures."""
        from .prediction import check_maps, list_inputs

        check_maps(options, spec)
        return list_inputs(options.input, options.images)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """vector (or vector_ATTRIBUTE), model; prediction and probability of a run that names
        classes.
        """
        from .prediction import schema

        return schema(options, spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """A row a picture."""
        from .prediction import predict_items

        return predict_items(model, items, options, spec, device)


TASK = Reid()
train, evaluate, predict, export, embed, search, crop, compare = (
    python_verb(TASK, verb)
    for verb in ("train", "evaluate", "predict", "export", "embed", "search", "crop", "compare")
)
