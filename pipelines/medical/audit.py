"""Could the label be read without the lung? What source, view, the size of the file, the border and
the picture without its lungs say of the label, and how the model does within one source or view.

Each probe is a plain linear model, trained and scored in five folds by patient over all pictures of
the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.formats.pictures import resized
from ..metrics.classification import bootstrap, scores
from .data import Source, Xrays

MOST = 2000  # pictures that are probed
SIDE = 48  # pixels of the pictures that are probed
BORDER = 4  # pixels of them that are border, on each side
FOLDS = 5
READABLE = 0.55  # lower end of the interval of AUC from which a probe counts as telling the label
LEAST = 10  # pictures of each class that a source or view needs to be scored by itself


@dataclass(frozen=True)
class Probe:
    """What a linear model reads of the label from something that is not the lung: AUC with its 95 %
    interval.
    """

    name: str
    auc: float
    low: float
    high: float
    readable: bool


def probes(source: Source, classes: Sequence[str], rows: np.ndarray, seed: int) -> list[Probe]:
    """The probes that the data allows, the whole picture last, to compare with."""
    generator = np.random.default_rng(seed)
    if len(rows) > MOST:
        rows = np.sort(generator.permutation(rows)[:MOST])
    part = Xrays(source, rows, classes)
    patients = np.array(part.of("patients"))
    given = _features(part)
    found = []
    for name, x in given.items():
        probability = _cross_predicted(x, part.labels, patients, len(classes), seed)
        if probability is None:
            continue
        auc = scores(part.labels, probability)["auc"]
        low, high = bootstrap(part.labels, probability, patients, draws=500, seed=seed)["auc"]
        found.append(Probe(name, auc, low, high, name != WHOLE and bool(low > READABLE)))
    return found


SOURCE, VIEW, SHAPE = "source", "view", "size of the file"
BORDERS, WITHOUT, WHOLE = "border pixels", "picture without lungs", "whole picture (for comparison)"


def _features(part: Xrays) -> dict[str, np.ndarray]:
    """(N, D) of each probe; those that say nothing (one source, one view, one size) are left
    out.
    """
    found: dict[str, np.ndarray] = {}
    for name, column in ((SOURCE, "sources"), (VIEW, "views")):
        values = np.array(part.of(column))
        if len(kinds := np.unique(values)) > 1:
            found[name] = (values[:, None] == kinds).astype(np.float64)
    pictures, shapes = [], []
    for row in part.rows:
        picture, _, shape = part.source.picture(int(row))
        pictures.append(resized(picture[0], (SIDE, SIDE)))
        shapes.append(shape)
    sides = np.log(np.array(shapes, np.float64))
    if len(np.unique(sides, axis=0)) > 1:
        found[SHAPE] = np.column_stack([sides, sides[:, 0] - sides[:, 1]])
    x = np.stack(pictures)
    edge = np.ones((SIDE, SIDE), bool)
    edge[BORDER:-BORDER, BORDER:-BORDER] = False
    found[BORDERS] = x[:, edge].astype(np.float64)
    found[WITHOUT] = x[:, ~lung_fields(SIDE)].astype(np.float64)
    found[WHOLE] = x.reshape(len(x), -1).astype(np.float64)
    return found


def lung_fields(side: int) -> np.ndarray:
    """Where lungs lie in a frontal picture, bool (side, side): two generous ellipses, so that
    little lung is left. They are the same for all pictures: masks of their own, blacked out, would
    tell the shape of the lungs."""
    place = (np.arange(side) + 0.5) / side
    down = ((place[:, None] - 0.47) / 0.42) ** 2
    left, right = (down + ((place - middle) / 0.24) ** 2 <= 1 for middle in (0.28, 0.72))
    return left | right


def _cross_predicted(
    x: np.ndarray, labels: np.ndarray, patients: np.ndarray, classes: int, seed: int
) -> np.ndarray | None:
    """Probabilities (N, K) of the fold that has not seen a picture; None where patients or classes
    are too few.
    """
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    if len(set(patients)) < FOLDS or min(np.bincount(labels, minlength=classes)) < FOLDS:
        return None
    found = np.zeros((len(labels), classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small classes, and of steps: a probe need not converge
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(
            x, labels, patients
        )
        for train, test in folds:
            if len(there := np.unique(labels[train])) < 2:
                return None
            centre, scale = x[train].mean(0), x[train].std(0)
            scale[scale < 1e-6] = 1.0
            strength = 1.0 if x.shape[1] < 50 else 1.0 / x.shape[1]
            fitted = LogisticRegression(C=strength, max_iter=300, random_state=seed)
            fitted.fit((x[train] - centre) / scale, labels[train])
            found[np.ix_(test, there)] = fitted.predict_proba((x[test] - centre) / scale)
    return found


def within(part: Xrays, probability: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """The model's AUC in each source and view by itself, with interval by patient, among the
    classes that have enough pictures there; none where fewer than two have."""
    rows: list[dict[str, Any]] = []
    patients = np.array(part.of("patients"))
    for kind, column in ((SOURCE, "sources"), (VIEW, "views")):
        values = np.array(part.of(column))
        names = np.unique(values)
        for name in names if len(names) > 1 else []:
            own = values == name
            count = np.bincount(part.labels[own], minlength=len(part.classes))
            row: dict[str, Any] = {
                "within": kind,
                "name": name or "(none)",
                "pictures": int(own.sum()),
            }
            row["pictures of each class"] = ", ".join(
                f"{n} {c}" for n, c in zip(count.tolist(), part.classes)
            )
            row["every class"] = bool((count > 0).all())
            there = np.flatnonzero(count >= LEAST)
            row |= {
                "among": ", ".join(part.classes[c] for c in there),
                "AUC": None,
                "low": None,
                "high": None,
            }
            if len(there) > 1:
                own &= np.isin(part.labels, there)
                chance = probability[own][:, there]
                given = (
                    np.searchsorted(there, part.labels[own]),
                    chance / chance.sum(1, keepdims=True).clip(1e-12),
                )
                row["AUC"] = scores(*given)["auc"]
                row["low"], row["high"] = bootstrap(*given, patients[own], draws=500, seed=seed)[
                    "auc"
                ]
            rows.append(row)
    return rows


def sentences(found: Sequence[Probe], apart: Sequence[dict[str, Any]], auc: float) -> list[str]:
    """What the audit found, in plain words; the first says whether to be warned."""
    told = [probe for probe in found if probe.readable]
    said = []
    if told:
        names = ", ".join(f"{probe.name} ({probe.auc:.2f})" for probe in told)
        said.append(
            f"Warning: the label can be read without the lung, from: {names} (AUC; .5 is chance). A model may "
            "be reading the hospital or the way the picture was taken."
        )
    elif found:
        best = max((probe for probe in found if probe.name != WHOLE), key=lambda probe: probe.auc)
        said.append(
            f"No probe told the label without the lung; the best was {best.name} with an AUC of {best.auc:.2f} "
            f"({best.low:.2f} to {best.high:.2f}; .5 is chance). This is no proof that the model reads the lung."
        )
    else:
        said.append("The data is too small to look for shortcuts.")
    for kind in (SOURCE, VIEW):
        own = [row for row in apart if row["within"] == kind]
        scored = [row for row in own if row["AUC"] is not None]
        if scored:
            each = ", ".join(f"{row['name']} {row['AUC']:.2f}" for row in scored)
            low = min(row["AUC"] for row in scored)
            hint = "; part of what it knows is which one it is" if low < auc - 0.03 else ""
            said.append(
                f"Within one {kind} the model has an AUC of {each}, over all {auc:.2f}{hint}."
            )
        elif own:
            said.append(
                f"No {kind} has {LEAST} pictures of two classes in this part, to score the model within it."
            )
        if own and not any(row["every class"] for row in own):
            said.append(
                f"No {kind} has pictures of every class: {kind} and label cannot be told apart."
            )
    if not any(probe.name in (SOURCE, VIEW) for probe in found):
        said.append(
            "The data names neither source nor view (or only one); add such columns to have them checked."
        )
    return said
