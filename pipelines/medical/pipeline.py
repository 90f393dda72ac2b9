"""Chest X-rays with MEDUSA-style attention, and an audit of what else the label can be read from.
Research software, not for clinical use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from scipy.special import softmax
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.xrays.generate import SAMPLE, write_sample_xrays
from ...data.xrays.layouts import has_lists
from ...models.layers.encoders import fitting, read_weights
from ...models.layers.label_losses import ClassLoss, Imbalance, LabelLoss
from ...models.layers.pyramid import SMALL
from ...models.vision.medusa import Medusa, build_medusa
from ..engine.command_line.terminal import say
from ..engine.inference.batches import predict_in_batches
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Calibration,
    Context,
    Member,
    Metrics,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.training.optimizer import adam
from ..engine.training.order import Batch
from ..engine.training.wrapped import plain_model
from ..engine.weights import initial_weights, resolve_weights, tune_backbone, weights_for
from ..metrics import classification
from ..metrics.operating import choose_threshold, fit_temperature
from . import figures
from .audit import audit
from .augment import DEVIATION, MEAN, augment, normalise
from .data import SeveralXrays, XrayPart, Xrays, member_of, open_splits
from .options import MedicalOptions, MedicalPredictOptions
from .prediction import (
    PredictContext,
    PreparedXray,
    XrayItem,
    answer,
    attending,
    is_part,
    list_items,
    medusa,
    own_prediction,
    predict_batch,
    read_item,
    schema,
)
from .rungs import PREFERRED, ClassRungs, probed_encoder
from .scoring import (
    decided,
    headline_of,
    logits_of,
    looked_at,
    patient_scores,
    shown_picture,
    shown_places,
    tables_of,
    uniform_scores,
)
from .several.learning import calibrate_findings, check_calibration, epoch_figures, findings_loss
from .several.prediction import findings_answer, predict_findings
from .several.rungs import FindingRungs
from .several.scoring import review_findings
from .spec import MedicalSpec


class MedicalPipeline(
    Pipeline[MedicalOptions, MedicalSpec, MedicalPredictOptions, XrayPart, XrayItem]
):
    """Classification of chest X-rays."""

    monitor = "loss"
    spec_class = MedicalSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated X-rays with a list, lung masks and boxes."""
        return write_sample_xrays(folder)

    def open_data(
        self, options: MedicalOptions, spec: MedicalSpec | None = None, *, as_test: bool = False
    ) -> Splits[MedicalSpec, XrayPart]:
        """Read the list of pictures and split it by patient."""
        if spec is not None:
            return open_splits(options, spec, as_test=as_test)
        name = weights_for(options.weights, options.data, SAMPLE)
        weights = resolve_weights(
            name, "pyramid", backbone=options.backbone, scratch=SMALL, prefer=PREFERRED
        )
        splits = open_splits(options, as_test=as_test)
        if weights.architecture == options.backbone:
            return splits
        return replace(splits, spec=replace(splits.spec, backbone=weights.architecture))

    def build_model(self, options: MedicalOptions, spec: MedicalSpec) -> Medusa:
        """The classifier with its attention; `ValueError` for options that do not fit together."""
        model = _build(options, spec, "random")
        kind = imbalance_of(options, spec)
        counts = torch.tensor(spec.counts or [0] * len(spec.classes))
        model.objective = (
            LabelLoss(kind, counts, torch.tensor(spec.known or [0] * len(spec.classes)))
            if spec.several
            else ClassLoss(kind, counts)
        )
        return model

    def load_initial_weights(
        self, model: nn.Module, options: MedicalOptions, spec: MedicalSpec
    ) -> None:
        """Load the weights of the backbone and of the body that the options name.

        Raises InputError for weights that are missing or do not fit.
        """
        plain = medusa(model)
        try:
            backbone = spec.backbone or options.backbone
            resolved = initial_weights(
                options.weights, "pyramid", built=backbone, scratch=SMALL, prefer=PREFERRED
            )
            if resolved.pretrained:
                state = _build(options, spec, resolved.argument).backbone.state_dict()
                plain.backbone.load_state_dict(state)
            tune_backbone(plain.backbone, options.tune, pretrained=resolved.pretrained)
            if options.body is not None and plain.body is not None:
                weights, missing = fitting(plain.body, read_weights(Path(options.body)))
                if missing:
                    raise ValueError(
                        f"{options.body}: weights of another body; it lacks {missing[0]}; "
                        "--body-width must be the same"
                    )
                plain.body.load_state_dict(weights, strict=False)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"medical: {error}") from None

    def optimizer(self, model: nn.Module, options: MedicalOptions) -> torch.optim.Optimizer:
        """AdamW, or Adam without weight decay; a body with weights of its own learns at its share
        of the learning rate."""
        plain = medusa(model)
        trained_body = plain.body if options.body is not None else None
        body = [] if trained_body is None else list(trained_body.parameters())
        in_body = set(map(id, body))
        others = [weight for weight in plain.parameters() if id(weight) not in in_body]
        groups = [{"params": others, "share": 1.0}]
        if body:
            groups.append({"params": body, "share": options.body_share})
        return adam(groups, options)

    def loss(self, model: nn.Module, batch: Batch, options: MedicalOptions) -> Tensor:
        """Loss of classes on pictures that are varied at random; of several findings, of each."""
        logits = model(*augment(batch["picture"], batch["small"], options))
        objective = plain_model(model).objective
        if isinstance(objective, LabelLoss):
            return findings_loss(logits, batch, objective)
        assert isinstance(objective, ClassLoss)
        return objective.mean(logits, batch["label"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: MedicalOptions
    ) -> dict[str, float]:
        """Log-loss, AUC and balanced accuracy; of several findings, the means of the first two."""
        if options.findings:
            return epoch_figures(
                (model(*normalise(batch["picture"], batch["small"])), batch) for batch in batches
            )
        logits, labels = [], []
        for batch in batches:
            logits.append(model(*normalise(batch["picture"], batch["small"])).float().cpu())
            labels.append(batch["label"].cpu())
        probability = torch.cat(logits).softmax(1).double().numpy()
        scores = classification.scores(torch.cat(labels).numpy(), probability)
        return {
            "loss": scores["log_loss"],
            "auc": scores["auc"],
            "balanced_accuracy": scores["balanced_accuracy"],
        }

    def rungs(self, spec: MedicalSpec) -> ClassRungs | FindingRungs:
        """Shares, a linear model of frozen features or of pixels, and the blend."""
        return FindingRungs() if spec.several else ClassRungs()

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[MedicalSpec, XrayPart],
        options: MedicalOptions,
        device: torch.device,
    ) -> Calibration:
        """Temperature and operating point, chosen on the validation part; of each finding."""
        part, positive = splits.validation, splits.spec.positive
        logits = logits_of(model, part, device, options.workers)
        if isinstance(part, SeveralXrays):
            return calibrate_findings(part.truth, part.known, logits, options.sensitivity)
        assert isinstance(part, Xrays)
        temperature = fit_temperature(part.labels, logits)
        probability = softmax(logits / temperature, axis=1)[:, positive]
        threshold = choose_threshold(part.labels == positive, probability, options.sensitivity)
        return {"temperature": torch.tensor(temperature), "threshold": torch.tensor(threshold)}

    def check_run(self, spec: MedicalSpec, calibration: Calibration) -> None:
        """Temperature and operating point must be one number each, or one for each finding."""
        if spec.several:
            return check_calibration(calibration, len(spec.classes))
        for name in ("temperature", "threshold"):
            if name not in calibration or calibration[name].numel() != 1:
                raise InputError(f"calibration.safetensors holds no {name}")

    def review(
        self, model: nn.Module, dataset: XrayPart, context: Context[MedicalOptions, MedicalSpec]
    ) -> Review:
        """Scores by patient, calibration, attention, and the audit for shortcuts."""
        if isinstance(dataset, SeveralXrays):
            return review_findings(model, dataset, context)
        assert isinstance(dataset, Xrays)
        options, spec = context.options, context.spec
        temperature = float(context.calibration["temperature"])
        threshold = float(context.calibration["threshold"])
        logits = logits_of(model, dataset, context.device, options.workers)
        raw, probability = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
        scores = patient_scores(dataset, probability, spec.positive, threshold, options.seed)
        shown = shown_places(dataset, probability)
        maps, looked = looked_at(model, dataset, probability, shown, context)
        encoder = probed_encoder(model)
        report = audit(dataset, probability, scores.values["auc"], options.seed, encoder)
        if report.readable:
            say(report.sentences[0])
        metrics: Metrics = {
            **scores.values,
            "intervals": scores.intervals,
            "pictures": len(dataset),
            "patients": len(set(dataset.column("patients"))),
            "temperature": temperature,
            "threshold": threshold,
            "ece_before": classification.scores(dataset.labels, raw)["ece"],
            "baselines": {"every class alike": uniform_scores(dataset, probability)},
            "looked": looked,
            "audit": report.to_json(),
        }
        positive = spec.classes[spec.positive]
        pictures = [
            figures.calibration(
                dataset.labels, raw, probability, spec.classes, spec.positive, threshold
            )
        ]
        if report.probes:
            pictures.append(figures.shortcuts(report.probes, scores.values["auc"]))
        if shown and maps:
            predicted = decided(probability, spec.positive, threshold)
            chosen = [
                shown_picture(dataset, probability, predicted, place, maps[place])
                for place in shown
            ]
            pictures.append(figures.looked(chosen, is_part=is_part(model)))
        headline = headline_of(scores, dataset, positive, report.sentences[0])
        has_maps = attending(model) is not None
        tables = tables_of(scores, positive, looked, report, has_maps=has_maps)
        return Review(metrics, headline, pictures, tables)

    def unused_for(self, data: str) -> tuple[str, ...]:
        """Folders by class have neither columns nor another folder of pictures."""
        by_class = Path(data).is_dir() and not has_lists(Path(data))
        return ("columns", "images") if by_class else ()

    def prediction_options(self, options: MedicalOptions, spec: MedicalSpec) -> dict[str, object]:
        """No explanations, since the report has pictures already; and where the pictures lie."""
        return own_prediction(options)

    def export_example(
        self, model: nn.Module, splits: Splits[MedicalSpec, XrayPart]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Mapping[int, object], ...]]:
        """Two normalised pictures of the test part at both sizes; their number is free."""
        part = splits.test
        samples = [part[min(k, len(part) - 1)] for k in range(2)]
        picture = torch.stack([sample["picture"] for sample in samples])
        small = torch.stack([sample["small"] for sample in samples])
        count = torch.export.Dim("pictures", min=1)
        return normalise(picture, small), ({0: count}, {0: count})

    def member(self, item: XrayItem) -> Member:
        """The picture of the training's data that an item would be."""
        return member_of(item["file"], item.get("id", ""), item["place"])

    def answer_lines(self, rows: pl.DataFrame, spec: MedicalSpec) -> list[str]:
        """Class and probabilities of one picture, or findings and theirs."""
        return findings_answer(rows, spec) if spec.several else answer(rows, spec)

    def list_items(self, options: MedicalPredictOptions, spec: MedicalSpec) -> Sequence[XrayItem]:
        """Pictures and DICOM files."""
        return list_items(options)

    def prediction_schema(self, options: MedicalPredictOptions, spec: MedicalSpec) -> Schema:
        """prediction, p_CLASS, positive, view; or prediction, probability_FINDING, view."""
        return schema(options, spec)

    def predict(
        self, model: nn.Module, items: Sequence[XrayItem], context: PredictContext
    ) -> list[pl.DataFrame | ValueError]:
        """One row per picture, and a picture of where the model looked."""

        def read(item: XrayItem) -> PreparedXray:
            return read_item(item, context.spec)

        def predict(items: Sequence[XrayItem], xrays: Sequence[PreparedXray]) -> list[pl.DataFrame]:
            if context.spec.several:
                return predict_findings(model, items, xrays, context)
            return predict_batch(model, items, xrays, context)

        return predict_in_batches(items, read, predict, context.options.batch_size)


def _build(options: MedicalOptions, spec: MedicalSpec, weights: str) -> Medusa:
    return build_medusa(
        spec.backbone or options.backbone,
        len(spec.classes),
        weights=weights,
        normalised_by=(MEAN, DEVIATION),
        attention=options.attention,
        attention_options=mechanism_options(options),
        ffn=options.ffn,
        sees=options.sees,
        form=options.form,
        body_width=options.body_width,
        head_width=options.head_width,
        dropout=options.dropout,
        diverse=options.imbalance == "diverse",
    )


def imbalance_of(options: MedicalOptions, spec: MedicalSpec) -> Imbalance:
    """How rare classes are helped; of a run of an older version, which has nothing to go by unless
    it is resumed, as it was.
    """
    if options.class_weights and spec.counts:
        return "pos-weight"
    return options.imbalance
