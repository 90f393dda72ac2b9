"""The pipeline of RGB-D saliency: GL-DMNet, its loss and the stages of its training.

Shapes: B scenes, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.scenes.generate import SAMPLE, write_sample_scenes
from ...data.scenes.scenes import table_in
from ...models.layers.pyramid import SMALL
from ...models.layers.tuning import TunedBackbone
from ...models.vision.gldmnet import GLDMNet, build_gldmnet
from ..engine.inference.batches import predict_in_batches
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Batch,
    Context,
    ExportInputs,
    FreeAxes,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.optimizer import adam
from ..engine.training.wrapped import call_method, plain_model
from ..engine.weights import initial_weights, resolve_weights, tune_backbone, weights_for
from ..metrics.saliency import SaliencyScores, saliency_scores
from . import figures
from .augment import DEVIATION, MEAN, augment, normalise
from .data import SaliencySpec, Scenes, check_polarity, describe_source, read_source, split
from .options import SaliencyOptions, SaliencyPredictOptions
from .prediction import (
    SCHEMA,
    PredictContext,
    SceneItem,
    answer_lines,
    list_inputs,
    predict_batch,
    read_item,
)
from .rungs import SaliencyRungs
from .scoring import maps_of, name_of, saliency_of, score_maps, set_table, size_of, summarise

LOSS_WEIGHTS = (0.8, 0.6, 0.4, 0.2)  # of S_1 to S_4
FROZEN_PARTS = ("encoder", "transformer")  # that a stage of the training may freeze


class SaliencyPipeline(
    Pipeline[SaliencyOptions, SaliencySpec, SaliencyPredictOptions, Scenes, SceneItem]
):
    """RGB-D salient object detection."""

    monitor = "error"
    spec_class = SaliencySpec

    def write_sample(self, folder: Path) -> Path:
        """Generated scenes in folders RGB, depth and GT."""
        return write_sample_scenes(folder)

    def open_data(
        self, options: SaliencyOptions, spec: SaliencySpec | None = None, *, as_test: bool = False
    ) -> Splits[SaliencySpec, Scenes]:
        """Read the list of scenes, split it by groups, check which way round the depth is.

        as_test: the test part where the data names one, else all of it.
        """
        source = read_source(options, divided=not as_test)
        if as_test:
            rows = source.scenes.rows("test")
            part = Scenes(source, rows if len(rows) else source.scenes.rows())
            spec = spec or describe_source(source, {"test": len(part)}, None)
            return Splits(part, part, part, spec, members={"test": part.members()})
        subsets = split(options, source)
        if spec is None:
            inverted = check_polarity(source, subsets.train)
            counts = subsets.sizes()
            spec = describe_source(source, counts, inverted, decided_backbone(options))
        train, validation, test = (Scenes(source, rows) for rows in subsets)
        members = {
            "train": train.members(), "validation": validation.members(), "test": test.members()
        }  # fmt: skip
        return Splits(train, validation, test, spec, members=members)

    def build_model(self, options: SaliencyOptions, spec: SaliencySpec) -> GLDMNet:
        """GL-DMNet with random weights.

        Raises `ValueError` for options that do not fit together.
        """
        return _build(options, spec)

    def load_initial_weights(
        self, model: nn.Module, options: SaliencyOptions, spec: SaliencySpec
    ) -> None:
        """The weights of timm's backbones, for a new training only: a finished run has its own, and
        needs neither the files nor the network again.

        Raises `InputError` for weights that are missing or do not fit.
        """
        backbone = spec.backbone or options.backbone
        encoder = initial_weights(options.weights, "pyramid", built=backbone, scratch=SMALL)
        weights_of = {"encoder": encoder.argument, "transformer": options.transformer_weights}
        network = _network(model)
        for pyramid in (network.rgb, network.depth):
            tune_backbone(cast(TunedBackbone, pyramid), options.tune, pretrained=encoder.pretrained)
        if set(weights_of.values()) == {"random"}:
            return
        try:
            pretrained = _build(options, spec, weights_of["encoder"], weights_of["transformer"])
        except ValueError as error:
            raise InputError(f"saliency: these options make no model: {error}") from None
        for name, weights in weights_of.items():
            if weights != "random":
                for part, source in zip(network.parts(name), pretrained.parts(name)):
                    part.load_state_dict(source.state_dict())

    def optimizer(self, model: nn.Module, options: SaliencyOptions) -> torch.optim.Optimizer:
        """Adam, or AdamW with weight decay, with a group for each part that may be frozen."""
        network = _network(model)
        weights_of = {
            name: [weight for part in network.parts(name) for weight in part.parameters()]
            for name in FROZEN_PARTS
        }
        grouped = {id(weight) for weights in weights_of.values() for weight in weights}
        weights_of["rest"] = [w for w in network.parameters() if id(w) not in grouped]
        groups = [
            {"params": weights, "part": name, "share": 1.0}
            for name, weights in weights_of.items()
            if weights
        ]
        return adam(groups, options)

    def begin_epoch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: SaliencyOptions,
        epoch: int,
    ) -> None:
        """First the encoders are frozen, then the transformer, then nothing (section IV-B of the
        paper).
        """
        frozen = ()
        if epoch < options.frozen_encoder:
            frozen = ("encoder",)
        elif epoch < options.frozen_encoder + options.frozen_transformer:
            frozen = ("transformer",)
        cast(GLDMNet, model).freeze(*frozen)
        for group in optimizer.param_groups:
            # With a share of 0 Adam's momentum does not move what is frozen.
            share = options.encoder_share if group["part"] == "encoder" else 1.0
            group["share"] = 0.0 if group["part"] in frozen else share

    def loss(self, model: nn.Module, batch: Batch, options: SaliencyOptions) -> Tensor:
        """sum_i w_i (BCE(S_i, G) + IoU(S_i, G)) over the four supervised maps S_i of each scene
        (arXiv 2501.01648, equations 31 to 33), BCE as a mean over pixels.
        """
        image, depth, mask = augment(batch, options)
        maps = call_method(model, "scales", image, depth)
        losses = [w * saliency_loss(logits, mask) for w, logits in zip(LOSS_WEIGHTS, maps)]
        total = torch.stack(losses).sum()
        zero = _network(model).frozen_sum()
        return total if zero is None else total + zero

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: SaliencyOptions
    ) -> dict[str, float]:
        """error (the mean of MAE and 1 - S-measure), mae and s_measure, in the size of the model.

        Without scenes the error is 0, so that the last epoch counts as the best.
        """
        parts = []
        for batch in batches:
            saliency = saliency_of(model, batch["image"], batch["depth"]).clamp(0, 1).cpu()
            parts.append(saliency_scores(saliency, batch["mask"].cpu()))
        if not parts:
            return {"error": 0.0}
        scores = SaliencyScores.join(parts)
        mae, s_measure = float(scores.mae.mean()), float(scores.s_measure.mean())
        return {"error": (mae + 1 - s_measure) / 2, "mae": mae, "s_measure": s_measure}

    def rungs(self, spec: SaliencySpec) -> SaliencyRungs:
        """The mean mask, a linear readout of every pixel, and the blend."""
        return SaliencyRungs()

    def review(
        self, model: nn.Module, dataset: Scenes, context: Context[SaliencyOptions, SaliencySpec]
    ) -> Review:
        """Every metric of the field by data set, compared with depth alone and the middle of the
        picture.
        """
        options, device = context.options, context.device
        maps, name = maps_of(model, dataset, options, device), name_of(model)
        map_scores = score_maps(dataset, {name: maps})
        size = size_of(model, options, device)
        summary = summarise(dataset, map_scores, name, size, options)
        sheet = set_table(dataset, map_scores)
        return Review(
            summary.to_json(),
            summary.headline(),
            [
                figures.scenes_figure(dataset, maps, map_scores[name]),
                figures.curves_figure(map_scores),
            ],
            {"Scores, 95 % intervals by group": summary.table(), "Scores by data set": sheet},
            {"scores": sheet},
        )

    def unused_for(self, data: str) -> tuple[str, ...]:
        """A table names its own depth and masks, a folder has no columns; groups are of parts."""
        return ("columns", "groups") if Path(data).is_dir() else ("depth", "masks", "groups")

    def prediction_options(self, options: SaliencyOptions, spec: SaliencySpec) -> dict[str, object]:
        """Where the depth maps are, if their folder was named; the columns of a table; and the
        table itself, where it is that of the folder.
        """
        values: dict[str, object] = {"depth": options.depth, "columns": options.columns}
        data = Path(str(options.data))
        alone = data.is_dir() and options.depth is None and options.masks is None
        if alone and (table := table_in(data, True, True, options.columns)) is not None:
            values["input"] = str(table)
        return values

    def answer_lines(self, rows: pl.DataFrame, spec: SaliencySpec) -> list[str]:
        """How much of the picture is salient and where, and where its map is."""
        return answer_lines(rows)

    def export_example(
        self, model: nn.Module, splits: Splits[SaliencySpec, Scenes]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Two normalised scenes of the test part; their number is free."""
        part = splits.test
        scenes = [part[min(place, len(part) - 1)] for place in range(2)]
        image, depth = (
            torch.stack([scene[name] for scene in scenes]) for name in ("image", "depth")
        )
        free = torch.export.Dim("scenes", min=1)
        return normalise(image, depth), ({0: free}, {0: free})

    def list_items(
        self, options: SaliencyPredictOptions, spec: SaliencySpec
    ) -> Sequence[SceneItem]:
        """Pictures, with the depth map of each."""
        return list_inputs(options)

    def prediction_schema(self, options: SaliencyPredictOptions, spec: SaliencySpec) -> Schema:
        """See `prediction.SCHEMA`."""
        return SCHEMA

    def predict(
        self, model: nn.Module, items: Sequence[SceneItem], context: PredictContext
    ) -> list[pl.DataFrame | ValueError]:
        """A map of 8 bits and a row for each picture."""
        return predict_in_batches(
            items,
            lambda item: read_item(item, context),
            lambda batch, scenes: predict_batch(model, batch, scenes, context),
            context.options.batch_size,
        )


def saliency_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy, and the mean over scenes of 1 - sum(S G) / sum(S + G - S G); logits of
    S and mask G are (B, 1, Y, X).
    """
    logits = logits.float()
    s = logits.sigmoid()
    both = (s * mask).sum((1, 2, 3))
    either = (s + mask - s * mask).sum((1, 2, 3)).clamp_min(1e-6)
    return F.binary_cross_entropy_with_logits(logits, mask) + (1 - both / either).mean()


def decided_backbone(options: SaliencyOptions) -> str:
    """The backbone that the weights decide; "" where it is that of the options."""
    name = weights_for(options.weights, options.data, SAMPLE)
    weights = resolve_weights(name, "pyramid", backbone=options.backbone, scratch=SMALL)
    return "" if weights.architecture == options.backbone else weights.architecture


def _build(
    options: SaliencyOptions,
    spec: SaliencySpec,
    weights: str = "random",
    transformer_weights: str = "random",
) -> GLDMNet:
    return build_gldmnet(
        spec.backbone or options.backbone,
        options.transformer,
        weights=weights,
        transformer_weights=transformer_weights,
        attention=options.attention,
        attention_options=mechanism_options(options),
        ffn=options.ffn,
        fusion=options.fusion,
        position=options.position,
        recall=options.recall,
        drop_path=options.drop_path,
        normalised_by=(MEAN, DEVIATION),
    )


def _network(model: nn.Module) -> GLDMNet:
    """The network itself, out of what several devices wrap around it."""
    return cast(GLDMNet, plain_model(model))
