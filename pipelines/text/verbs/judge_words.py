"""What the findings on a judge say: a sentence, and a picture of all judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...engine.pipeline import ReportFigure
from ...figures.style import BLUE, GREY, WIDE, styled_figure
from ...metrics.judging import Estimate

if TYPE_CHECKING:
    from .judge import JudgeFindings

FEW = 30  # pairs below which a verdict says that they are few
MOST_NAME = 24  # letters of a judge's name beside the picture


def verdict(facts: JudgeFindings) -> str:
    """The findings on a judge in one sentence."""
    parts = [_on_place(facts), _on_consistency(facts), _on_length(facts), _on_people(facts)]
    sentence = "; ".join(part for part in parts if part)
    few = f" (only {facts.pairs} pairs: take it with care)" if facts.pairs < FEW else ""
    return f"{facts.judge}: {sentence}{few}."


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _points(estimate: Estimate) -> str:
    """A difference of shares with its interval, in percentage points."""
    value, low, high = (100 * v for v in estimate[:3])
    interval = f" ({low:.0f} to {high:.0f})" if np.isfinite(low) else ""
    return f"{abs(value):.0f} points{interval}" if value else "0 points"


def _is_clear(estimate: Estimate) -> bool:
    """Whether the interval leaves 0 out."""
    return estimate.low > 0 or estimate.high < 0


def _on_place(facts: JudgeFindings) -> str:
    bias = facts.position_bias
    if not bias.pairs:
        return (
            "no pair was judged in both orders, so nothing can be said about places: ask again "
            "with the answers swapped"
        )
    if not _is_clear(bias):
        return f"no clear preference for a place ({100 * bias.value:+.0f} points)"
    place = "first" if bias.value > 0 else "second"
    return f"prefers the answer shown {place}, by {_points(bias)}: ask in both orders and average"


def _on_consistency(facts: JudgeFindings) -> str:
    share = facts.consistency
    if not share.pairs:
        return ""
    interval = (
        f" ({_percent(share.low)} to {_percent(share.high)})" if np.isfinite(share.low) else ""
    )
    return f"says the same with the order swapped in {_percent(share.value)}{interval} of pairs"


def _on_length(facts: JudgeFindings) -> str:
    if facts.padding.pairs and _is_clear(facts.padding):
        side = "gain" if facts.padding.value > 0 else "lose"
        return f"repeated sentences {side} {_points(facts.padding)}"
    equal = bool(facts.equal_slope.pairs)
    slope = facts.equal_slope if equal else facts.slope
    if not slope.pairs:
        return ""
    where = "at equal content" if equal else "which may be their content"
    if not _is_clear(slope):
        return f"length has no clear effect{' at equal content' if equal else ''}"
    odds, low, high = (float(np.exp(np.log(2) * value)) for value in slope[:3])
    factor = f"{odds:.3g} ({low:.3g} to {high:.3g})"
    return f"an answer twice as long has {factor} times the odds, {where}"


def _on_people(facts: JudgeFindings) -> str:
    single, averaged = facts.agreement.share, facts.averaged.share
    if not single.pairs:
        return ""
    text = f"agrees with people in {_percent(single.value)} of judgements"
    if averaged.pairs:
        text += f", and in {_percent(averaged.value)} of pairs once both orders are averaged"
    return text


def judges_figure(findings: Sequence[JudgeFindings]) -> ReportFigure:
    """Position bias, consistency, length slope (at equal content where any judge has such pairs),
    gain of padding and agreement of all judges; without the panels that no judge has.
    """
    of_equal = any(facts.equal_slope.pairs for facts in findings)
    slope = [facts.equal_slope if of_equal else facts.slope for facts in findings]
    panels = [
        ("position bias", 0.0, [facts.position_bias for facts in findings]),
        ("consistency", 1.0, [facts.consistency for facts in findings]),
        ("length slope" + (", equal content" if of_equal else ""), 0.0, slope),
        ("gain of padding", 0.0, [facts.padding for facts in findings]),
        ("agreement with people", 1.0, [facts.agreement.share for facts in findings]),
    ]
    panels = [panel for panel in panels if any(estimate.pairs for estimate in panel[2])]
    names = [shortened(facts.judge) for facts in findings]
    height = 1.2 + 0.35 * len(findings)
    with styled_figure(WIDE, height) as figure:
        axes = figure.subplots(1, max(len(panels), 1), sharey=True, squeeze=False)[0]
        for axis, (title, ideal, estimates) in zip(axes, panels):
            for row, estimate in enumerate(estimates):
                axis.plot([estimate.low, estimate.high], [row, row], color=BLUE, linewidth=2)
                axis.plot(estimate.value, row, "o", color=BLUE, markersize=5)
            axis.axvline(ideal, color=GREY, linewidth=1, linestyle=":")
            axis.set_title(title)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].set_ylim(len(names) - 0.5, -0.5)
    caption = "Judges with 95 % intervals; the dotted line is a judge without the bias"
    return ReportFigure("judges", caption, figure, is_answer=True)


def shortened(name: str) -> str:
    """A name that fits beside a picture."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 1]}…"
