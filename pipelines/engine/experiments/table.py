"""Tables of trainings: mean and deviation over seeds, paired differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import polars as pl

from ....base.files import write_text
from ...figures.style import save_png, styled_figure
from .jobs import Job, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scores = Mapping[str, Mapping[str, float]]
"""Scores by row of the table and name of the score."""


class Difference(TypedDict):
    """Mean of paired differences, and the ends of its 95 % t interval."""

    shift: float
    low: float
    high: float


@dataclass(frozen=True)
class Training:
    """A training that is done: its scores, and what it cost."""

    scores: Scores
    epochs: int
    weights: int
    seconds: float

    @classmethod
    def of(cls, record: Record) -> Training:
        """The training that a record holds, in which JSON has null for NaN."""
        scores = cast(Mapping[str, Mapping[str, float | None]], record["scores"])
        return cls(
            {
                row: {name: math.nan if value is None else value for name, value in named.items()}
                for row, named in scores.items()
            },
            cast(int, record["epochs"]),
            cast(int, record["weights"]),
            cast(float, record["seconds"]),
        )


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; NaN of fewer than two values."""
    from scipy.stats import t

    if len(values) < 2:
        return math.nan, math.nan
    half = float(t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """The difference of two rows of values whose pairs belong together, such as equal seeds."""
    gaps = values - baseline
    low, high = t_interval(gaps)
    return {"shift": float(gaps.mean()), "low": low, "high": high}


def values_of(trainings: Sequence[Training], row: str, score: str) -> np.ndarray:
    """A score of each training, in their order."""
    return np.array([training.scores[row][score] for training in trainings], float)


def means_and_deviations(
    trainings: Sequence[Training], row: str, scores: Sequence[str]
) -> dict[str, float]:
    """Mean and deviation (of a sample; NaN of one value) of each score: NAME and NAME_sd."""
    cells: dict[str, float] = {}
    for score in scores:
        values = values_of(trainings, row, score)
        deviation = values.std(ddof=1) if len(values) > 1 else math.nan
        cells |= {score: values.mean(), f"{score}_sd": deviation}
    return cells


def costs(trainings: Sequence[Training]) -> dict[str, float]:
    """Weights of the model, and mean seconds of a training."""
    seconds = float(np.mean([training.seconds for training in trainings]))
    return {"weights": trainings[0].weights, "seconds": seconds}


def summarise(trainings: Mapping[Job, Training], untrained: Scores, baseline: str) -> pl.DataFrame:
    """One row per row of the scores: mean and deviation over seeds, difference to the baseline."""
    by_seed = [trainings[job] for job in sorted(trainings, key=lambda job: job.seed)]
    names = list(dict.fromkeys(row for training in trainings.values() for row in training.scores))
    measured = list(next(iter(by_seed[0].scores.values())))
    with_row = {name: [t for t in by_seed if name in t.scores] for name in names}
    nothing: Difference = {"shift": math.nan, "low": math.nan, "high": math.nan}
    rows: list[dict[str, object]] = []
    for name in names:
        difference = nothing
        if baseline in names and name != baseline:
            key = [values_of(with_row[row], row, measured[0]) for row in (name, baseline)]
            difference = paired_difference(*key)
        rows.append(
            {
                "model": name,
                "seeds": len(with_row[name]),
                **means_and_deviations(with_row[name], name, measured),
                **difference,
                **costs(with_row[name]),
            }
        )
    for name, scores in untrained.items():
        if shared := {score: scores[score] for score in measured if score in scores}:
            rows.append({"model": name, "seeds": 0, **shared})
    return pl.DataFrame(rows, infer_schema_length=None)


def with_deviation(value: float | None, deviation: float | None) -> str:
    """ "0.1234 ± 0.0012"; without what is not known."""
    if value is None:
        return ""
    known = deviation is not None and math.isfinite(deviation)
    return f"{value:.4f}" + (f" ± {deviation:.4f}" if known else "")


def with_interval(shift: float, low: float, high: float) -> str:
    """ "+0.0012 (-0.0004 to +0.0028)"; without an interval that is not known."""
    return f"{shift:+.4f}" + (f" ({low:+.4f} to {high:+.4f})" if math.isfinite(low) else "")


def seeds_text(first: int, count: int) -> str:
    """ "2021 to 2023", or "2021" of one seed."""
    return f"{first} to {first + count - 1}" if count > 1 else str(first)


def aligned(table: pl.DataFrame) -> list[list[str]]:
    """Cells of each row of `summarise`'s table: model, scores, difference."""
    measured = measured_in(table)
    lines = []
    for row in table.iter_rows(named=True):
        scores = [with_deviation(row[score], row[f"{score}_sd"]) for score in measured]
        shift = math.nan if row["shift"] is None else row["shift"]
        between = with_interval(shift, row["low"], row["high"]) if math.isfinite(shift) else ""
        lines.append([row["model"], *scores, between])
    return lines


def measured_in(table: pl.DataFrame) -> list[str]:
    """The scores that a table has with their deviations."""
    return [name[:-3] for name in table.columns if name.endswith("_sd")]


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"] + [
        f"| {' | '.join(cells)} |" for cells in rows
    ]


def comparison_markdown(
    table: pl.DataFrame, *, heading: str, tested: str, seeds: str, baseline: str
) -> str:
    """The page of a comparison, with `summarise`'s table."""
    measured = measured_in(table)
    rows = []
    for row, cells in zip(table.iter_rows(named=True), aligned(table)):
        cost = [f"{row['weights']:,}", f"{row['seconds']:.0f}"] if row["seeds"] else ["", ""]
        rows.append([*cells, *cost])
    lines = [
        f"# {heading}",
        "",
        f"Scores on the test part ({tested}): mean ± deviation over the seeds {seeds}; difference "
        f"to {baseline} in {measured[0]} with the 95 % t interval of pairs of equal seeds.",
        "",
        *table_lines(["model", *measured, "difference", "weights", "seconds"], rows),
    ]
    return "\n".join(lines) + "\n"


def draw_values(
    axis: Axes,
    names: Sequence[str],
    values: pl.Series,
    deviations: pl.Series,
    colours: Sequence[str] | None = None,
) -> None:
    """One point per name, from top to bottom, with its deviation as a bar."""
    place = np.arange(len(names))[::-1]
    bars = np.nan_to_num(deviations.to_numpy())
    if colours is None:
        axis.errorbar(values, place, xerr=bars, fmt="o", capsize=3)
    else:
        for y, value, bar, colour in zip(place, values, bars, colours, strict=True):
            axis.errorbar(value, y, xerr=bar, fmt="o", color=colour, capsize=3)
    axis.set_yticks(place)
    axis.set_yticklabels(names, fontsize=8)
    axis.grid(visible=False, axis="y")


def comparison_figure(table: pl.DataFrame) -> Figure:
    """The first score of every trained row with the deviation over seeds."""
    score = measured_in(table)[0]
    trained = table.filter(pl.col("seeds") > 0)
    with styled_figure(6, 0.4 * len(trained) + 1.3) as figure:
        axis = figure.subplots()
        draw_values(axis, trained["model"].to_list(), trained[score], trained[f"{score}_sd"])
        axis.set_xlabel(f"{score} (bars: deviation over seeds)")
    return figure


def write_comparison(output: Path, table: pl.DataFrame, text: str, figure: Figure) -> None:
    """Write comparison.csv, comparison.md and comparison.png."""
    write_text(output / "comparison.csv", table.write_csv())
    write_text(output / "comparison.md", text)
    save_png(figure, output / "comparison.png")
