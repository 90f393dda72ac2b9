"""Re-identification and fine-grained recognition with DCAL, or with one space per attribute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ...base.account import note
from ...base.errors import InputError
from ...data.listed import labels_table
from ...data.persons.generate import write_sample_persons
from ...kernels.precision import outside_autocast
from ...models.layers.label_losses import ClassLoss
from ...models.layers.vit_trunk import SCRATCH, Trunk, build_trunk
from ...models.vision.cca import ConditionalEmbedder
from ...models.vision.dcal import DCAL, Branches
from ...models.vision.picture_rungs import attending
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Batch,
    Calibration,
    Context,
    Item,
    Pipeline,
    ReportFigure,
    Review,
    Schema,
    Splits,
)
from ..engine.training.wrapped import call_method, plain_model
from ..engine.weights import initial_weights, resolve_weights, tune_backbone
from ..metrics.linear_baseline import fit_linear_baseline
from . import embedding, figures, prediction, scoring
from .answers import fit_answering, stored_answering
from .augment import DEVIATION, MEAN, augment, normalise
from .data import ReidSpec, open_pictures
from .options import ReidOptions, ReidPredictOptions
from .pictures import Pictures
from .rungs import ReidRungs, can_choose, name_of

UNDECAYED = ("pos_embed", "cls_token", "reg_token", "dist_token", "conditions")
MAPS_SHOWN = 8  # pictures with their attention rollout in the report


class ReidPipeline(Pipeline[ReidOptions, ReidSpec, ReidPredictOptions, Pictures, Item]):
    """Re-identification and fine-grained recognition."""

    monitor = "error"
    spec_class = ReidSpec

    def write_sample(self, folder: Path) -> Path:
        """Write generated figures in the layout of Market-1501."""
        return write_sample_persons(folder)

    def open_data(
        self, options: ReidOptions, spec: ReidSpec | None = None, *, as_test: bool = False
    ) -> Splits[ReidSpec, Pictures]:
        """List the pictures, and split them by identity or by picture."""
        if spec is not None:
            return open_pictures(options, spec, as_test=as_test)
        weights = resolve_weights(
            options.weights, "trunk", backbone=options.backbone, scratch=SCRATCH
        )
        splits = open_pictures(options)
        if weights.architecture == options.backbone:
            return splits
        return replace(splits, spec=replace(splits.spec, backbone=weights.architecture))

    def build_model(self, options: ReidOptions, spec: ReidSpec) -> nn.Module:
        """DCAL, or the conditional embedder; `ValueError` for options that do not fit together."""
        trunk = _trunk(options, spec, "random")
        if options.model == "cca":
            conditions, layers = len(spec.attributes), max(1, options.glca)
            return ConditionalEmbedder(trunk, conditions, vector=options.vector, layers=layers)
        search = spec.goal == "search"
        model = DCAL(
            trunk,
            len(spec.classes),
            local=options.local,
            glca=options.glca,
            pwca=options.pwca,
            neck=search if options.neck == "auto" else options.neck == "yes",
            diverse=options.imbalance == "diverse",
            heads=options.embedding,
            output="vectors" if search else "probabilities",
        )
        counts = torch.tensor(spec.counts or [1] * len(spec.classes))
        model.objective = ClassLoss(options.imbalance, counts, smoothing=options.smoothing)
        return model

    def load_initial_weights(self, model: nn.Module, options: ReidOptions, spec: ReidSpec) -> None:
        """Weights of timm's backbone, for a new training only: a finished run has its own, and
        needs neither the file nor the network again.

        Raises `InputError` for weights that are missing or do not fit.
        """
        backbone = spec.backbone or options.backbone
        weights = initial_weights(options.weights, "trunk", built=backbone, scratch=SCRATCH)
        pretrained = backbone != SCRATCH and weights.pretrained
        trunk = cast(DCAL | ConditionalEmbedder, model).trunk
        if pretrained:
            try:
                source = _trunk(options, spec, weights.argument)
            except ValueError as error:
                raise InputError(f"reid: these options make no model: {error}") from None
            trunk.load_state_dict(source.state_dict())
        tune_backbone(trunk, options.tune, pretrained=pretrained)

    def optimizer(self, model: nn.Module, options: ReidOptions) -> torch.optim.Optimizer:
        """AdamW, or SGD with momentum 0.9; only matrices decay, but no positions and tokens."""
        decayed, undecayed = [], []
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                plain = weight.ndim < 2 or name.endswith(UNDECAYED)
                (undecayed if plain else decayed).append(weight)
        groups = [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        if options.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
        return torch.optim.AdamW(groups, lr=options.lr)

    def loss(self, model: nn.Module, batch: Batch, options: ReidOptions) -> Tensor:
        """Loss of classes and triplets of each branch; triplets within conditions for attributes.

        DCAL: 1/2 sum_b (exp(-w_b) L_b + w_b) over the branches b (Zhu et al., arXiv 2205.02151,
        section 3.4, as FairMOT; w_b the learned logarithm of a variance).
        """
        images = augment(batch["image"], options)
        if isinstance(plain_model(model), ConditionalEmbedder):
            vectors = call_method(model, "embed", images, batch["condition"])
            return triplet_loss(vectors, batch["label"], options.margin, batch["condition"])
        branches: Branches = call_method(model, "branches", images)
        objective = plain_model(model).objective
        assert isinstance(objective, ClassLoss)
        losses = []
        for name, logits in branches.logits.items():
            total = objective.mean(logits, batch["label"])
            if bool(batch["triplet"][0]):
                total = total + triplet_loss(branches.tokens[name], batch["label"], options.margin)
            losses.append(total)
        each_loss = torch.stack(losses)
        log_variance = cast(Tensor, model.log_variance)
        if not options.balance:
            # Several devices wait for the gradient of all weights.
            return each_loss.sum() + 0 * log_variance.sum()
        return 0.5 * (torch.exp(-log_variance) * each_loss + log_variance).sum()

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: ReidOptions
    ) -> dict[str, float]:
        """One minus mAP (to search) or accuracy."""
        embedded = embedding.embed(model, batches, options.size)
        return scoring.validation_scores(embedded)

    def complete(
        self,
        model: nn.Module,
        splits: Splits[ReidSpec, Pictures],
        context: Context[ReidOptions, ReidSpec],
    ) -> None:
        """Of a search by DCAL: the mean vectors of pictures of the training part."""
        if splits.spec.goal == "search" and isinstance(model, DCAL):
            vectors = embedding.mean_vectors(model, splits.train, context.options, context.device)
            model.set_centres(vectors)

    def rungs(self, spec: ReidSpec) -> ReidRungs:
        """Colours or shares, frozen features, and the blend."""
        return ReidRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[ReidSpec, Pictures],
        options: ReidOptions,
        device: torch.device,
    ) -> Calibration:
        """Of classes a linear model of colours; of a search the threshold from which a picture
        names somebody, and what a cosine says.
        """
        if splits.spec.goal != "classes":
            return _fitted_answering(model, splits, options, device)
        return fit_linear_baseline(
            scoring.colours_of(splits.train),
            splits.train.labels,
            len(splits.spec.classes),
            inverse_penalty=10.0,
            iterations=1000,
            seed=options.seed,
        )

    def review(
        self, model: nn.Module, dataset: Pictures, context: Context[ReidOptions, ReidSpec]
    ) -> Review:
        """mAP, CMC, mINP or accuracy compared with colours alone; ranked lists; attention."""
        options, spec = context.options, context.spec
        embedded = embedding.embed_part(model, dataset, options, context.device)
        if isinstance(model, ConditionalEmbedder):
            return scoring.review_attributes(dataset, embedded, spec.attributes)
        maps = _attention_maps(model, dataset, options, context.device)
        name = name_of(model, options)
        if "probability" in embedded:
            review = scoring.review_recognition(
                dataset, embedded, context.calibration, options, spec.classes, maps, name
            )
        else:
            answering = stored_answering(context.calibration)
            review = scoring.review_search(dataset, embedded, options, maps, name, answering)
        if attending(model) is not None:
            return review
        missing = pl.DataFrame({"figure": "attention rollout", "why": f"{name}: no attention"})
        return replace(review, tables={**review.tables, "What the report cannot show": missing})

    def unused_for(self, data: str) -> tuple[str, ...]:
        """A folder without a table has neither columns nor another folder of pictures."""
        alone = Path(data).is_dir() and labels_table(data) is None
        return ("columns", "images") if alone else ()

    def prediction_options(self, options: ReidOptions, spec: ReidSpec) -> dict[str, object]:
        """The folder of the pictures of a table, its columns and, where these are named, the table
        itself.
        """
        values: dict[str, object] = {"images": options.images, "columns": options.columns}
        data = Path(str(options.data))
        if any(values.values()) and data.is_dir() and (table := labels_table(data)):
            values["input"] = str(table)
        return values

    def export_example(
        self, model: nn.Module, splits: Splits[ReidSpec, Pictures]
    ) -> tuple[tuple[Tensor], tuple[dict[int, Dim]]]:
        """Two normalised pictures of the test part; their number is free."""
        part = splits.test
        images = torch.stack([part.image(min(index, len(part) - 1)) for index in range(2)])
        return (normalise(images, splits.spec.size),), ({0: Dim("pictures", min=1)},)

    def list_items(self, options: ReidPredictOptions, spec: ReidSpec) -> Sequence[Item]:
        """The pictures of --input."""
        prediction.check_run(options, spec)
        return prediction.list_inputs(options.input, options.images, options.columns)

    def answer_lines(self, rows: pl.DataFrame, spec: ReidSpec) -> list[str]:
        """The class of the picture, or how its vector is used."""
        return prediction.answer_lines(rows, spec)

    def prediction_schema(self, options: ReidPredictOptions, spec: ReidSpec) -> Schema:
        """vector (or vector_ATTRIBUTE), model; of classes also prediction and probability."""
        return prediction.schema(spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        context: Context[ReidPredictOptions, ReidSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """One row per picture."""
        return prediction.predict_items(model, items, context)


def _fitted_answering(
    model: nn.Module, splits: Splits[ReidSpec, Pictures], options: ReidOptions, device: torch.device
) -> Calibration:
    """The tensors of `Answering`; none for cca and where no validation part could tell."""
    part = splits.validation
    if isinstance(model, ConditionalEmbedder):
        return {}
    if can_choose(part, "search"):
        vectors = embedding.embed_part(model, part, options, device)["vectors"]
        if answering := fit_answering(part, vectors, options.false_match):
            return answering.tensors()
    note("assumed", "a search names the nearest pictures only: no validation part for a threshold")
    return {}


def _trunk(options: ReidOptions, spec: ReidSpec, weights: str) -> Trunk:
    return build_trunk(
        spec.backbone or options.backbone,
        image=options.size,
        weights=weights,
        patch=options.patch,
        width=options.width,
        depth=options.layers,
        heads=options.heads,
        drop_path=options.drop_path,
        attention=options.attention,
        attention_options=mechanism_options(options),
        ffn=options.ffn,
        normalised_by=(MEAN, DEVIATION),
    )


def triplet_loss(
    vectors: Tensor, labels: Tensor, margin: float | None = None, group: Tensor | None = None
) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737): for each picture the farthest of
    its identity against the nearest of another one, Euclidean; margin None: the soft margin, log(1
    + exp(positive - negative)).

    vectors: (B, D); labels: int64 (B,); group: int64 (B,), pictures of other groups are no
    negatives. Pictures without a positive or a negative do not count; if no picture has both the
    loss is 0.
    """
    x = vectors.float()
    square = x.square().sum(1)
    # 16 bits of the product would leave nothing of small distances.
    with outside_autocast(x):
        product = x @ x.T
    # The square root has no gradient at 0, if a picture is in a batch twice.
    distance = (square[:, None] + square - 2 * product).clamp_min(1e-12).sqrt()
    positive = labels[:, None] == labels
    negative = ~positive if group is None else ~positive & (group[:, None] == group)
    positive = positive & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    far = distance.masked_fill(~positive, -torch.inf).amax(1)
    near = distance.masked_fill(~negative, torch.inf).amin(1)
    counts = positive.any(1) & negative.any(1)
    gap = torch.where(counts, far - near, 0.0)
    losses = F.softplus(gap) if margin is None else F.relu(gap + margin)
    return (losses * counts).sum() / counts.sum().clamp_min(1)


@torch.no_grad()
def _attention_maps(
    model: nn.Module, part: Pictures, options: ReidOptions, device: torch.device
) -> list[ReportFigure]:
    """Rollout over a few pictures; none for a model or mechanism that has no rollout."""
    dcal = attending(model)
    if dcal is None or not dcal.trunk.readable or not len(part):
        return []
    shown = np.linspace(0, len(part) - 1, min(MAPS_SHOWN, len(part))).round().astype(int)
    x = normalise(torch.stack([part.image(index) for index in shown]), options.size)
    maps = dcal.rollout(x.to(device)).float().cpu().numpy()
    names = part.names()
    return [figures.rollout(x, maps, [names[index] for index in shown])]
