"""Figures of the report: calibration, concentration of attention, heatmaps, embedded instances.

Shapes: N bags, n instances of a bag, C classes, K branches of attention. labels: int (N,);
probability: (N, C); attention: (n, K) for each bag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from ...models.bags.acmil import ACMIL
from ..engine.experiments.table import draw_values
from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_confusion, draw_reliability, draw_roc, finish_roc
from ..figures.style import BLUE, GREY, MEDIUM, ROW, SMALL, WIDE, bare, plain_ticks, styled_figure
from .data import BagSet
from .explain import concentration, heatmap, open_slide
from .sources import SlideBags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_INSTANCES = 1000  # of the map of instances
SHOWN_SLIDES = 4  # with heatmaps in the report


def calibration_figure(
    labels: np.ndarray, probability: np.ndarray, baseline: np.ndarray, classes: Sequence[str]
) -> ReportFigure:
    """Reliability and ROC curves of the model and of the baseline, and the model's confusion."""
    curves = {"this run": (probability, BLUE), "baseline": (baseline, GREY)}
    with styled_figure(WIDE, ROW) as figure:
        reliability_axes, roc_axes, confusion_axes = figure.subplots(1, 3)
        draw_reliability(reliability_axes, labels, curves)
        for name, (values, colour) in curves.items():
            names = [f"{name}, {label}" for label in classes]
            draw_roc(roc_axes, labels, values, names, colour)
        finish_roc(roc_axes)
        draw_confusion(confusion_axes, labels, probability, classes)
    caption = "Reliability, ROC curves and confusion on this part"
    return ReportFigure("calibration", caption, figure)


def concentration_figure(attention: Sequence[np.ndarray]) -> ReportFigure:
    """Share of the attention that the k highest instances of a bag hold, for each k."""
    curves = np.stack([concentration(shares.mean(1)) for shares in attention])
    even = np.stack([concentration(np.full(len(s), 1 / len(s))) for s in attention])
    k = np.arange(1, curves.shape[1] + 1)
    with styled_figure(MEDIUM, ROW) as figure:
        axes = figure.subplots()
        axes.fill_between(k, *np.quantile(curves, [0.1, 0.9], axis=0), color=BLUE, alpha=0.2, lw=0)
        axes.plot(k, curves.mean(0), label="model (mean, 10 to 90 % of the slides)")
        axes.plot(k, even.mean(0), ":", color=GREY, label="even attention")
        axes.set(
            xlabel="instances of highest attention",
            ylabel="share of the attention",
            xscale="log",
            ylim=(0, 1.02),
        )
        plain_ticks(axes.xaxis)
        axes.legend()
    caption = "How many instances hold the attention (ACMIL, figure 1)"
    return ReportFigure("concentration", caption, figure)


def heatmap_figures(
    bags: BagSet, attention: Sequence[np.ndarray], probability: np.ndarray
) -> list[ReportFigure]:
    """Some slides with what the model looked at; none for bags of a table."""
    source = bags.source
    if not isinstance(source, SlideBags):
        return []
    pictures = []
    for number, k in enumerate(_surest_of_each_class(bags, probability), 1):
        name, label = bags.names[k], bags.classes[bags.labels[k]]
        stored = source.stored(name)
        if not stored.can_be_drawn:
            continue
        predicted = bags.classes[int(probability[k].argmax())]
        headline = f"{name}: labelled {label}, predicted {predicted} ({probability[k].max():.0%})"
        slide = open_slide(source.slides.get(name))
        sheet = heatmap(stored, attention[k], slide, headline)
        if slide is not None:
            slide.close()
        with styled_figure(MEDIUM, MEDIUM * sheet.height / sheet.width) as figure:
            axes = figure.subplots()
            axes.imshow(np.asarray(sheet))
            axes.set_axis_off()
        pictures.append(ReportFigure(f"heatmap-{number}", headline, figure, is_answer=True))
    return pictures


def _surest_of_each_class(bags: BagSet, probability: np.ndarray) -> list[int]:
    """The bags to show: of each class in turn, the most confident predictions first."""
    by_confidence = np.argsort(-probability.max(1), kind="stable").tolist()
    by_class = [
        [k for k in by_confidence if bags.labels[k] == label] for label in range(len(bags.classes))
    ]
    in_turn = [
        members[place]
        for place in range(SHOWN_SLIDES)
        for members in by_class
        if place < len(members)
    ]
    return in_turn[:SHOWN_SLIDES]


@torch.no_grad()
def instances_figure(
    model: ACMIL, bags: BagSet, attention: Sequence[np.ndarray], seed: int, device: torch.device
) -> ReportFigure:
    """t-SNE of embedded instances, equally many from each bag: labels of the slides, attention."""
    from sklearn.manifold import TSNE

    generator = np.random.default_rng(seed)
    count = max(1, SHOWN_INSTANCES // len(bags))
    points, heats, labels = [], [], []
    for k, shares in enumerate(attention):
        rows = generator.permutation(len(shares))[:count]
        embedded = model.embed(bags[k][0][torch.from_numpy(rows)].to(device))
        points.append(embedded.float().cpu().numpy())
        heats.append(shares.mean(1)[rows] * len(shares))
        labels.append(np.full(len(rows), bags.labels[k]))
    point, heat, label = np.concatenate(points), np.concatenate(heats), np.concatenate(labels)
    with styled_figure(WIDE, 3.4, grid=False) as figure:
        label_axes, heat_axes = figure.subplots(1, 2)
        if len(point) > 5:
            perplexity = min(30.0, (len(point) - 1) / 3)
            place = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(point)
            for number, name in enumerate(bags.classes):
                label_axes.scatter(*place[label == number].T, s=5, label=name)
            label_axes.legend(fontsize=SMALL, title="label of the slide", title_fontsize=SMALL)
            dots = heat_axes.scatter(*place.T, s=5, c=np.minimum(heat, 10), cmap="turbo")
            figure.colorbar(dots, ax=heat_axes, label="attention, even shares (10: or more)")
        bare(label_axes)
        bare(heat_axes)
    caption = f"t-SNE of {len(point)} embedded instances: slide labels, attention"
    return ReportFigure("instances", caption, figure)


def crossval_figure(summary: pl.DataFrame, floors: Sequence[str]) -> Figure:
    """AUC and accuracy of each model with the deviation over repeats; floors: the simple models."""
    models = summary["model"].to_list()
    colours = [GREY if model in floors else BLUE for model in models]
    with styled_figure(WIDE, 0.45 * len(summary) + 1.2) as figure:
        for axes, name in zip(figure.subplots(1, 2, sharey=True), ("accuracy", "auc")):
            draw_values(axes, models, summary[name], summary[f"{name}_sd"], colours)
            axes.set_xlabel(f"{name}, mean and deviation over repeats")
    return figure
