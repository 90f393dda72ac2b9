"""Whole-slide images: from slides, feature files or bags to a classified and explained cohort, with
ACMIL.

The six answers of the task; slides become features in `extract`, cohorts in `cohort`, scores in
`scoring`, heatmaps in `explain`, batch inference in `infer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...base.errors import InputError
from ..engine.command_line import python_verb
from ..engine.command_line.checks import check_attention, check_least
from ..engine.task import Item, Review, Splits, Task, Verb
from .options import CrossvalOptions, FeaturesOptions, WsiOptions, WsiPredictOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Wsi(Task[WsiOptions]):
    """Whole-slide images."""

    name = "wsi"
    summary = "classify whole-slide images or bags of instances"
    options = WsiOptions
    predict_options = WsiPredictOptions
    monitor = "loss"
    intended_use = (
        "Research on slides like those it was trained on: same stain, scanner and tissue. Not for diagnosis. Attention "
        "shows what the model weighed, not what causes a label."
    )

    verbs: ClassVar[Mapping[str, Verb]] = {
        "features": Verb(
            FeaturesOptions,
            "headwise.pipelines.wsi.verbs.features:features",
            "slides to feature files of CLAM's layout",
        ),
        "crossval": Verb(
            CrossvalOptions,
            "headwise.pipelines.wsi.verbs.crossval:crossval",
            "repeated k-fold by patient beside baselines",
        ),
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        if isinstance(options, CrossvalOptions):
            check_least(options, {"folds": 2, "repeats": 1, "seeds": 1})
            if options.data is None:
                raise InputError("wsi crossval: needs --data, a list of slides or a table of bags")
            if not options.models or len(set(options.models)) < len(options.models):
                raise InputError("--models: give at least one, and none twice")
        if isinstance(options, WsiOptions):
            check_attention(
                options.attention, fits=("any tokens",), why="tiles of a slide are a set", none=True
            )
        if isinstance(options, WsiOptions | FeaturesOptions):
            least = {
                "tile": 8,
                "inner": 1,
                "branches": 1,
                "masked": 0,
                "encode_batch": 1,
                "threads": 1,
                "layers": 1,
                "heads": 1,
            }
            check_least(options, least)
            for name in ("mask_share", "least_tissue"):
                if not 0 <= getattr(options, name, 0) <= 1:
                    raise InputError(
                        f"--{name.replace('_', '-')} {getattr(options, name)}: must be in [0, 1]"
                    )
            for name in ("overlap", "dropout"):
                if not 0 <= getattr(options, name, 0) < 1:
                    raise InputError(f"--{name} {getattr(options, name)}: must be in [0, 1)")
            for name in ("diversity", "branch_loss"):
                if not 0 <= getattr(options, name, 0) < float("inf"):
                    raise InputError(
                        f"--{name.replace('_', '-')} {getattr(options, name)}: must be 0 or more"
                    )
            if not 0 < options.tile_mpp < 1000:
                raise InputError(
                    f"--tile-mpp {options.tile_mpp}: must be positive, in micrometres a pixel"
                )
        mpp: float | None = getattr(options, "mpp", None)
        if mpp is not None and not 0 < mpp < 1000:
            raise InputError(f"--mpp {mpp}: must be positive, in micrometres a pixel")
        if isinstance(options, WsiPredictOptions) and options.top < 1:
            raise InputError(f"--top {options.top}: must be at least 1")

    def write_sample(self, folder: Path) -> Path:
        """Generated slides of two classes, two a patient, and their list."""
        from ...data.slides.generate import write_sample_slides

        return write_sample_slides(folder)

    def open(
        self, options: WsiOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Extract what is missing, split by patient, measure the features."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: WsiOptions, spec: dict[str, Any]) -> nn.Module:
        """ACMIL, ABMIL, mean or max pooling."""
        import torch

        from ...models.bags.acmil import ACMIL, MaxPool, MeanPool
        from ...models.layers.vit import Encoder

        shared: dict[str, Any] = {"inner": options.inner, "dropout": options.dropout}
        if options.attention != "none":
            shared["mixing"] = Encoder(
                options.inner,
                depth=options.layers,
                heads=options.heads,
                attention=options.attention,
                ffn=options.ffn,
                hidden=2 * options.inner,
                dropout=options.dropout,
                moe={"experts": 8, "active": 2} if options.ffn == "moe" else None,
            )
        for name in ("mean", "deviation"):
            shared[name] = None if spec[name] is None else torch.tensor(spec[name])
        sizes = spec["width"], len(spec["classes"])
        if options.model in ("mean", "max"):
            return (MeanPool if options.model == "mean" else MaxPool)(*sizes, **shared)
        if options.model == "abmil":
            return ACMIL(*sizes, branches=1, masked=0, **shared)
        return ACMIL(
            *sizes,
            branches=options.branches,
            masked=options.masked,
            mask_share=options.mask_share,
            attention="multihead" if options.model == "acmil-mha" else "gated",
            **shared,
        )

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: WsiOptions
    ) -> torch.Tensor:
        """Of the slide, of the branches, and of their likeness."""
        from .scoring import loss

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: WsiOptions) -> dict[str, float]:
        """Log-loss, AUC, balanced accuracy."""
        from .scoring import validate

        return validate(model, batches)

    def finish(
        self, model: nn.Module, splits: Splits, options: WsiOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The baseline, fitted on the training part."""
        from .scoring import fit_baseline

        return fit_baseline(splits.train, options.seed)

    def check_run(self, spec: dict[str, Any], calibration: dict[str, torch.Tensor]) -> None:
        """The baseline must be of the run's classes and features."""
        found = (
            tuple(calibration["baseline_weight"].shape)
            if "baseline_weight" in calibration
            else None
        )
        if found != (needed := (len(spec["classes"]), spec["width"])):
            raise InputError(
                f"calibration.safetensors holds a baseline of shape {found}, the run needs {needed}"
            )

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: WsiOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Scores by patient beside the baseline, calibration, attention."""
        from .scoring import review

        return review(model, dataset, calibration, options, spec, device)

    def own_prediction(self, options: WsiOptions) -> dict[str, Any]:
        """The features that the training has extracted; the report has heatmaps already."""
        from .data import feature_folder

        return {"features": feature_folder(options), "slides": options.slides, "explain": False}

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """One bag; the number of its instances is free."""
        import torch

        return (splits.test[0][0],), ({0: torch.export.Dim("instances", min=2)},)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Slides, feature files, or bags of a table."""
        from .prediction import list_inputs

        return list_inputs(options, spec)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """prediction, p_CLASS, tiles, top tiles."""
        from .prediction import schema

        return schema(spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each item; heatmaps beside the output."""
        from .prediction import predict_items

        return predict_items(model, items, options, spec, device)


TASK = Wsi()
train, evaluate, predict, export, features, crossval = (
    python_verb(TASK, verb)
    for verb in ("train", "evaluate", "predict", "export", "features", "crossval")
)
