"""Figures of the report of long contexts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...models.language.plans.plan import Plan
from ..engine.pipeline import ReportFigure
from ..figures.style import BLUE, COLOURS, GREY, MEDIUM, NARROW, ORANGE, ROW, styled_figure
from .comparing import FULL, PLAN, SHUFFLED, UNIFORM
from .data import PromptPart
from .scoring import PromptScores

COLOUR_OF: Mapping[str, str] = {FULL: GREY, UNIFORM: ORANGE, PLAN: BLUE, SHUFFLED: COLOURS[4]}
BINS = 5  # of depth, where depths are not asked for


def plan_figure(plan: Plan, length: int) -> ReportFigure:
    """Which share of a text each head keeps: layers across, heads of keys and values up."""
    shares = np.array(
        [[rule.keeps(length) / length for rule in plan.rules(layer)]
         for layer in range(plan.facts.layers)]
    )  # fmt: skip
    width = min(9.5, 3.0 + 0.2 * plan.facts.layers)
    with styled_figure(width, 1.4 + 0.25 * plan.facts.kv_heads, grid=False) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares.T, vmin=0, vmax=1, cmap="Blues", aspect="auto", origin="lower")
        for layer in range(plan.facts.layers):
            for head in range(plan.facts.kv_heads):
                if plan.inherits[layer][head]:
                    axes.plot(layer, head, ".", color=ORANGE)
        axes.set(xlabel="layer", ylabel="head of keys")
        axes.set_yticks(range(plan.facts.kv_heads))
        figure.colorbar(image, ax=axes, label="kept")
    caption = (
        f"The share of a text of {length:,} tokens that each head of keys and values keeps: dark "
        "heads keep all of it, light ones the first tokens and a window of the last."
    )
    if plan.inheriting:
        caption += " A dot: while it writes, the head reads the keys that a head below has chosen."
    return ReportFigure("plan", caption, figure)


def frontier_figure(scores: Mapping[str, PromptScores]) -> ReportFigure:
    """Right answers and the loss of the text against the bytes of the cache."""
    with styled_figure(MEDIUM, ROW) as figure:
        left, right = figure.subplots(1, 2)
        for name, values in scores.items():
            size = float(values.cache.mean()) / 2**20
            known = values.right[~np.isnan(values.right)]
            if len(known):
                left.plot(size, known.mean(), "o", color=COLOUR_OF[name], label=name)
            else:
                left.plot([], [], "o", color=COLOUR_OF[name], label=name)
            right.plot(size, np.nanmean(values.text), "o", color=COLOUR_OF[name])
        left.set(xlabel="cache of a prompt, MiB", ylabel="share of right answers")
        left.set_ylim(-0.05, 1.05)
        right.set(xlabel="cache of a prompt, MiB", ylabel="loss of the text, nats a token")
        for axes in (left, right):
            axes.set_xlim(left=0)
        left.legend()
    caption = (
        "Right answers (left, higher is better) and the loss of the prompts' own text (right, "
        "lower is better) against the bytes of the cache, mean over the prompts."
    )
    return ReportFigure("frontier", caption, figure)


def depth_figure(part: PromptPart, scores: Mapping[str, PromptScores]) -> ReportFigure | None:
    """Right answers by where the answer stands in the prompt, a row for each length; None where no
    prompt has a depth and an answer.
    """
    depths = np.array([np.nan if p.depth is None else p.depth for p in part.prompts], float)
    lengths = np.array([prompt.length or 0 for prompt in part.prompts])
    if np.isnan(depths).all() or all(np.isnan(v.right).all() for v in scores.values()):
        return None
    rows = sorted(set(lengths.tolist()))
    places = sorted(set(depths[~np.isnan(depths)].tolist()))
    if len(places) > 2 * BINS:
        places = np.linspace(0, 1, BINS).tolist()
    nearest = np.array([int(np.argmin(np.abs(np.array(places) - d))) if d == d else -1
                        for d in depths])  # fmt: skip
    with styled_figure(NARROW, ROW * len(rows)) as figure:
        for axes, length in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows):
            for name, values in scores.items():
                means = [
                    _mean(values.right[(lengths == length) & (nearest == k)])
                    for k in range(len(places))
                ]
                axes.plot(places, means, "o-", color=COLOUR_OF[name], label=name, alpha=0.8)
            axes.set(xlabel="depth of the answer in the prompt", ylabel="share of right answers")
            axes.set_ylim(-0.05, 1.05)
            if length:
                axes.set_title(f"{length:,} tokens")
            axes.legend()
    caption = (
        "Right answers by where in the prompt the answer stands: 0 is its beginning, 1 its end."
    )
    return ReportFigure("depth", caption, figure)


def cache_figure(part: PromptPart, scores: Mapping[str, PromptScores]) -> ReportFigure:
    """Bytes of the cache that were measured, by the length of the prompt."""
    lengths = np.array([len(tokens.prompt) for tokens in part.tokens])
    order = np.argsort(lengths)
    with styled_figure(NARROW, ROW) as figure:
        axes = figure.subplots()
        for name, values in scores.items():
            if name != SHUFFLED:
                sizes = values.cache[order] / 2**20
                axes.plot(lengths[order], sizes, ".-", color=COLOUR_OF[name], label=name)
        axes.set(xlabel="tokens of the prompt", ylabel="cache, MiB")
        axes.set_ylim(bottom=0)
        axes.legend()
    caption = "Bytes that the cache holds after each prompt, as measured."
    return ReportFigure("cache", caption, figure)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
