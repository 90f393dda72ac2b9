"""Pictures of re-identification: match curves, ranked lists, how alike pairs are, rollout over
pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.pipeline import ReportFigure
from ..metrics.classification import reliability
from .augment import DEVIATION, MEAN
from .data import DISTRACTOR, JUNK, Pictures

if TYPE_CHECKING:
    import polars as pl

    from .scoring import Found

RIGHT, WRONG, ASKED = "#2a9d3a", "#d1372c", "#333333"
LISTS, LENGTH = 8, 8  # ranked lists shown, and pictures in each


def match_curves(curves: dict[str, np.ndarray]) -> ReportFigure:
    """Cumulative match characteristic."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5, 3.6), layout="constrained")
    axes = drawn.subplots()
    for name, curve in curves.items():
        shown = curve[:20]
        axes.plot(np.arange(1, len(shown) + 1), shown, marker="o", markersize=3, label=name)
    axes.set(xlabel="rank", ylabel="queries with a match up to it", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return ReportFigure(
        "cmc",
        "Cumulative match characteristic: share of the queries with a match up to a rank.",
        drawn,
    )


def ranked_lists(part: Pictures, found: Found) -> list[ReportFigure]:
    """What queries found, best first: half of them drawn evenly, half those with the lowest
    precision.
    """
    counted = np.flatnonzero(np.isfinite(found.scores.ap))
    if not len(counted):
        return []
    even = counted[
        np.linspace(0, len(counted) - 1, min(LISTS // 2, len(counted))).round().astype(int)
    ]
    worst = counted[np.argsort(found.scores.ap[counted], kind="stable")]
    chosen = list(dict.fromkeys([*even.tolist(), *worst[: LISTS // 2].tolist()]))
    query = part.query if part.ranked else np.arange(len(part))
    gallery = part.gallery if part.ranked else np.arange(len(part))
    rows = []
    for one in chosen:
        place = query[one]
        dropped = part.labels[gallery] == JUNK
        if found.cameras_used and part.cameras is not None:
            alike = part.labels[gallery] == part.labels[place]
            dropped |= alike & (part.cameras[gallery] == part.cameras[place])
        if not part.ranked:
            dropped[one] = True
        distance = np.where(dropped, np.inf, found.distance[one])
        best = [k for k in np.argsort(distance, kind="stable")[:LENGTH] if np.isfinite(distance[k])]
        images = [part[int(place)]["image"], *(part[int(gallery[k])]["image"] for k in best)]
        right = [part.labels[gallery[k]] == part.labels[place] != DISTRACTOR for k in best]
        titles = [
            f"AP {found.scores.ap[one]:.2f}",
            *(f"{1 - found.distance[one][k]:.3f}" for k in best),
        ]
        rows.append((images, [ASKED, *(RIGHT if one else WRONG for one in right)], titles))
    text = "Ranked lists: the query at the left, then what it found, best first, with cosine similarities. Green: the "
    return [
        ReportFigure(
            "ranked-lists",
            text + "same identity, red: another. The lower half are the worst queries.",
            mosaic(rows, LENGTH + 1),
        )
    ]


def mosaic(rows: list[tuple[list[Tensor], list[str], list[str]]], columns: int) -> Any:
    """A figure of rows of framed pictures: uint8 (3, Y, X), a colour and a title each."""
    from matplotlib.figure import Figure

    _, tall, wide = rows[0][0][0].shape
    height = 1.05 * min(2.0, max(0.7, tall / wide)) + 0.28
    drawn = Figure(figsize=(1.1 * columns, height * len(rows)), layout="constrained")
    axes = drawn.subplots(len(rows), columns, squeeze=False)
    for line, (images, colours, titles) in zip(axes, rows):
        for axis in line:
            axis.axis("off")
        for axis, image, colour, title in zip(line, images, colours, titles):
            axis.axis("on")
            axis.set(xticks=[], yticks=[])
            axis.imshow(image.permute(1, 2, 0).numpy())
            axis.set_title(title, fontsize=7, color=colour, pad=2)
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=2.5)
    return drawn


def alike(part: Pictures, found: Found) -> ReportFigure:
    """Similarities of pairs of one identity and of two."""
    from matplotlib.figure import Figure

    query = part.labels[part.query] if part.ranked else part.labels
    gallery = part.labels[part.gallery] if part.ranked else part.labels
    same = (query[:, None] == gallery) & (query[:, None] > 0)
    counts = np.isfinite(found.distance) & (gallery != JUNK)[None]
    if not part.ranked:
        counts &= ~np.eye(len(query), dtype=bool)
    drawn = Figure(figsize=(5, 3.2), layout="constrained")
    axes = drawn.subplots()
    for name, among in (("one identity", same & counts), ("two identities", ~same & counts)):
        if among.any():
            axes.hist(1 - found.distance[among], bins=60, density=True, histtype="step", label=name)
    axes.set(xlabel="cosine similarity", ylabel="density")
    axes.legend(frameon=False)
    text = "Cosine similarities of pairs of pictures. Where the two overlap, a threshold errs in one way or the other."
    return ReportFigure("similarities", text, drawn)


def blended(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map (y, x) over a picture (Y, X, 3) in [0, 1]: the patches that count least are left
    grey.
    """
    from matplotlib import colormaps

    sized = F.interpolate(
        torch.from_numpy(heat)[None, None].float(), image.shape[:2], mode="bicubic"
    )[0, 0].numpy()
    low, high = np.quantile(sized, [0.02, 0.98])
    level = np.clip((sized - low) / max(high - low, 1e-12), 0, 1)
    grey = image.mean(2, keepdims=True)
    share = 0.65 * level[..., None]
    return np.clip(
        (1 - share) * (0.5 * image + 0.5 * grey) + share * colormaps["inferno"](level)[..., :3],
        0,
        1,
    )


def rollout(images: Tensor, maps: np.ndarray, names: list[str]) -> ReportFigure:
    """images: (B, 3, Y, X), normalised; maps: (B, rows, columns)."""
    from matplotlib.figure import Figure

    drawn = Figure(
        figsize=(1.4 * len(images), 0.5 + 2.8 * images.shape[2] / images.shape[3]),
        layout="constrained",
    )
    axes = drawn.subplots(2, len(images), squeeze=False)
    for k, (image, heat, name) in enumerate(zip(images, maps, names)):
        plain = (image * DEVIATION + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()
        axes[0, k].imshow(plain)
        axes[1, k].imshow(blended(plain, heat))
        axes[0, k].set_title(name.rsplit("/", 1)[-1][:18], fontsize=6)
        for axis in axes[:, k]:
            axis.axis("off")
    text = "Attention rollout of the class token: the patches that its final value draws most from, by the softmaxes "
    return ReportFigure(
        "rollout",
        text + "of all layers. It shows where the model looked, not why it decided.",
        drawn,
    )


def confusion(labels: np.ndarray, probability: np.ndarray, classes: list[str]) -> ReportFigure:
    """True class by predicted class."""
    from matplotlib.figure import Figure

    count = np.zeros((len(classes), len(classes)))
    np.add.at(count, (labels, probability.argmax(1)), 1)
    side = min(9.0, 2.2 + 0.28 * len(classes))
    drawn = Figure(figsize=(side, side), layout="constrained")
    axes = drawn.subplots()
    axes.imshow(count / np.maximum(count.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 40:
        places = np.arange(len(classes))
        axes.set(xticks=places, yticks=places)
        axes.set_xticklabels(classes, rotation=90, fontsize=6)
        axes.set_yticklabels(classes, fontsize=6)
    axes.set(xlabel="predicted", ylabel="true")
    return ReportFigure(
        "confusion", "Share of each true class that was predicted as each class.", drawn
    )


def calibration(labels: np.ndarray, probability: np.ndarray, base: np.ndarray) -> ReportFigure:
    """How sure and how often right."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, given in (("model", probability), ("colours alone", base)):
        found = reliability(labels, given)
        there = found.count > 0
        axes.plot(found.confidence[there], found.accuracy[there], "o-", markersize=4, label=name)
    axes.set(
        xlabel="probability of the predicted class",
        ylabel="share that is right",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(frameon=False)
    return ReportFigure(
        "calibration", "Reliability: below the line the model is surer than it should be.", drawn
    )


def mistakes(part: Pictures, probability: np.ndarray, classes: list[str]) -> list[ReportFigure]:
    """The pictures whose true class had the lowest probability."""
    own = probability[np.arange(len(part)), part.labels]
    worst = [
        k for k in np.argsort(own, kind="stable")[:16] if probability[k].argmax() != part.labels[k]
    ]
    if not worst:
        return []
    rows = []
    for line in (worst[:8], worst[8:]):
        if line:
            titles = [
                f"{classes[part.labels[k]][:14]}\nnot {classes[int(probability[k].argmax())][:14]}"
                for k in line
            ]
            rows.append(([part[int(k)]["image"] for k in line], [WRONG] * len(line), titles))
    return [
        ReportFigure(
            "mistakes",
            "The pictures whose true class (first line) was given the lowest probability.",
            mosaic(rows, 8),
        )
    ]


def attributes(table: pl.DataFrame) -> ReportFigure:
    """mAP of each attribute beside colours."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5, 1.2 + 0.4 * len(table)), layout="constrained")
    axes = drawn.subplots()
    place = np.arange(len(table))[::-1]
    for shift, name in ((0.2, "cca"), (-0.2, "colours alone")):
        axes.barh(place + shift, table[f"{name}: mAP"].to_numpy(), 0.38, label=name)
    axes.set(yticks=place, xlabel="mAP", xlim=(0, 1))
    axes.set_yticklabels(table["attribute"].to_list())
    axes.legend(frameon=False)
    return ReportFigure(
        "attributes", "mAP of every attribute: each picture asks all others.", drawn
    )


def neighbours(part: Pictures, vectors: np.ndarray, spec: dict[str, Any]) -> list[ReportFigure]:
    """What one picture finds in the space of every attribute."""
    rows = []
    for place, name in enumerate(spec["attributes"]):
        own = np.flatnonzero(part.conditions == place)
        if len(own) < 2:
            continue
        likeness = vectors[own] @ vectors[own[0]]
        best = own[np.argsort(-likeness, kind="stable")[: LENGTH + 1]]
        right = [RIGHT if part.labels[k] == part.labels[own[0]] else WRONG for k in best[1:]]
        rows.append(
            (
                [part[int(k)]["image"] for k in best],
                [ASKED, *right],
                [name[:14], *[""] * len(right)],
            )
        )
    text = "What one picture (left) finds in the space of every attribute. Green: the same value of it, red: another."
    return [ReportFigure("neighbours", text, mosaic(rows, LENGTH + 1))] if rows else []
