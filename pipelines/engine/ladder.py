"""The ladder of a run: the naive answer, a simple model, the domain model and their blend.

All rungs are called as the domain model is, and scored on the same rows. What predicts is chosen on
the validation part only; the test part then says how good the choice was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np
import polars as pl
from torch import nn

from ..figures.ladder import LadderRow
from ..metrics.bootstrap import percentile_interval
from .options import RungName
from .spec import JsonValue

RUNGS: tuple[RungName, ...] = ("naive", "simple", "model", "blend")
LEAST_BLOCKS = 8  # that an interval by a bootstrap may rest on; fewer cover the truth too seldom
TIE = 0.002
"""Share of the best rung's gain over the naive one by which a simpler rung may be worse, and is
chosen nevertheless."""


class Rung(NamedTuple):
    """A rung as it was fitted.

    short: what a sentence calls it; words: what it is, for tables; model: called as the domain
    model is; facts: what `Pipeline.rung_model` needs to build it again.
    """

    short: str
    words: str
    model: nn.Module
    facts: Mapping[str, object] = {}


@dataclass(frozen=True)
class LadderScores:
    """How good each rung is on one part of the data.

    score: by rung, over the whole part; draws: by rung, (R,) the score in each draw of a bootstrap,
    of which all rungs share the drawn rows; blocks: groups of rows that are drawn as one; further:
    other scores by name and rung, which are shown and decide nothing.
    """

    metric: str
    larger_is_better: bool
    score: Mapping[RungName, float]
    draws: Mapping[RungName, np.ndarray]
    blocks: int
    further: Mapping[str, Mapping[RungName, float]] = field(default_factory=dict)

    def gain(self, rung: RungName, over: RungName) -> float:
        """By how much a rung is better than another; below 0 where it is worse."""
        return self._better(self.score[rung] - self.score[over])

    def interval(self, rung: RungName) -> tuple[float, float] | None:
        """95 % interval of a rung's score; None where it would rest on too few blocks."""
        return self._interval(self.draws[rung])

    def gain_interval(self, rung: RungName, over: RungName) -> tuple[float, float] | None:
        """95 % interval of `gain`, from the same draws of both; None for too few blocks."""
        return self._interval(self._better(1.0) * (self.draws[rung] - self.draws[over]))

    def _better(self, difference: float) -> float:
        return difference if self.larger_is_better else -difference

    def _interval(self, values: np.ndarray) -> tuple[float, float] | None:
        if self.blocks < LEAST_BLOCKS or not np.isfinite(values).any():
            return None
        return percentile_interval(values)


class RungFacts(TypedDict):
    """What `ladder.json` holds of a rung."""

    short: str
    words: str
    facts: dict[str, object]
    validation: float
    seconds: float


class LadderFacts(TypedDict):
    """What `ladder.json` holds."""

    chosen: RungName
    why: str
    metric: str
    rungs: dict[RungName, RungFacts]


@dataclass(frozen=True)
class Ladder:
    """The rungs of a run and the one that predicts."""

    models: Mapping[RungName, nn.Module]
    facts: LadderFacts

    @property
    def chosen(self) -> RungName:
        return self.facts["chosen"]

    @property
    def predictor(self) -> nn.Module:
        """The rung that was chosen."""
        return self.models[self.chosen]

    def words(self, rung: RungName) -> str:
        """What a rung is."""
        return self.facts["rungs"][rung]["words"]

    def short(self, rung: RungName) -> str:
        """What a sentence calls a rung."""
        return self.facts["rungs"][rung]["short"]


class Stopwatch:
    """Seconds since it was made or asked last."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def seconds(self) -> float:
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        return passed


def choose(scores: LadderScores) -> tuple[RungName, str]:
    """The rung to predict with, by its scores on the validation part, and why.

    A rung must be better than the naive one, beyond doubt where there are enough blocks to tell. Of
    those that are, the best is chosen, or the simplest that is as good; the blend where there are
    too few blocks to tell.

    >>> draws = {"naive": np.ones(9), "simple": np.zeros(9)}
    >>> choose(LadderScores("MSE", False, {"naive": 1.0, "simple": 0.0}, draws, 9))
    ('simple', 'the best on the validation part')
    """
    present = [rung for rung in RUNGS if rung in scores.score]
    if "naive" not in present:
        able = present
    else:
        able = [rung for rung in present[1:] if _beats_naive(scores, rung)]
        if not able:
            return "naive", "no other is better beyond doubt on the validation part"
    if "blend" in able and scores.blocks < LEAST_BLOCKS:
        # A mean of two is the safe choice where the better one cannot be told.
        return "blend", f"as {scores.blocks} blocks of validation rows cannot tell its parts apart"
    best = max(able, key=lambda rung: scores.gain(rung, able[0]))
    reach = abs(scores.gain(best, "naive")) if "naive" in present else abs(scores.score[best])
    for rung in able:
        if scores.gain(best, rung) <= TIE * reach:
            tied = rung != best
            return rung, (
                f"as good as the {best} on the validation part, and simpler"
                if tied
                else "the best on the validation part"
            )
    raise AssertionError("the best rung is as good as itself")


def _beats_naive(scores: LadderScores, rung: RungName) -> bool:
    interval = scores.gain_interval(rung, "naive")
    return scores.gain(rung, "naive") > 0 and (interval is None or interval[0] > 0)


def ladder_metrics(ladder: Ladder, scores: LadderScores) -> dict[str, JsonValue]:
    """What `metrics.json` holds of the ladder: every rung's score with its interval, and the paired
    gain of the chosen one over each other.
    """
    chosen = ladder.chosen
    rungs: dict[str, JsonValue] = {}
    for rung in scores.score:
        interval, gain = scores.interval(rung), scores.gain_interval(chosen, rung)
        entry: dict[str, JsonValue] = {
            "what": ladder.words(rung),
            scores.metric: scores.score[rung],
            "interval_95": list(interval) if interval else None,
        }
        entry |= {name: values[rung] for name, values in scores.further.items()}
        if rung != chosen:
            entry["gain_of_chosen"] = scores.gain(chosen, rung)
            entry["gain_interval_95"] = list(gain) if gain else None
        rungs[rung] = entry
    return {"chosen": chosen, "why": ladder.facts["why"], "blocks": scores.blocks, "rungs": rungs}


def ladder_table(ladder: Ladder, scores: LadderScores) -> pl.DataFrame:
    """The table of the report: a row for each rung."""
    chosen = ladder.chosen
    rows = []
    for rung in scores.score:
        gain = scores.gain_interval(chosen, rung)
        rows.append(
            {
                "rung": f"{rung} (chosen)" if rung == chosen else rung,
                "what it is": ladder.words(rung),
                f"{scores.metric}, validation part": ladder.facts["rungs"][rung]["validation"],
                f"{scores.metric}, this part": scores.score[rung],
                "95 % interval": _span(scores.interval(rung)),
                "gain of the chosen one": None if rung == chosen else scores.gain(chosen, rung),
                "95 % interval of the gain": None if rung == chosen else _span(gain),
                **{name: values[rung] for name, values in scores.further.items()},
            }
        )
    return pl.DataFrame(rows)


def ladder_rows(ladder: Ladder, scores: LadderScores) -> list[LadderRow]:
    """The same for the figure."""
    chosen = ladder.chosen
    return [
        LadderRow(
            ladder.words(rung),
            scores.score[rung],
            scores.interval(rung),
            scores.gain(chosen, rung),
            scores.gain_interval(chosen, rung),
            rung == chosen,
        )
        for rung in scores.score
    ]


def _span(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def verdict(ladder: Ladder, scores: LadderScores, answer: str) -> str:
    """In words: what the run gives, which rung gives it, and how good that is beside the others.

    answer: what the user came for, such as "forecast for 96 hours ahead". A difference whose
    interval holds 0 is none.
    """
    chosen = ladder.chosen
    others = [rung for rung in scores.score if rung != chosen]
    compared = ", ".join(_compared(ladder, scores, rung) for rung in others)
    who = f"{answer} by {ladder.short(chosen)}, {ladder.facts['why']}"
    doubt = ""
    if scores.blocks < LEAST_BLOCKS:
        blocks = "block of rows" if scores.blocks == 1 else "separate blocks of rows"
        doubt = f"; with {scores.blocks} {blocks} no difference is certain"
    figure = f"{scores.metric} {scores.score[chosen]:.3f}"
    return f"{who[0].upper()}{who[1:]}. {figure}: {compared}{doubt}"


def _compared(ladder: Ladder, scores: LadderScores, rung: RungName) -> str:
    """How the chosen rung compares with another: "4.2 times smaller than SOFTS (1.234)"."""
    chosen = ladder.chosen
    gain, interval = scores.gain(chosen, rung), scores.gain_interval(chosen, rung)
    name, score, value = ladder.short(rung), scores.score[rung], scores.score[chosen]
    if gain == 0 or (interval is not None and interval[0] <= 0 <= interval[1]):
        return f"level with {name} ({score:.3f})"
    word = "" if gain > 0 else "WORSE, "
    if scores.larger_is_better or min(score, value) <= 0:
        direction = "above" if value > score else "below"
        return f"{word}{abs(value - score):.3f} {direction} {name} ({score:.3f})"
    ratio = max(score, value) / min(score, value)
    size = "smaller" if value < score else "larger"
    much = f"{ratio:.1f} times" if ratio >= 1.5 else f"{abs(1 - value / score):.1%}"
    return f"{word}{much} {size} than {name} ({score:.3f})"
