"""Could a finding be told without the lung? As `..audit`, with linear models that tell all findings
together (ridge regression).

Shapes: N pictures, D numbers of a probe, K findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....models.layers.encoders import TileEncoder
from ...engine.spec import JsonValue
from ...engine.subsets import stratified_folds
from ...metrics.bootstrap import bootstrap_intervals
from ...metrics.classification import weighted_auc
from ...metrics.multilabel import label_scores
from ..audit import (
    COMPARED,
    DRAWS,
    FOLDS,
    LEAST_PICTURES,
    MOST_PICTURES,
    READABLE,
    SOURCE,
    VIEW,
    Probe,
    Within,
    features_of,
    sources_and_views,
)
from ..data import SeveralXrays

Scores = tuple[np.ndarray, np.ndarray, np.ndarray]
"""truth and known, bool (N, K), and what tells them, float (N, K)."""


@dataclass(frozen=True)
class FindingProbe:
    """What a linear model reads of one finding from something other than the lung."""

    finding: str
    probe: Probe


@dataclass(frozen=True)
class SeveralAudit:
    """What the audit found; sentences: in plain words, the first says whether to be warned."""

    probes: list[FindingProbe]
    within: list[Within]
    sentences: list[str]

    @property
    def readable(self) -> list[str]:
        """Findings that a probe tells."""
        return list(dict.fromkeys(row.finding for row in self.probes if row.probe.readable))

    @property
    def strongest(self) -> list[FindingProbe]:
        """For each probe the finding that it tells best."""
        best: dict[str, FindingProbe] = {}
        for row in self.probes:
            name = row.probe.name
            if name not in best or row.probe.auc > best[name].probe.auc:
                best[name] = row
        return list(best.values())

    def to_json(self) -> dict[str, JsonValue]:
        """What metrics.json holds."""
        probes: dict[str, dict[str, JsonValue]] = {}
        for row in self.probes:
            probe = row.probe
            probes.setdefault(row.finding, {})[probe.name] = [probe.auc, probe.low, probe.high]
        return {
            "readable": self.readable,
            "sentences": self.sentences,
            "within": [row.row() for row in self.within],
            "probes": probes,
        }


def audit_findings(
    part: SeveralXrays, probability: np.ndarray, seed: int, encoder: TileEncoder | None = None
) -> SeveralAudit:
    """Probe all pictures of the data that the part is from, and score the model within each source
    and view of the part; probability: (N, K) of the pictures of the part; encoder: as of `audit`.
    """
    probes = _probe_all(part, seed, encoder)
    within = _within(part, probability, seed)
    return SeveralAudit(probes, within, _sentences(probes, within))


def _probe_all(part: SeveralXrays, seed: int, encoder: TileEncoder | None) -> list[FindingProbe]:
    rows = part.reader.xrays.rows()
    if len(rows) > MOST_PICTURES:
        generator = np.random.default_rng(seed)
        rows = np.sort(generator.permutation(rows)[:MOST_PICTURES])
    probed = SeveralXrays(part.reader, rows, part.classes)
    patients = np.array(probed.column("patients"))
    truth, known = probed.truth, probed.known
    counts = np.stack([truth.sum(0), (known & ~truth).sum(0)])
    enough = np.flatnonzero((counts >= FOLDS).all(0))
    if len(set(patients)) < FOLDS or not len(enough):
        return []
    truth, known = truth[:, enough], known[:, enough]
    rarest = np.where(truth, truth.sum(0), len(truth) + 1)
    stratum = np.where(truth.any(1), rarest.argmin(1), len(enough))
    folds = stratified_folds(stratum, patients, FOLDS, seed)
    results = []
    for name, features in features_of(probed, encoder).items():
        told = np.zeros(truth.shape)
        for test in folds:
            train = np.setdiff1d(np.arange(len(truth)), test)
            told[test] = ridge(features[train], truth[train], known[train], features[test])
        for place, (area, low, high) in enumerate(_areas((truth, known, told), patients, seed)):
            readable = name not in COMPARED and bool(low > READABLE)
            probe = Probe(name, area, low, high, readable)
            results.append(FindingProbe(part.classes[enough[place]], probe))
    return results


def ridge(x: np.ndarray, truth: np.ndarray, known: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What a ridge regression of the findings on x (N, D) tells of other rows (M, D), (M, K).

    Features are standardised, and as much weight is on the penalty as on the mean square of a row.
    A label that is not known counts as the mean of those that are.
    """
    centre, scale = x.mean(0), x.std(0)
    scale[scale < 1e-6] = 1.0
    x, other = (x - centre) / scale, (other - centre) / scale
    mean = (truth & known).sum(0) / known.sum(0).clip(1)
    y = np.where(known, truth - mean, 0.0)
    penalty = float(x.shape[1])
    if x.shape[1] <= len(x):
        return other @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return other @ x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)


def _areas(scores: Scores, patients: np.ndarray, seed: int) -> list[tuple[float, float, float]]:
    """AUC of each finding with the ends of its 95 % interval by patient."""
    truth, known, told = scores

    def of(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            str(k): weighted_auc(truth[rows, k], told[rows, k], weights[:, rows])
            for k, rows in enumerate(known.T)
        }

    plain = of(np.ones((1, len(truth))))
    ends = bootstrap_intervals(of, patients, draws=DRAWS, seed=seed)
    return [(float(plain[name][0]), *ends[name]) for name in plain]


def _within(part: SeveralXrays, probability: np.ndarray, seed: int) -> list[Within]:
    """The mean AUC of the model in each source and view by itself, over the findings with enough
    pictures there; None where no finding has.
    """
    rows: list[Within] = []
    patients = np.array(part.column("patients"))
    for kind, name, members in sources_and_views(part):
        truth, known = part.truth[members], part.known[members]
        having = truth.sum(0)
        enough = (having >= LEAST_PICTURES) & ((known & ~truth).sum(0) >= LEAST_PICTURES)
        area = low = high = None
        if enough.any():
            chance = probability[members][:, enough]
            scores = label_scores(
                truth[:, enough],
                known[:, enough],
                chance,
                np.full(int(enough.sum()), 0.5),
                patients[members],
                draws=DRAWS,
                seed=seed,
            )
            area, (low, high) = scores.means["auc"], scores.mean_intervals["auc"]
        counts = [f"{n} {label}" for n, label in zip(having.tolist(), part.classes)]
        among = ", ".join(part.classes[k] for k in np.flatnonzero(enough))
        every_finding = bool((having > 0).all())
        rows.append(
            Within(
                kind,
                name,
                int(members.sum()),
                ", ".join(counts),
                every_finding,
                among,
                auc=area,
                low=low,
                high=high,
            )
        )
    return rows


def _sentences(probes: Sequence[FindingProbe], within: Sequence[Within]) -> list[str]:
    lines = [_on_probes(probes)]
    for kind in (SOURCE, VIEW):
        rows = [row for row in within if row.kind == kind]
        scored = [f"{row.name} {row.auc:.2f}" for row in rows if row.auc is not None]
        if scored:
            lines.append(
                f"Within one {kind} this run has a mean AUC of {', '.join(scored)}, over the "
                "findings with enough pictures there."
            )
        elif rows:
            lines.append(
                f"No {kind} has {LEAST_PICTURES} pictures with and without a finding in this part, "
                "to score this run within it."
            )
    if not any(row.probe.name in (SOURCE, VIEW) for row in probes):
        lines.append(
            "The data names neither source nor view (or only one); add such columns to have them "
            "checked."
        )
    return lines


def _on_probes(probes: Sequence[FindingProbe]) -> str:
    readable: dict[str, list[str]] = {}
    for row in probes:
        if row.probe.readable:
            text = f"{row.probe.name} {row.probe.auc:.2f}"
            readable.setdefault(row.finding, []).append(text)
    if readable:
        names = "; ".join(f"{name} (from {', '.join(told)})" for name, told in readable.items())
        return (
            f"Warning: findings can be told without the lung: {names} (AUC; .5 is chance). "
            "A model may be reading the hospital or the way the picture was taken."
        )
    without = [row for row in probes if row.probe.name not in COMPARED]
    if not without:
        return "The data is too small to look for shortcuts."
    best = max(without, key=lambda row: row.probe.auc)
    return (
        f"No probe told a finding without the lung; the best was {best.probe.name} for "
        f"{best.finding} with an AUC of {best.probe.auc:.2f} ({best.probe.low:.2f} to "
        f"{best.probe.high:.2f}; .5 is chance). This is no proof that the model reads the lung."
    )
