"""The verb compare: cross-attention against saliency over a set of recordings, with intervals.

The comparison of Papi et al. (arXiv 2509.18010), and what its readers asked for in addition: ranks,
single heads, gradients, intervals, how reliable the saliency itself is, and whether the warnings
about word times are justified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ....data.speech.transcripts import Word
from ...engine.command_line.terminal import say
from ...engine.pipeline import Review
from ...engine.runs.report import markdown, write_sheets
from ...metrics.alignment import equal_words
from ...metrics.bootstrap import UNDEFINED, Interval, interval_of_mean
from ..figures import agreement_figure, deletion_figure
from ..options import CompareOptions
from ..pipeline import SpeechPipeline
from ..transcriber import Transcriber
from .agreement import Findings, WordFindings, find_agreement
from .deletion import area_under, deletion_curves
from .probing import count_failures, probe_recordings, write_findings
from .saliency import SaliencyMaps, TranscribedRecording

CAPTIONS = {
    "agreement": (
        "Correlation of cross-attention with saliency, mean over recordings (95 % interval)"
    ),
    "reliability": "Reliability of the saliency itself (two halves of the masks, stepped up)",
    "deletion": (
        "Word error rate under deletion: area under the curve, percent (larger: better map)"
    ),
    "word-times": "Errors of word times where what mattered lies at the word, and elsewhere",
}


@dataclass(frozen=True)
class Compared:
    """What was written; failed: recordings without findings."""

    output: Path
    agreement: pl.DataFrame
    deletion: pl.DataFrame | None
    failed: int


def compare(pipeline: SpeechPipeline, options: CompareOptions) -> Compared:
    """Compare over --data; writes report.html, tables/ and figures/ into --output."""
    output, measure = Path(options.output), partial(_measure, options)
    with probe_recordings(pipeline, options, options.data, measure, title="compare") as recordings:
        measured = [(r.utterance, r.findings) for r in recordings if r.findings is not None]
        findings = [recording_findings for _, recording_findings in measured]
        agreement = agreement_table(findings, options.seed)
        sheets = {"agreement": agreement, "reliability": reliability_table(findings, options.seed)}
        figures = [agreement_figure(agreement)]
        if options.deletion:
            curves = curves_of(findings)
            sheets["deletion"] = deletion_table(curves, options.seed)
            figures.append(deletion_figure(curves))
        times = times_table([(u.words or (), f["words"]) for u, f in measured])
        if times is not None:
            sheets["word-times"] = times
        headline = _headline(agreement, len(findings))
        tables = {CAPTIONS[name]: table for name, table in sheets.items()}
        write_sheets(output / "tables", sheets, "")
        say(markdown(agreement.filter(~pl.col("attention").str.contains(" head "))))
        say(headline)
        review = Review({}, headline, figures, tables)
        write_findings(pipeline, options, options.data, recordings, review, output / "figures")
    return Compared(output, agreement, sheets.get("deletion"), count_failures(recordings))


def _measure(
    options: CompareOptions,
    transcriber: Transcriber,
    recording: TranscribedRecording,
    maps: SaliencyMaps,
    stem: str,
) -> Findings:
    findings = find_agreement(recording, maps, transcriber.alignment_heads)
    if options.deletion:
        findings["deletion"] = deletion_curves(transcriber, recording, maps, options.seed)
    return findings


def _interval(values: np.ndarray, seed: int) -> Interval:
    """95 % bootstrap interval of the mean over recordings, without NaN; NaN of fewer than two."""
    finite = values[np.isfinite(values)]
    return interval_of_mean(finite, seed=seed) if len(finite) > 1 else UNDEFINED


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def agreement_table(findings: Sequence[Findings], seed: int) -> pl.DataFrame:
    """One row per saliency and average of the attention: Pearson's and Spearman's correlation with
    intervals.
    """
    rows = []
    for saliency, averages in findings[0]["agreement"].items():
        for average in averages:
            pearson, spearman = np.array(
                [recording["agreement"][saliency][average] for recording in findings], float
            ).T
            low, high = _interval(pearson, seed)
            spearman_low, spearman_high = _interval(spearman, seed)
            rows.append(
                {
                    "saliency": saliency,
                    "attention": average,
                    "pearson": _mean(pearson),
                    "low": low,
                    "high": high,
                    "spearman": _mean(spearman),
                    "spearman_low": spearman_low,
                    "spearman_high": spearman_high,
                    "recordings": int(np.isfinite(pearson).sum()),
                }
            )
    return pl.DataFrame(rows)


def reliability_table(findings: Sequence[Findings], seed: int) -> pl.DataFrame:
    """Mean reliability of each saliency by masks."""
    rows = []
    for saliency in findings[0]["reliability"]:
        values = np.array([recording["reliability"][saliency] for recording in findings], float)
        rows.append((saliency, _mean(values), *_interval(values, seed)))
    columns = dict.fromkeys(("reliability", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={"saliency": pl.String, **columns}, orient="row")


def curves_of(findings: Sequence[Findings]) -> dict[str, np.ndarray]:
    """The deletion curves of all recordings by map, (recordings, steps)."""
    curves = [recording.get("deletion", {}) for recording in findings]
    return {name: np.array([curve[name] for curve in curves]) for name in curves[0]}


def deletion_table(curves: Mapping[str, np.ndarray], seed: int) -> pl.DataFrame:
    """Area under the curve of each map, mean over recordings, with the difference to the
    cross-attention's.
    """
    areas = {name: np.array([area_under(rates) for rates in rows]) for name, rows in curves.items()}
    attention = areas.get("cross-attention")
    rows = []
    for name, values in areas.items():
        low, high = _interval(values, seed)
        row = {"map": name, "area": float(values.mean()), "low": low, "high": high}
        difference = (float("nan"),) * 3
        if attention is not None and name != "cross-attention":
            gaps = values - attention
            difference = (float(gaps.mean()), *_interval(gaps, seed))
        columns = ("more_than_attention", "more_low", "more_high")
        rows.append(row | dict(zip(columns, difference, strict=True)))
    return pl.DataFrame(rows).sort("area", descending=True)


def times_table(
    recordings: Sequence[tuple[Sequence[Word], Sequence[WordFindings]]],
) -> pl.DataFrame | None:
    """Errors of starts of words whose times are known, by whether what mattered most for a word
    lies at its time; None where none are known.

    recordings: the true words of each, and the words that the model found.
    """
    errors: dict[bool, list[float]] = {True: [], False: []}
    for true_words, words in recordings:
        texts, true_texts = [word["word"] for word in words], [word.text for word in true_words]
        for place, true_place in equal_words(texts, true_texts):
            word = words[place]
            errors[word["near"]].append(abs(word["start"] - true_words[true_place].start))
    if not errors[True] and not errors[False]:
        return None
    rows = [
        {
            "what mattered most": "at the word" if near else "elsewhere",
            "words": len(gaps),
            "start_mae_ms": 1000 * float(np.mean(gaps)) if gaps else None,
            "within_100_ms": float(np.mean(np.array(gaps) <= 0.1)) if gaps else None,
        }
        for near, gaps in errors.items()
    ]
    return pl.DataFrame(rows)


def _headline(agreement: pl.DataFrame, recordings: int) -> str:
    parts = []
    for saliency in ("states", "spectrogram"):
        of_all_heads = (pl.col("saliency") == saliency) & (pl.col("attention") == "all heads")
        for row in agreement.filter(of_all_heads).iter_rows(named=True):
            interval = f"({row['low']:.3f} to {row['high']:.3f})"
            parts.append(f"{row['pearson']:.3f} {interval} with the {saliency}")
    correlations = " and ".join(parts) or "only gradients were asked for"
    return (
        f"{recordings} recordings: the mean of all heads of the cross-attention correlates "
        f"{correlations}; 1 would be all of it."
    )
