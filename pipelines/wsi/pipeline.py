"""The pipeline of whole-slide images: bag models on features of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.account import note
from ...base.errors import InputError, fail, shown
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.slides.generate import write_sample_slides
from ...models.bags.acmil import ACMIL, BagModel, Bags, MaxPool, MeanPool, diversity_loss
from ...models.layers.vit import TransformerEncoder
from ..engine.mechanisms import mechanism_options
from ..engine.options import EvaluateOptions
from ..engine.pipeline import (
    Batch,
    Calibration,
    Context,
    ExportInputs,
    FreeAxes,
    Member,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.counts import factor
from ..engine.training.wrapped import call_method
from ..metrics.classification import scores, scores_with_intervals
from ..metrics.linear_baseline import linear_probabilities
from . import figures
from .data import BagSet, WsiSpec, spec_of, split
from .explain import concentration
from .options import WsiEvaluateOptions, WsiOptions, WsiPredictOptions
from .prediction import BagItem, ItemReader, PredictContext, list_inputs, predict_item, schema
from .rungs import SlideRungs
from .scoring import (
    attending,
    attention_of_bags,
    fit_baseline,
    headline_of,
    loader,
    mean_features,
    probabilities,
    score_table,
)
from .sources import EvaluatedOptions, own_feature_folder, read_source


def _note_other_parts(spec: WsiSpec, parts: Mapping[str, BagSet]) -> None:
    sizes = {name: len(part) for name, part in parts.items()}
    if sizes != dict(spec.parts):
        words = ", ".join(f"{name} {spec.parts.get(name, 0)}, now {n}" for name, n in sizes.items())
        note("items", f"the parts are not those of the training: {words}")


class SharedParts(TypedDict):
    """What all models of bags are built with."""

    inner: int
    dropout: float
    mixing: nn.Module | None
    mean: Tensor | None
    deviation: Tensor | None


class WsiPipeline(Pipeline[WsiOptions, WsiSpec, WsiPredictOptions, BagSet, BagItem]):
    """Whole-slide images."""

    monitor = "loss"
    spec_class = WsiSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated slides of two classes, two per patient, and their list."""
        return write_sample_slides(folder)

    def open_data(
        self, options: WsiOptions, spec: WsiSpec | None = None, *, as_test: bool = False
    ) -> Splits[WsiSpec, BagSet]:
        """Extract what is missing, split by patient, measure mean and deviation of the features of
        the training part.
        """
        source = read_source(options, spec)
        classes = sorted(set(source.cohort.labels)) if spec is None else spec.classes
        if len(classes) < 2:
            label = shown(classes[0])
            raise fail(source.where, f"all labels are {label}; a classifier needs two classes")
        width = source.bag(0).shape[1]
        if spec is not None and width != spec.width:
            raise fail(
                source.where, f"features have width {width}, the model was trained on {spec.width}"
            )
        if as_test:
            bags = BagSet(source, range(len(source.cohort)), classes)
            spec = spec or spec_of(source, {"train": bags}, options)
            # A slide is known by its own file and by that of its features: either will do.
            members = [source.members(row)[0] for row in bags.rows]
            return Splits(bags, bags, bags, spec, members={"test": members})
        subsets = split(source.cohort, options.seed, source.where)
        parts = {name: BagSet(source, rows, classes) for name, rows in subsets._asdict().items()}
        train = parts["train"]
        if options.class_weights:
            train.weigh_classes()
        spec = spec or spec_of(source, parts, options)
        _note_other_parts(spec, parts)
        members = {name: part.members() for name, part in parts.items()}
        return Splits(train, parts["validation"], parts["test"], spec, members=members)

    def build_model(self, options: WsiOptions, spec: WsiSpec) -> BagModel:
        """ACMIL, ABMIL, mean or max pooling."""
        mixing = None
        if options.attention != "none":
            mixing = TransformerEncoder(
                options.inner,
                depth=options.layers,
                heads=options.heads,
                attention=options.attention,
                options={options.attention: mechanism_options(options)},
                ffn=options.ffn,
                hidden=2 * options.inner,
                dropout=options.dropout,
                moe={"experts": 8, "active": 2} if options.ffn == "moe" else None,
            )
        shared: SharedParts = {
            "inner": options.inner,
            "dropout": options.dropout,
            "mixing": mixing,
            "mean": None if spec.mean is None else torch.tensor(spec.mean),
            "deviation": None if spec.deviation is None else torch.tensor(spec.deviation),
        }
        sizes = spec.width, len(spec.classes)
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

    def loss(self, model: nn.Module, batch: Batch, options: WsiOptions) -> Tensor:
        """Cross-entropy of the slide and of the branches, and the mean cosine of the branches'
        attentions (arXiv 2311.07125).
        """
        output: Bags = call_method(model, "attend", batch["x"], batch["offsets"])
        weights, share = batch.get("class_weights"), factor(batch, "weights")
        total = F.cross_entropy(output.logits, batch["labels"], weights) * share
        branch_logits = output.branch_logits
        if branch_logits is None or branch_logits.shape[1] < 2:
            return total  # ABMIL and the poolings have one classifier
        assert output.scores is not None
        branches = branch_logits.shape[1]
        labels = batch["labels"].repeat_interleave(branches)
        branch_loss = F.cross_entropy(branch_logits.flatten(0, 1), labels, weights)
        total = total + options.branch_loss * branch_loss * share
        if options.diversity:
            heads = output.scores.shape[1] // branches
            likeness = diversity_loss(output.scores, batch["offsets"], heads=heads)
            total = total + options.diversity * likeness
        return total

    def counts(self, batch: Batch, options: WsiOptions) -> Mapping[str, Tensor]:
        """The weights of the slides' classes, where there are some."""
        weights = batch.get("class_weights")
        return {} if weights is None else {"weights": weights[batch["labels"]].sum()}

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: WsiOptions
    ) -> dict[str, float]:
        """Log-loss (what early stopping goes by), AUC, balanced accuracy."""
        scored = scores(*probabilities(model, batches))
        figures_of = {name: scored[name] for name in ("auc", "balanced_accuracy")}
        return {"loss": scored["log_loss"], **figures_of}

    def rungs(self, spec: WsiSpec) -> SlideRungs:
        """Shares of the classes, a model of statistics of a bag, and the blend."""
        return SlideRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[WsiSpec, BagSet],
        options: WsiOptions,
        device: torch.device,
    ) -> Calibration:
        """The baseline, fitted on the training part."""
        return fit_baseline(splits.train, options.seed)

    def check_run(self, spec: WsiSpec, calibration: Calibration) -> None:
        """The baseline must be of the run's classes and features."""
        weight = calibration.get("baseline_weight")
        shape = None if weight is None else tuple(weight.shape)
        if shape != (needed := (len(spec.classes), spec.width)):
            raise InputError(
                f"calibration.safetensors holds a baseline of shape {shape}, the run needs {needed}"
            )

    def review(
        self, model: nn.Module, dataset: BagSet, context: Context[WsiOptions, WsiSpec]
    ) -> Review:
        """Scores with intervals by patient, compared with the baseline; calibration, attention,
        instances.
        """
        options, device, patients = context.options, context.device, dataset.patients
        batches = loader(dataset, max(options.batch_size, 8), device)
        labels, probability = probabilities(model, batches)
        baseline = linear_probabilities(mean_features(dataset), context.calibration)
        metrics = {
            **scores_with_intervals(labels, probability, patients, options.seed),
            "bags": len(dataset),
            "patients": len(set(patients.tolist())),
        }
        floor = scores_with_intervals(labels, baseline, patients, options.seed)
        table, headline = score_table(metrics, floor, "this run"), headline_of(metrics, floor)
        metrics["baselines"] = {"mean instance, logistic regression": floor}
        pictures = [figures.calibration_figure(labels, probability, baseline, dataset.classes)]
        if attention := attention_of_bags(model, dataset, device):
            top10 = [concentration(shares.mean(1), 10)[-1] for shares in attention]
            metrics["attention_top10"] = float(np.mean(top10))
            pictures += [
                figures.concentration_figure(attention),
                figures.instances_figure(
                    cast(ACMIL, attending(model)), dataset, attention, options.seed, device
                ),
                *figures.heatmap_figures(dataset, attention, probability),
            ]
        return Review(metrics, headline, pictures, {"Scores, 95 % intervals by patient": table})

    def evaluation_options(self, options: EvaluateOptions, trained: WsiOptions) -> WsiOptions:
        """As of every pipeline, and whether the encoder may be fetched."""
        assert isinstance(options, WsiEvaluateOptions)
        values = vars(super().evaluation_options(options, trained))
        return EvaluatedOptions(**{**values, "fetch_encoder": options.fetch_encoder})

    def prediction_options(self, options: WsiOptions, spec: WsiSpec) -> dict[str, object]:
        """The features that the training has extracted; the report has heatmaps already."""
        return {
            "features": own_feature_folder(options),
            "slides": options.slides,
            "columns": options.columns,
            "fetch_encoder": True,  # the user has named it
            "explain": False,
        }

    def export_example(
        self, model: nn.Module, splits: Splits[WsiSpec, BagSet]
    ) -> tuple[ExportInputs, FreeAxes]:
        """One bag; the number of its instances is free."""
        return (splits.test[0][0],), ({0: torch.export.Dim("instances", min=2)},)

    def list_items(self, options: WsiPredictOptions, spec: WsiSpec) -> Sequence[BagItem]:
        """Slides, feature files, or bags of a table."""
        return list_inputs(options, spec)

    def member(self, item: BagItem) -> Member:
        """A bag of a table by its name, a slide or feature file by its contents."""
        is_table = suffix_of(Path(item["file"])) in TABLE_SUFFIXES
        return Member(item["file"], item.get("id", "") if is_table else "")

    def answer_lines(self, rows: pl.DataFrame, spec: WsiSpec) -> list[str]:
        """The class of a slide with its probability, then those of the other classes."""
        lines = []
        for row in rows.iter_rows(named=True):
            shares = sorted(((row[f"p_{c}"], c) for c in spec.classes), reverse=True)
            listed = ", ".join(f"{name} {share:.1%}" for share, name in shares)
            lines.append(f"{row['prediction']} ({listed}), from {row['tiles']:,} tiles")
        return lines

    def prediction_schema(self, options: WsiPredictOptions, spec: WsiSpec) -> Schema:
        """prediction, p_CLASS, tiles, and the top tiles: places at level 0 and shares of the
        attention.
        """
        return schema(spec.classes)

    def predict(
        self, model: nn.Module, items: Sequence[BagItem], context: PredictContext
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each item; heatmaps are written next to the output."""
        reader, answers = ItemReader(context), []
        for item in items:
            try:
                answers.append(predict_item(cast(BagModel, model), item, reader(item), context))
            except InputError as error:
                answers.append(error)
        return answers
