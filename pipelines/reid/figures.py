"""Figures of re-identification: match curves, ranked lists, how similar pairs are, rollout over
pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.pipeline import ReportFigure
from ..figures.classifier import draw_reliability
from ..figures.style import BLUE, NARROW, ORANGE, SMALL, styled_figure
from .augment import denormalised
from .pictures import DISTRACTOR, JUNK, Pictures
from .protocol import SearchScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, WRONG, QUERY = "#2a9d3a", "#d1372c", "#333333"
LISTS, LENGTH = 8, 8  # ranked lists shown, and pictures in each
MISTAKES = 16  # pictures shown
MOST_LABELS = 40  # classes that the axes of the confusion matrix name


class Tile(NamedTuple):
    """A framed picture of a mosaic: uint8 (3, Y, X), the colour of its frame, and a title."""

    image: Tensor
    colour: str
    title: str


def mosaic(rows: Sequence[Sequence[Tile]], columns: int) -> Figure:
    """Rows of framed pictures, each of at most `columns`."""
    _, tall, wide = rows[0][0].image.shape
    height = 1.05 * min(2.0, max(0.7, tall / wide)) + 0.28
    with styled_figure(1.1 * columns, height * len(rows), grid=False) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, tiles in zip(grid, rows, strict=True):
            for axis in axes[len(tiles) :]:
                axis.axis("off")
            for axis, tile in zip(axes, tiles):
                axis.set(xticks=[], yticks=[])
                axis.imshow(tile.image.permute(1, 2, 0).numpy())
                axis.set_title(tile.title, fontsize=SMALL, color=tile.colour, pad=2, loc="center")
                for spine in axis.spines.values():
                    spine.set(color=tile.colour, linewidth=2.5, visible=True)
    return figure


def match_curves(curves: dict[str, np.ndarray]) -> ReportFigure:
    """Cumulative match characteristic."""
    with styled_figure(NARROW, 3.6) as figure:
        axes = figure.subplots()
        for name, curve in curves.items():
            shown = curve[:20]
            axes.plot(np.arange(1, len(shown) + 1), shown, marker="o", markersize=3, label=name)
        axes.set(xlabel="rank", ylabel="queries with a match up to it", ylim=(0, 1.02))
        axes.legend()
    text = "Cumulative match characteristic: share of the queries with a match up to a rank."
    return ReportFigure("cmc", text, figure)


def ranked_lists(part: Pictures, searched: SearchScores) -> list[ReportFigure]:
    """The nearest pictures of some queries: half of them evenly spaced, half those with the lowest
    precision."""
    precision = searched.scores.ap
    counted = np.flatnonzero(np.isfinite(precision))
    if not len(counted):
        return []
    places = np.linspace(0, len(counted) - 1, min(LISTS // 2, len(counted))).round().astype(int)
    worst = counted[np.argsort(precision[counted], kind="stable")][: LISTS // 2]
    chosen = list(dict.fromkeys([*counted[places].tolist(), *worst.tolist()]))
    rows = [_ranked_list(part, searched, query) for query in chosen]
    text = (
        "Ranked lists: the query at the left, then the nearest pictures, best first, with cosine "
        "similarities. Green: the same identity, red: another. The lower half are the worst "
        "queries."
    )
    return [ReportFigure("ranked-lists", text, mosaic(rows, LENGTH + 1), is_answer=True)]


def _ranked_list(part: Pictures, searched: SearchScores, query: int) -> list[Tile]:
    """The query and its nearest pictures, without those that do not count."""
    everything = np.arange(len(part))
    place = int((part.query if part.ranked else everything)[query])
    gallery = part.gallery if part.ranked else everything
    labels = part.labels[gallery]
    ignored = labels == JUNK
    if searched.cameras_used and part.cameras is not None:
        same_camera = part.cameras[gallery] == part.cameras[place]
        ignored |= (labels == part.labels[place]) & same_camera
    if not part.ranked:
        ignored[query] = True
    distance = np.where(ignored, np.inf, searched.distance[query])
    tiles = [Tile(part.image(place), QUERY, f"AP {searched.scores.ap[query]:.2f}")]
    for k in np.argsort(distance, kind="stable")[:LENGTH]:
        if np.isfinite(distance[k]):
            right = labels[k] == part.labels[place] != DISTRACTOR
            similarity = f"{1 - distance[k]:.3f}"
            tiles.append(Tile(part.image(int(gallery[k])), RIGHT if right else WRONG, similarity))
    return tiles


def similarities(
    part: Pictures, searched: SearchScores, threshold: float | None = None
) -> ReportFigure:
    """Similarities of pairs of one identity and of two, and the threshold of the run."""
    from matplotlib.ticker import MaxNLocator

    query = part.labels[part.query] if part.ranked else part.labels
    gallery = part.labels[part.gallery] if part.ranked else part.labels
    same = (query[:, None] == gallery) & (query[:, None] > 0)
    counts = np.isfinite(searched.distance) & (gallery != JUNK)[None]
    if not part.ranked:
        counts &= ~np.eye(len(query), dtype=bool)
    with styled_figure(NARROW, 3.2) as figure:
        axes = figure.subplots()
        for name, pairs in (("one identity", same & counts), ("two identities", ~same & counts)):
            if pairs.any():
                values = 1 - searched.distance[pairs]
                axes.hist(values, bins=60, density=True, histtype="step", label=name)
        if threshold is not None:
            axes.axvline(threshold, color=QUERY, linestyle="--", linewidth=1, label="threshold")
        axes.set(xlabel="cosine similarity", ylabel="density")
        axes.xaxis.set_major_locator(MaxNLocator(6))  # more labels than that overlap
        axes.legend()
    text = (
        "Cosine similarities of pairs of pictures. Where the two overlap, a threshold errs in one "
        "way or the other."
    )
    return ReportFigure("similarities", text, figure)


def blended(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map (y, x) over a picture (Y, X, 3) in [0, 1]: the patches that count least are
    grey."""
    from matplotlib import colormaps

    sized = F.interpolate(
        torch.from_numpy(heat)[None, None].float(), image.shape[:2], mode="bicubic"
    )[0, 0].numpy()
    low, high = np.quantile(sized, [0.02, 0.98])
    level = np.clip((sized - low) / max(high - low, 1e-12), 0, 1)
    grey = image.mean(2, keepdims=True)
    share = 0.65 * level[..., None]
    background = (1 - share) * (0.5 * image + 0.5 * grey)
    return np.clip(background + share * colormaps["inferno"](level)[..., :3], 0, 1)


def rollout(images: Tensor, maps: np.ndarray, names: list[str]) -> ReportFigure:
    """Attention rollout under each picture; images: (B, 3, Y, X), normalised; maps: (B, rows,
    columns)."""
    height = 0.5 + 2.8 * images.shape[2] / images.shape[3]
    with styled_figure(1.4 * len(images), height, grid=False) as figure:
        axes = figure.subplots(2, len(images), squeeze=False)
        for k, (image, heat, name) in enumerate(zip(images, maps, names)):
            plain = denormalised(image)
            axes[0, k].imshow(plain)
            axes[1, k].imshow(blended(plain, heat))
            axes[0, k].set_title(name.rsplit("/", 1)[-1][:18], fontsize=6, loc="center")
            for axis in axes[:, k]:
                axis.axis("off")
    text = (
        "Attention rollout of the class token: the patches that contribute most to its final "
        "value, by the softmaxes of all layers. It shows where the model looked, not why it "
        "decided."
    )
    return ReportFigure("rollout", text, figure)


def confusion(labels: np.ndarray, probability: np.ndarray, classes: list[str]) -> ReportFigure:
    """Shares of the predicted classes in each true class."""
    count = np.zeros((len(classes), len(classes)))
    np.add.at(count, (labels, probability.argmax(1)), 1)
    side = min(9.0, 2.2 + 0.28 * len(classes))
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    with styled_figure(side, side, grid=False) as figure:
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if len(classes) <= MOST_LABELS:
            axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=6)
            axes.set_yticks(range(len(classes)), classes, fontsize=6)
        axes.set(xlabel="predicted", ylabel="true")
    text = "Share of each true class that was predicted as each class."
    return ReportFigure("confusion", text, figure)


def calibration(labels: np.ndarray, probability: np.ndarray, baseline: np.ndarray) -> ReportFigure:
    """How often predictions are right, against their probability."""
    curves = {"model": (probability, BLUE), "colours alone": (baseline, ORANGE)}
    with styled_figure(4.2, 3.8) as figure:
        draw_reliability(figure.subplots(), labels, curves)
    text = "Reliability: below the line the model is surer than it should be."
    return ReportFigure("calibration", text, figure)


def mistakes(part: Pictures, probability: np.ndarray, classes: list[str]) -> list[ReportFigure]:
    """The wrong pictures whose true class had the lowest probability."""
    predicted = probability.argmax(1)
    of_true_class = probability[np.arange(len(part)), part.labels]
    lowest = np.argsort(of_true_class, kind="stable")[:MISTAKES]
    tiles = [
        Tile(
            part.image(int(k)),
            WRONG,
            f"{classes[part.labels[k]][:14]}\nnot {classes[predicted[k]][:14]}",
        )
        for k in lowest
        if predicted[k] != part.labels[k]
    ]
    if not tiles:
        return []
    rows = [line for line in (tiles[:8], tiles[8:]) if line]
    text = "The pictures whose true class (first line) had the lowest probability."
    return [ReportFigure("mistakes", text, mosaic(rows, 8))]


def attributes(table: pl.DataFrame) -> ReportFigure:
    """mAP of each attribute, compared with colours."""
    place = np.arange(len(table))[::-1]
    with styled_figure(NARROW, 1.2 + 0.4 * len(table)) as figure:
        axes = figure.subplots()
        for shift, name in ((0.2, "cca"), (-0.2, "colours alone")):
            axes.barh(place + shift, table[f"{name}: mAP"].to_numpy(), 0.38, label=name)
        axes.set_yticks(place, table["attribute"].to_list())
        axes.set(xlabel="mAP", xlim=(0, 1))
        axes.legend()
    text = "mAP of each attribute: each picture is compared with all others."
    return ReportFigure("attributes", text, figure)


def neighbours(part: Pictures, vectors: np.ndarray, names: Sequence[str]) -> list[ReportFigure]:
    """The nearest pictures of one picture in the space of each attribute."""
    rows = []
    for condition, name in enumerate(names):
        members = np.flatnonzero(part.conditions == condition)
        if len(members) < 2:
            continue
        similarity = vectors[members] @ vectors[members[0]]
        query, *nearest = members[np.argsort(-similarity, kind="stable")[: LENGTH + 1]].tolist()
        label = part.labels[members[0]]
        tiles = [
            Tile(part.image(k), RIGHT if part.labels[k] == label else WRONG, "") for k in nearest
        ]
        rows.append([Tile(part.image(query), QUERY, name[:14]), *tiles])
    text = (
        "The nearest pictures of one picture (left) in the space of each attribute. Green: the "
        "same value of it, red: another."
    )
    return [ReportFigure("neighbours", text, mosaic(rows, LENGTH + 1))] if rows else []
