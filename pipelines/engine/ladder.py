"""The ladder of a run: the naive answer, a simple model, the domain model and their blend.

All rungs are called as the domain model is, and scored on the same rows. What predicts is chosen on
the validation part only; the test part then says how good the choice was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypedDict, TypeVar

import numpy as np
import polars as pl
import torch
from torch import nn

from ..figures.ladder import LadderRow
from ..metrics.bootstrap import DRAWS, Groups, draw_weights, percentile_interval
from .options import RungName
from .pipeline import Context, DataT, OptionsT, SpecT, Splits
from .spec import JsonValue

RUNGS: tuple[RungName, ...] = ("naive", "simple", "model", "blend")
LEAST_BLOCKS = 8  # that an interval by a bootstrap may rest on; fewer cover the truth too seldom


class Rung(NamedTuple):
    """A rung as it was fitted.

    words: what it is, for tables; model: called as the domain model is; facts: what `Rungs.empty`
    needs to build it again; short: what a sentence calls it, the words where it is empty; proven:
    whether it was better than the naive answer beyond doubt on rows that it was not fitted on, of
    the training part, too; refit: fits it, as it was chosen, to the training and the validation
    part together.
    """

    words: str
    model: nn.Module
    facts: Mapping[str, object] = {}
    short: str = ""
    proven: bool = False
    refit: Callable[[], Rung] | None = None

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return self.short or self.words


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
        return self._interval(self._gains(rung, over))

    def share_better(self, rung: RungName, over: RungName) -> float:
        """The share of the draws in which a rung is better than another, 0 to 1."""
        return float((self._gains(rung, over) > 0).mean())

    def _gains(self, rung: RungName, over: RungName) -> np.ndarray:
        """`gain` in each draw, (R,)."""
        return self._better(1.0) * (self.draws[rung] - self.draws[over])

    def _better(self, difference: float) -> float:
        return difference if self.larger_is_better else -difference

    def _interval(self, values: np.ndarray) -> tuple[float, float] | None:
        if self.blocks < LEAST_BLOCKS or not np.isfinite(values).any():
            return None
        return percentile_interval(values)


class RungFacts(TypedDict):
    """What `ladder.json` holds of a rung; validation: its score, None without that part."""

    short: str
    words: str
    facts: dict[str, object]
    validation: float | None


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
    seconds: Mapping[RungName, float] = field(default_factory=dict)
    """What fitting each rung around the model took; empty for a ladder opened from files."""
    refit: Callable[[], Rung] | None = None
    """Fits the simple rung to the training and the validation part together."""

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


def refitted(ladder: Ladder, device: torch.device) -> Ladder:
    """The ladder with its simple model fitted to the training and the validation part together.

    For when nothing is left that the validation part has to choose: the domain model has used it
    for its best epoch, and a simple model that has not is at a disadvantage. The blend takes the
    new one, too.
    """
    if ladder.refit is None:
        return ladder
    started = time.perf_counter()
    rung = ladder.refit()
    models = {**ladder.models, "simple": rung.model.to(device).eval()}
    if "blend" in models:
        models["blend"].simple = models["simple"]
    spent = ladder.seconds.get("simple", 0.0) + time.perf_counter() - started
    rungs = dict(ladder.facts["rungs"])
    words = f"{rungs['simple']['words']}, in the end of the training and the validation part"
    rungs["simple"] = {**rungs["simple"], "words": words, "facts": dict(rung.facts)}
    facts: LadderFacts = {**ladder.facts, "rungs": rungs}
    return Ladder(models, facts, {**ladder.seconds, "simple": spent})


class Rungs(Generic[OptionsT, SpecT, DataT]):
    """What a task tells the ladder: the models beside its own, and how all of them are scored.

    Every rung is called as the domain model is, so what comes after the choice knows nothing of it.
    """

    def answer_words(self, options: OptionsT, spec: SpecT) -> str:
        """What the user came for, with which the first sentence of a report begins."""
        raise NotImplementedError

    def model_words(self, options: OptionsT) -> str:
        """What the domain model is called in a sentence."""
        raise NotImplementedError

    def prepare(self, splits: Splits[SpecT, DataT], options: OptionsT) -> None:
        """Before a training: get what the simple models need, and say it in the account.

        Raises `InputError` for what could not be fitted after the training.
        """

    def simple(
        self,
        model: nn.Module,
        splits: Splits[SpecT, DataT],
        options: OptionsT,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The rungs below the domain model, "naive" and "simple", fitted on the training part and
        chosen among their own forms on the validation part. {} where nothing could be compared.
        model: the domain model, for a rung that puts another answer in place of the model's.
        """
        raise NotImplementedError

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[SpecT, DataT],
        options: OptionsT,
        device: torch.device,
    ) -> Rung:
        """The blend of the domain model and the simple one, fitted on the validation part. Its
        module holds the two as `model` and `simple`.
        """
        raise NotImplementedError

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: SpecT,
    ) -> nn.Module:
        """A rung other than the model, without its tensors. facts: as `Rung.facts`; models: the
        rungs before it, and the domain model. Raises KeyError, TypeError or ValueError for facts
        that make none.
        """
        raise NotImplementedError

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: DataT,
        context: Context[OptionsT, SpecT],
    ) -> LadderScores:
        """Score each rung on one part of the data, all on the same rows."""
        raise NotImplementedError


AnyRungs: TypeAlias = Rungs[Any, Any, Any]
OutputT = TypeVar("OutputT")


def rung_outputs(
    models: Mapping[RungName, nn.Module], run: Callable[[nn.Module], OutputT]
) -> dict[RungName, OutputT]:
    """What each rung gives; a blend is made of what its parts gave, not computed again.

    run: the output of a model. A blend has a method `blend` of the outputs of its two parts.
    """
    outputs: dict[RungName, OutputT] = {}
    for name, model in models.items():
        if name == "blend" and {"model", "simple"} <= outputs.keys():
            blend: Callable[[OutputT, OutputT], OutputT] = getattr(model, name)
            outputs[name] = blend(outputs["model"], outputs["simple"])
        else:
            outputs[name] = run(model)
    return outputs


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of values (N,) for each row of weights (B, N) -> (B,)."""
    return weights @ values / weights.sum(1)


def drawn_scores(
    metric: str,
    score: Mapping[RungName, float],
    statistics: Mapping[RungName, Callable[[np.ndarray], np.ndarray]],
    groups: Groups,
    *,
    larger_is_better: bool = False,
    draws: int = DRAWS,
    further: Mapping[str, Mapping[RungName, float]] | None = None,
) -> LadderScores:
    """Scores with the draws of a bootstrap over groups.

    statistics: by rung, from weights of the samples (B, N) to scores (B,); groups: of each sample.
    """
    count = groups if isinstance(groups, int) else len(np.unique(np.asarray(groups)))
    parts = [
        {name: statistic(weights) for name, statistic in statistics.items()}
        for weights in (draw_weights(groups, draws, seed=0) if count else ())
    ]
    by_rung = {
        name: np.concatenate([part[name] for part in parts]) if parts else np.array([np.nan])
        for name in statistics
    }
    return LadderScores(metric, larger_is_better, score, by_rung, count, further or {})


def ladder_rows(ladder: Ladder, scores: LadderScores) -> list[LadderRow]:
    """Each rung with its score, and the paired gain of the chosen one over it."""
    chosen = ladder.chosen
    return [
        LadderRow(
            rung,
            ladder.words(rung),
            scores.score[rung],
            scores.interval(rung),
            scores.gain(chosen, rung),
            scores.gain_interval(chosen, rung),
            rung == chosen,
        )
        for rung in scores.score
    ]


def ladder_metrics(ladder: Ladder, scores: LadderScores) -> dict[str, JsonValue]:
    """What `metrics.json` holds of the ladder: every rung's score with its interval, and the paired
    gain of the chosen one over each other.
    """
    rungs: dict[str, JsonValue] = {}
    for row in ladder_rows(ladder, scores):
        entry: dict[str, JsonValue] = {
            "what": row.words,
            scores.metric: row.score,
            "interval_95": list(row.interval) if row.interval else None,
        }
        entry |= {name: values[row.rung] for name, values in scores.further.items()}
        if not row.chosen:
            entry["gain_of_chosen"] = row.gain
            entry["gain_interval_95"] = list(row.gain_interval) if row.gain_interval else None
        rungs[row.rung] = entry
    return {
        "chosen": ladder.chosen,
        "why": ladder.facts["why"],
        "blocks": scores.blocks,
        "rungs": rungs,
    }


def ladder_table(ladder: Ladder, scores: LadderScores) -> pl.DataFrame:
    """The table of the report: a row for each rung."""
    validation = {rung: facts["validation"] for rung, facts in ladder.facts["rungs"].items()}
    return pl.DataFrame(
        [
            {
                "rung": f"{row.rung} (chosen)" if row.chosen else row.rung,
                "what it is": row.words,
                f"{scores.metric}, validation part": validation[row.rung],
                f"{scores.metric}, this part": row.score,
                "95 % interval": _span(row.interval),
                "gain of the chosen one": None if row.chosen else row.gain,
                "95 % interval of the gain": None if row.chosen else _span(row.gain_interval),
                **{name: values[row.rung] for name, values in scores.further.items()},
            }
            for row in ladder_rows(ladder, scores)
        ]
    )


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
