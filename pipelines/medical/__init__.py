"""Chest X-rays with MEDUSA-style attention: train, evaluate, predict, and an audit for shortcuts.
Research software, not for clinical use.

The six answers of the task; pictures are read and split in `cohort`, varied in `augment`, scored in
`scoring`, explained in `explain`, predicted in `infer`; `audit` asks what could be read without the
lung, `lungs` trains the body on lung masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...base.errors import InputError
from ..engine.command_line import python_verb
from ..engine.task import Item, Review, Splits, Task, Verb
from .options import BodyOptions, CompareOptions, MedicalOptions, MedicalPredictOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Medical(Task[MedicalOptions]):
    """Chest X-rays."""

    name = "medical"
    summary = "classify chest X-rays, and find what else the label can be read from"
    options = MedicalOptions
    predict_options = MedicalPredictOptions
    monitor = "loss"
    intended_use = (
        "Research only, not for clinical use. Probabilities hold for pictures like those it was trained on: same "
        "hospitals, machines, views and patients. Attention shows what the model weighed, not what causes a label; "
        "read what the audit says before any score."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.medical.verbs.compare:compare",
            "MEDUSA-style attention and its ablations",
        ),
        "body": Verb(
            BodyOptions,
            "headwise.pipelines.medical.verbs.body:body",
            "train the body on lung masks, for train --body",
        ),
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        from .checks import check

        check(options)

    def write_sample(self, folder: Path) -> Path:
        """Generated X-rays with a list, lung masks and boxes."""
        from ...data.xrays.generate import write_sample_xrays

        return write_sample_xrays(folder)

    def open(
        self, options: MedicalOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read the list of pictures, split it by patient."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: MedicalOptions, spec: dict[str, Any]) -> nn.Module:
        """The classifier with its attention."""
        from .build import build

        return build(options, spec)

    def warm_start(self, model: nn.Module, options: MedicalOptions, spec: dict[str, Any]) -> None:
        """Weights of the backbone and of the body."""
        from .build import warm_start

        warm_start(model, options, spec)

    def optimizer(self, model: nn.Module, options: MedicalOptions) -> torch.optim.Optimizer:
        """AdamW; a body that was trained before at its own share of the learning rate."""
        from .build import optimizer

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: MedicalOptions
    ) -> torch.Tensor:
        """Cross-entropy."""
        from .scoring import loss

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: MedicalOptions) -> dict[str, float]:
        """Log-loss, AUC, balanced accuracy."""
        from .scoring import validate

        return validate(model, batches)

    def finish(
        self, model: nn.Module, splits: Splits, options: MedicalOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Temperature and operating point."""
        from .scoring import finish

        return finish(model, splits, options, device)

    def check_run(self, spec: dict[str, Any], calibration: dict[str, torch.Tensor]) -> None:
        """Temperature and operating point are one number each."""
        for name in ("temperature", "threshold"):
            if name not in calibration or calibration[name].numel() != 1:
                raise InputError(f"calibration.safetensors holds no {name}")

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: MedicalOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Scores by patient, calibration, attention, and the audit for shortcuts."""
        from .scoring import review

        return review(model, dataset, calibration, options, spec, device)

    def own_prediction(self, options: MedicalOptions) -> dict[str, Any]:
        """The report has pictures already."""
        return {"explain": False}

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Normalised pictures of both sizes; their number is free."""
        from .data import example

        return example(splits)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Pictures and DICOM files."""
        from .prediction import list_inputs

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """prediction, p_CLASS, positive, view."""
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
        """A row for each picture, and a picture of what the model looked at."""
        from .prediction import predict_items

        return predict_items(model, items, calibration, options, spec, device)


TASK = Medical()
train, evaluate, predict, export, compare, body = (
    python_verb(TASK, verb)
    for verb in ("train", "evaluate", "predict", "export", "compare", "body")
)
