"""How well several findings are told: scores of each with intervals by patient, and the review.

Shapes: N pictures of a part, K findings, Y x X pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.special import expit
from torch import nn

from ...engine.command_line.terminal import say
from ...engine.pipeline import Context, Metrics, Review
from ...engine.spec import JsonValue
from ...figures.classifier import interval_text
from ...metrics.multilabel import NAMES, LabelScores, label_scores
from .. import figures
from ..data import SeveralXrays
from ..options import MedicalOptions
from ..prediction import attending, is_part
from ..rungs import probed_encoder
from ..scoring import SCORE_NAMES, ShownPicture, attention_table, logits_of, looked_at
from ..spec import MedicalSpec
from .audit import SeveralAudit, audit_findings
from .figures import areas, curves
from .learning import probability_of

MOST_SHOWN = 8  # pictures in the report
LISTED = ("auc", "auprc", "sensitivity", "specificity", "ppv", "npv")  # columns of the table
NO_FINDING = "none"  # what `prediction` is where no finding reaches its operating point


def review_findings(
    model: nn.Module, part: SeveralXrays, context: Context[MedicalOptions, MedicalSpec]
) -> Review:
    """Scores of each finding and their means by patient, calibration, attention, and the audit."""
    options, calibration = context.options, context.calibration
    logits = logits_of(model, part, context.device, options.workers)
    probability = probability_of(logits, calibration)
    thresholds = calibration["threshold"].cpu().double().numpy()
    patients = np.array(part.column("patients"))
    scores = label_scores(
        part.truth, part.known, probability, thresholds, patients, seed=options.seed
    )
    shown = shown_places(part, probability)
    maps, looked = looked_at(model, part, probability, shown, context)
    report = audit_findings(part, probability, options.seed, probed_encoder(model))
    if report.readable:
        say(report.sentences[0])
    temperatures = calibration["temperature"].cpu().double().tolist()
    each = _each(part, probability, scores, thresholds.tolist(), temperatures)
    metrics: Metrics = {
        **scores.means,
        "intervals": {name: list(ends) for name, ends in scores.mean_intervals.items()},
        "findings": each,
        "findings_scored": scores.defined,
        "pictures": len(part),
        "patients": len(set(patients)),
        "baselines": {"prevalence for every picture": _constant(part)},
        "looked": looked,
        "audit": report.to_json(),
    }
    pictures = [areas(part.classes, scores), curves(part, expit(logits), probability)]
    if report.probes:
        best = [row.probe for row in report.strongest]
        pictures.append(figures.shortcuts(best, scores.means["auc"]))
    if shown and maps:
        chosen = [_shown(part, probability, thresholds, k, maps[k]) for k in shown]
        pictures.append(figures.looked(chosen, is_part=is_part(model)))
    tables = {
        "Could it be read without the lung?": pl.DataFrame(
            {"what the audit found": report.sentences}
        ),
        "Scores of each finding, 95 % intervals by patient": score_table(part, scores, each),
        **_further_tables(report),
        **attention_table(looked, has_maps=attending(model) is not None),
    }
    return Review(metrics, _headline(part, scores, report.sentences[0]), pictures, tables)


def _each(
    part: SeveralXrays,
    probability: np.ndarray,
    scores: LabelScores,
    thresholds: Sequence[float],
    temperatures: Sequence[float],
) -> dict[str, dict[str, JsonValue]]:
    """What metrics.json holds of each finding."""
    facts: dict[str, dict[str, JsonValue]] = {}
    for k, name in enumerate(part.classes):
        rows = part.known[:, k]
        known, having = int(rows.sum()), int(part.truth[:, k].sum())
        facts[name] = {
            **scores.values[k],
            "prevalence": having / known if known else float("nan"),
            "mean_probability": float(probability[rows, k].mean()) if known else float("nan"),
            "with": having,
            "without": known - having,
            "unknown": len(part) - known,
            "threshold": thresholds[k],
            "temperature": temperatures[k],
            "intervals": {score: list(ends) for score, ends in scores.intervals[k].items()},
        }
    return facts


def _constant(part: SeveralXrays) -> dict[str, float]:
    """Mean scores of predicting the prevalence of each finding on this part for every picture, the
    best that is possible without looking.
    """
    known = part.known.sum(0)
    share = part.truth.sum(0)[known > 0] / known[known > 0]
    inner = share.clip(1e-12, 1 - 1e-12)
    entropy = -(share * np.log(inner) + (1 - share) * np.log(1 - inner))
    return {"log_loss": float(entropy.mean()), "brier": float((share * (1 - share)).mean())}


def score_table(
    part: SeveralXrays, scores: LabelScores, each: dict[str, dict[str, JsonValue]]
) -> pl.DataFrame:
    """A row for each finding, and one of the means."""
    rows: list[dict[str, JsonValue]] = []
    for k, name in enumerate(part.classes):
        facts = each[name]
        counts = {key: facts[key] for key in ("with", "without", "unknown")}
        prevalence = facts["prevalence"]
        texts = {
            SCORE_NAMES.get(score, score): interval_text(
                scores.values[k][score], scores.intervals[k][score]
            )
            for score in LISTED
        }
        shares = {
            "prevalence": _rounded(prevalence),
            "mean probability": _rounded(facts["mean_probability"]),
            "operating point": _rounded(facts["threshold"]),
        }
        rows.append({"finding": name, **counts, **texts, **shares})
    means = {
        SCORE_NAMES.get(score, score): interval_text(
            scores.means[score], scores.mean_intervals[score]
        )
        for score in LISTED
    }
    rows.append({"finding": f"mean of {scores.defined} of {len(part.classes)}", **means})
    return pl.DataFrame(rows, infer_schema_length=None)


def _rounded(value: JsonValue) -> str:
    assert isinstance(value, float)
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def _further_tables(report: SeveralAudit) -> dict[str, pl.DataFrame]:
    tables: dict[str, pl.DataFrame] = {}
    if report.probes:
        rows = [
            {
                "finding": row.finding,
                "read from": row.probe.name,
                "AUC": interval_text(row.probe.auc, (row.probe.low, row.probe.high)),
                "told without the lung": row.probe.readable,
            }
            for row in report.probes
        ]
        tables["What linear models read of each finding"] = pl.DataFrame(rows)
    if report.within:
        rows = [row.row() for row in report.within]
        table = pl.DataFrame(rows, infer_schema_length=None)
        tables["This run within one source or view"] = table
    return tables


def _headline(part: SeveralXrays, scores: LabelScores, warning: str) -> str:
    """The main scores in one sentence, and the first sentence of the audit."""
    text = {
        name: interval_text(scores.means[name], scores.mean_intervals[name])
        for name in ("auc", "auprc", "sensitivity", "specificity")
    }
    count = f"{len(part.classes)} findings"
    if scores.defined < len(part.classes):
        count = f"{scores.defined} of {count} (the others have no pictures here)"
    return (
        f"{len(part)} pictures of {len(set(part.column('patients')))} patients, means over "
        f"{count}: AUC {text['auc']}, average precision {text['auprc']}; at the operating points "
        f"sensitivity {text['sensitivity']}, specificity {text['specificity']}. {warning}"
    )


def shown_places(part: SeveralXrays, probability: np.ndarray) -> list[int]:
    """For each finding the picture with it whose probability of it is highest, for the report; at
    most `MOST_SHOWN`.
    """
    places: dict[int, None] = {}
    for k in range(len(part.classes)):
        having = np.flatnonzero(part.truth[:, k])
        if len(having) and len(places) < MOST_SHOWN:
            places[int(having[np.argmax(probability[having, k])])] = None
    return list(places)


def reached(probability: Sequence[float], thresholds: Sequence[float]) -> list[int]:
    """The findings of one picture whose probability reaches their operating point, likeliest first.

    >>> reached([0.2, 0.9, 0.5], [0.1, 0.5, 0.6])
    [1, 0]
    """
    pairs = zip(probability, thresholds, strict=True)
    numbers = [k for k, (chance, threshold) in enumerate(pairs) if chance >= threshold]
    return sorted(numbers, key=lambda k: -probability[k])


def _shown(
    part: SeveralXrays,
    probability: np.ndarray,
    thresholds: np.ndarray,
    place: int,
    maps: dict[str, np.ndarray],
) -> ShownPicture:
    """One picture for the report; its maps are of the most probable finding."""
    row = probability[place].tolist()
    labelled = ", ".join(part.classes[k] for k in np.flatnonzero(part.truth[place])) or NO_FINDING
    told = [f"{part.classes[k]} ({row[k]:.0%})" for k in reached(row, thresholds.tolist())]
    headline = (
        f"{part.column('names')[place]}: labelled {labelled}, predicted "
        f"{', '.join(told) or NO_FINDING}; maps of {part.classes[int(np.argmax(row))]}"
    )
    return ShownPicture(headline, part[place]["picture"][0].numpy(), maps)


def mean_scores(
    part: SeveralXrays, probability: np.ndarray, thresholds: np.ndarray
) -> dict[str, float]:
    """Means over the findings, without intervals, for tables of several trainings."""
    groups = np.arange(len(part))
    scores = label_scores(part.truth, part.known, probability, thresholds, groups, draws=1)
    return {name: scores.means[name] for name in ("auc", "auprc", "sensitivity", "specificity")}


assert set(LISTED) <= set(NAMES)
