"""The verb compare: cross-attention beside saliency over a set of recordings, with intervals.

The comparison of Papi et al. (arXiv 2509.18010), and what its readers asked for besides: ranks,
single heads, gradients, intervals, how reliable the saliency itself is, and whether the warnings
about word times are worth anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ....data.speech.recordings import Utterance
from ...engine.command_line.terminal import say
from ...engine.pipeline import AnyPipeline, Review
from ...engine.runs.report import markdown, write_sheets
from ...metrics.alignment import equal_words
from ...metrics.bootstrap import UNDEFINED, interval_of_mean
from .. import figures
from ..agreement import area, deletion, summary
from ..options import CompareOptions
from ..prediction import Hearer
from ..probing import failures, probed, write_findings
from ..saliency import Heard, Saliency
from ..word_times import chosen_heads


@dataclass(frozen=True)
class Compared:
    """What was written; failed: recordings that gave nothing."""

    output: Path
    agreement: pl.DataFrame
    deletion: pl.DataFrame | None
    failed: int


def compare(pipeline: AnyPipeline, options: CompareOptions) -> Compared:
    """Compare over --data; writes report.html, tables/ and figures/ into --output."""
    output = Path(options.output)
    with probed(pipeline, options, options.data, partial(_measure, options), "compare") as done:
        good = [one for one in done if one.found is not None]
        found = [one.found for one in good if one.found is not None]
        agreed = agreement_table(found, options.seed)
        sheets = {"agreement": agreed, "reliability": reliability_table(found, options.seed)}
        curves: dict[str, np.ndarray] = {}
        if options.deletion:
            names = list(found[0]["deletion"])
            curves = {name: np.array([one["deletion"][name] for one in found]) for name in names}
            sheets["deletion"] = deletion_table(curves, options.seed)
        times = times_table([one.utterance for one in good], found)
        if times is not None:
            sheets["word-times"] = times
        headline = _headline(agreed, len(found))
        pictures = [figures.agreement(agreed)]
        if curves:
            pictures.append(figures.deletion(curves))
        captions = {
            "agreement": "Correlation of cross-attention with saliency, mean over recordings (95 % interval)",
            "reliability": "Reliability of the saliency itself (two halves of the masks, stepped up)",
            "deletion": "Word error rate under deletion: area under the curve, percent (larger: better map)",
            "word-times": "Errors of word times where what mattered lies at the word, and elsewhere",
        }
        tables = {captions[name]: table for name, table in sheets.items()}
        write_sheets(output / "tables", sheets, "")
        say(markdown(agreed.filter(~pl.col("attention").str.contains(" head "))))
        say(headline)
        write_findings(
            pipeline,
            options,
            options.data,
            done,
            Review({}, headline, pictures, tables),
            output / "figures",
        )
    return Compared(output, agreed, sheets.get("deletion"), failures(done))


def _measure(
    options: CompareOptions,
    heard: Hearer,
    one: Utterance,
    stem: str,
    own: Heard,
    saliency: Saliency,
) -> dict[str, Any]:
    found = summary(own, saliency, chosen_heads(heard.model, heard.spec))
    if options.deletion:
        found["deletion"] = deletion(heard, own, saliency, options.seed)
    return found


def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the mean over recordings, drawn with replacement; NaN of fewer than two."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return UNDEFINED
    return interval_of_mean(values, seed=seed)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def agreement_table(found: Sequence[dict[str, Any]], seed: int) -> pl.DataFrame:
    """A row for each saliency and average of the attention: Pearson's and Spearman's correlation
    with intervals.
    """
    rows = []
    for name, scopes in found[0]["agreement"].items():
        for scope in scopes:
            pearson, spearman = (
                np.array([one["agreement"][name][scope][k] for one in found], float) for k in (0, 1)
            )
            (low, high), (least, most) = interval(pearson, seed), interval(spearman, seed)
            rows.append(
                {
                    "saliency": name,
                    "attention": scope,
                    "pearson": _mean(pearson),
                    "low": low,
                    "high": high,
                    "spearman": _mean(spearman),
                    "spearman_low": least,
                    "spearman_high": most,
                    "recordings": int(np.isfinite(pearson).sum()),
                }
            )
    return pl.DataFrame(rows)


def reliability_table(found: Sequence[dict[str, Any]], seed: int) -> pl.DataFrame:
    """Mean reliability of each saliency by masks."""
    rows = []
    for name in found[0]["reliability"]:
        values = np.array([one["reliability"][name] for one in found], float)
        low, high = interval(values, seed)
        rows.append({"saliency": name, "reliability": _mean(values), "low": low, "high": high})
    return pl.DataFrame(
        rows,
        schema={
            "saliency": pl.String,
            "reliability": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
        },
    )


def deletion_table(curves: dict[str, np.ndarray], seed: int) -> pl.DataFrame:
    """Area under the curve of each map, mean over recordings, with the difference to the
    cross-attention's.
    """
    areas = {name: np.array([area(curve) for curve in each]) for name, each in curves.items()}
    base = areas.get("cross-attention")
    rows = []
    for name, values in areas.items():
        low, high = interval(values, seed)
        row = {"map": name, "area": float(values.mean()), "low": low, "high": high}
        shift = (float("nan"),) * 3
        if base is not None and name != "cross-attention":
            shift = (float((values - base).mean()), *interval(values - base, seed))
        rows.append(row | dict(zip(("more_than_attention", "more_low", "more_high"), shift)))
    return pl.DataFrame(rows).sort("area", descending=True)


def times_table(
    utterances: Sequence[Utterance], found: Sequence[dict[str, Any]]
) -> pl.DataFrame | None:
    """Errors of starts of words whose times are known, by whether what mattered most for a word
    lies at its time; None where none are known."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for one, each in zip(utterances, found):
        own = each["words"]
        for a, b in equal_words(
            [word["word"] for word in own], [word.text for word in one.words or ()]
        ):
            errors[own[a]["near"]].append(abs(own[a]["start"] - (one.words or ())[b].start))
    if not errors[True] and not errors[False]:
        return None
    rows = [
        {
            "what mattered most": "at the word" if near else "elsewhere",
            "words": len(each),
            "start_mae_ms": 1000 * float(np.mean(each)) if each else None,
            "within_100_ms": float(np.mean(np.array(each) <= 0.1)) if each else None,
        }
        for near, each in errors.items()
    ]
    return pl.DataFrame(rows)


def _headline(table: pl.DataFrame, recordings: int) -> str:
    parts = []
    for name in ("states", "spectrogram"):
        row = table.filter((pl.col("saliency") == name) & (pl.col("attention") == "all heads"))
        if len(row):
            one = row.row(0, named=True)
            parts.append(
                f"{one['pearson']:.3f} ({one['low']:.3f} to {one['high']:.3f}) with the {name}"
            )
    said = " and ".join(parts) or "only gradients were asked for"
    return (
        f"{recordings} recordings: the mean of all heads of the cross-attention correlates {said}; 1 would be all "
        "of it."
    )
