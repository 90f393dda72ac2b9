"""Loss, scores by patient beside a baseline, and the pictures of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from ...models.bags.acmil import ACMIL, Bags, diversity_loss
from ..engine.pipeline import ReportFigure, Review
from ..engine.training import order
from ..figures.classifier import (
    draw_confusion,
    draw_reliability,
    draw_roc,
    finish_roc,
    with_interval,
)
from ..metrics.classification import bootstrap, scores
from ..metrics.linear_baseline import fit_linear_baseline
from .data import BagSet
from .explain import concentration, heatmap, open_slide
from .verbs.features import stored

SHOWN_INSTANCES = 1000  # of the map of instances
SHOWN_SLIDES = 4  # with heatmaps in the report


def loss(model: nn.Module, batch: dict[str, Tensor], options: Any) -> Tensor:
    """Cross-entropy of the slide, of the branches, and the mean cosine of their attentions (arXiv
    2311.07125).
    """
    found: Bags = model.attend(batch["x"], batch["offsets"])  # pyright: ignore[reportCallIssue]
    weights = batch.get("class_weights")
    total = F.cross_entropy(found.logits, batch["labels"], weights)
    if (
        found.branch_logits is None or found.branch_logits.shape[1] < 2
    ):  # ABMIL and the poolings have one classifier
        return total
    assert found.scores is not None
    branches = found.branch_logits.shape[1]
    labels = batch["labels"].repeat_interleave(branches)
    total = total + options.branch_loss * F.cross_entropy(
        found.branch_logits.flatten(0, 1), labels, weights
    )
    if options.diversity:
        heads = found.scores.shape[1] // branches
        total = total + options.diversity * diversity_loss(
            found.scores, batch["offsets"], heads=heads
        )
    return total


@torch.no_grad()
def probabilities(model: nn.Module, batches: Any) -> tuple[np.ndarray, np.ndarray]:
    """labels (N,) and probability (N, C) over batches of bags."""
    labels, found = [], []
    for batch in batches:
        logits = model(batch["x"], batch["offsets"])
        labels.append(batch["labels"].cpu())
        found.append(logits.float().softmax(1).cpu())
    return torch.cat(labels).numpy(), torch.cat(found).numpy()


def validate(model: nn.Module, batches: Any) -> dict[str, float]:
    """Log-loss (what early stopping goes by), AUC, balanced accuracy."""
    found = scores(*probabilities(model, batches))
    return {
        "loss": found["log_loss"],
        **{name: found[name] for name in ("auc", "balanced_accuracy")},
    }


def mean_features(bags: BagSet) -> np.ndarray:
    """Mean of the instances of each bag: (B, D)."""
    return np.stack([bags[k][0].double().mean(0).numpy() for k in range(len(bags))])


def fit_baseline(bags: BagSet, seed: int) -> dict[str, Tensor]:
    """Logistic regression (scikit-learn) on the mean instance, standardised: its weights (C, D) and
    bias (C,).
    """
    return fit_linear_baseline(
        mean_features(bags),
        bags.labels,
        len(bags.classes),
        inverse_penalty=0.05,
        iterations=2000,
        seed=seed,
        standardise=True,
    )


def review(
    model: nn.Module,
    bags: BagSet,
    calibration: dict[str, Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> Review:
    """Scores with intervals by patient beside the baseline; calibration, attention, instances."""
    loader = order.loader(bags, order.sequential(len(bags), max(options.batch_size, 8)))
    moved = ({name: value.to(device) for name, value in batch.items()} for batch in loader)
    labels, probability = probabilities(model, moved)
    base = F.softmax(
        torch.from_numpy(mean_features(bags)) @ calibration["baseline_weight"].T
        + calibration["baseline_bias"],
        1,
    ).numpy()
    own = _scored(labels, probability, bags.patients, options.seed)
    beside = _scored(labels, base, bags.patients, options.seed)
    own["bags"], own["patients"] = len(bags), len(set(bags.patients.tolist()))
    metrics = {**own, "baselines": {"mean instance, logistic regression": beside}}
    rows = [
        {
            "score": name,
            options.model: with_interval(own, name),
            "logistic regression of the mean instance": with_interval(beside, name),
        }
        for name in own["intervals"]
    ]
    pictures = [_calibration(labels, probability, base, bags.classes)]
    attention = _attention(model, bags, device)
    if attention:
        metrics["attention_top10"] = float(
            np.mean([concentration(a.mean(1), 10)[-1] for a in attention])
        )
        pictures += [
            _concentration(attention),
            _instances(model, bags, attention, options.seed, device),
        ]
        pictures += _heatmaps(bags, attention, probability, spec["mpp"])
    headline = (
        f"{len(bags)} slides or bags of {own['patients']} patients: AUC {with_interval(own, 'auc')}, balanced accuracy "
        f"{with_interval(own, 'balanced_accuracy')}; baseline AUC {with_interval(beside, 'auc')}"
    )
    table = pl.DataFrame(rows)
    return Review(metrics, headline, pictures, {"Scores, 95 % intervals by patient": table})


def _scored(
    labels: np.ndarray, probability: np.ndarray, patients: np.ndarray, seed: int
) -> dict[str, Any]:
    intervals = bootstrap(labels, probability, patients, seed=seed)
    return {
        **scores(labels, probability),
        "intervals": {name: list(ends) for name, ends in intervals.items()},
    }


@torch.no_grad()
def _attention(model: nn.Module, bags: BagSet, device: torch.device) -> list[np.ndarray]:
    """Attention (n, K) of each bag; nothing for a model without."""
    if not isinstance(model, ACMIL):
        return []
    found = []
    for k in range(len(bags)):
        scores_of = model.attend(bags[k][0].to(device)).scores
        assert scores_of is not None
        found.append(model.attention_of(scores_of).float().cpu().numpy())
    return found


def _calibration(
    labels: np.ndarray, probability: np.ndarray, base: np.ndarray, classes: list[str]
) -> ReportFigure:
    drawn = Figure(figsize=(9.5, 3.1), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    curves = {"model": (probability, "C0"), "baseline": (base, "0.6")}
    draw_reliability(left, labels, curves)
    for name, (given, colour) in curves.items():
        draw_roc(
            middle, labels, given, [f"{name}, {one}" for one in classes], color=colour, alpha=0.9
        )
    finish_roc(middle)
    draw_confusion(right, labels, probability, classes)
    return ReportFigure("calibration", "Reliability, ROC curves and confusion on this part", drawn)


def _concentration(attention: list[np.ndarray]) -> ReportFigure:
    drawn = Figure(figsize=(5.5, 2.8), layout="constrained")
    axis = drawn.subplots()
    curves = np.stack([concentration(a.mean(1)) for a in attention])
    even = np.stack([concentration(np.full(len(a), 1 / len(a))) for a in attention])
    k = np.arange(1, curves.shape[1] + 1)
    axis.fill_between(k, *np.quantile(curves, [0.1, 0.9], axis=0), alpha=0.2)
    axis.plot(k, curves.mean(0), label="model (mean, 10 to 90 % of the slides)")
    axis.plot(k, even.mean(0), ":", color="0.5", label="even attention")
    axis.set(
        xlabel="instances of highest attention",
        ylabel="share of the attention",
        xscale="log",
        ylim=(0, 1.02),
    )
    axis.legend(frameon=False, fontsize=8)
    return ReportFigure(
        "concentration", "How many instances hold the attention (ACMIL, figure 1)", drawn
    )


def _heatmaps(
    bags: BagSet, attention: list[np.ndarray], probability: np.ndarray, mpp: float | None
) -> list[ReportFigure]:
    """Some slides with what the model looked at: of each class in turn, the surest first."""
    source = bags.source
    if source.folder is None:
        return []
    order_of = np.argsort(-probability.max(1), kind="stable")
    by_class = [[k for k in order_of if bags.labels[k] == c] for c in range(len(bags.classes))]
    chosen = [
        group[place] for place in range(SHOWN_SLIDES) for group in by_class if place < len(group)
    ][:SHOWN_SLIDES]
    pictures = []
    for k in chosen:
        name = bags.names[k]
        said = bags.classes[int(probability[k].argmax())]
        headline = f"{name}: labelled {bags.classes[bags.labels[k]]}, predicted {said} ({probability[k].max():.0%})"
        slide = open_slide((source.slides or {}).get(name), mpp)
        sheet = heatmap(stored(source.folder, name), attention[k], slide, headline)
        if slide is not None:
            slide.close()
        drawn = Figure(figsize=(7, 7 * sheet.height / sheet.width), layout="constrained")
        axis = drawn.subplots()
        axis.imshow(np.asarray(sheet))
        axis.set_axis_off()
        pictures.append(ReportFigure(f"heatmap-{len(pictures) + 1}", headline, drawn))
    return pictures


@torch.no_grad()
def _instances(
    model: ACMIL | nn.Module,
    bags: BagSet,
    attention: list[np.ndarray],
    seed: int,
    device: torch.device,
) -> ReportFigure:
    """t-SNE of embedded instances, as many of each bag."""
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(seed)
    each = max(1, SHOWN_INSTANCES // len(bags))
    points, heat, label = [], [], []
    for k, share in enumerate(attention):
        rows = generator.permutation(len(share))[:each]
        embedded = model.embed(bags[k][0][torch.from_numpy(rows)].to(device))  # pyright: ignore[reportCallIssue]
        points.append(embedded.float().cpu().numpy())
        heat.append(share.mean(1)[rows] * len(share))
        label.append(np.full(len(rows), bags.labels[k]))
    given, heat, label = np.concatenate(points), np.concatenate(heat), np.concatenate(label)
    drawn = Figure(figsize=(8.5, 3.4), layout="constrained")
    left, right = drawn.subplots(1, 2)
    if len(given) > 5:
        perplexity = min(30.0, (len(given) - 1) / 3)
        place = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(given)
        for c, name in enumerate(bags.classes):
            left.scatter(*place[label == c].T, s=5, label=name)
        left.legend(frameon=False, fontsize=7, title="label of the slide", title_fontsize=7)
        dots = right.scatter(*place.T, s=5, c=np.minimum(heat, 10), cmap="turbo")
        drawn.colorbar(dots, ax=right, label="attention, even shares (10: or more)")
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    return ReportFigure(
        "instances", f"t-SNE of {len(given)} embedded instances: slide labels, attention", drawn
    )
