"""Could the label be read without the lung? Linear models that see only the source, the view, the
size of the file, the border or the picture without its lungs, and the model within one source or
view.

Each probe is a plain linear model, trained and scored in five folds by patient over all pictures of
the data. Shapes: N pictures, D numbers of a probe, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...data.formats.pictures import resized
from ...models.layers.encoders import TileEncoder
from ..engine.frozen import frozen_features
from ..engine.spec import JsonValue
from ..engine.subsets import stratified_folds
from ..metrics.classification import bootstrap, scores
from .data import XrayPart, XrayReader, Xrays

MOST_PICTURES = 2000  # that are probed
SIDE = 48  # pixels of the pictures that are probed
BORDER = 4  # pixels of them that are border, on each side
FOLDS = 5
READABLE = 0.55  # lower end of the interval of AUC from which a probe counts as telling the label
LEAST_PICTURES = 10  # of a class that a source or view needs to be scored by itself
DRAWS = 500  # of the bootstrap

SOURCE, VIEW, FILE_SIZE = "source", "view", "size of the file"
BORDERS, WITHOUT_LUNGS = "border pixels", "picture without lungs"
ENTIRE = "whole picture (for comparison)"
FROZEN = "picture without lungs, frozen features"
FROZEN_ENTIRE = "whole picture, frozen features (for comparison)"
COMPARED = (ENTIRE, FROZEN_ENTIRE)  # see the lungs, too, and are no probes of shortcuts


@dataclass(frozen=True)
class Probe:
    """What a linear model reads of the label from something other than the lung: AUC with its 95 %
    interval.
    """

    name: str
    auc: float
    low: float
    high: float
    readable: bool


@dataclass(frozen=True)
class Within:
    """The AUC of the model within one source or view.

    kind         "source" or "view"
    by_class     pictures of each class, as text
    all_classes  whether each class has pictures there
    among        the classes with enough pictures there, among which the AUC is
    auc          with the ends of its 95 % interval; None where fewer than two classes have enough
    """

    kind: str
    name: str
    pictures: int
    by_class: str
    all_classes: bool
    among: str
    auc: float | None = None
    low: float | None = None
    high: float | None = None

    def row(self) -> dict[str, str | int | float | None]:
        """The row of the report's table and of metrics.json."""
        return {
            "within": self.kind,
            "name": self.name,
            "pictures": self.pictures,
            "pictures of each class": self.by_class,
            "every class": self.all_classes,
            "among": self.among,
            "AUC": self.auc,
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True)
class Audit:
    """What the audit found; sentences: in plain words, the first of them says whether to be
    warned.
    """

    probes: list[Probe]
    within: list[Within]
    sentences: list[str]

    @property
    def readable(self) -> list[str]:
        """Names of the probes that tell the label."""
        return [probe.name for probe in self.probes if probe.readable]

    def to_json(self) -> dict[str, JsonValue]:
        """What metrics.json holds."""
        return {
            "readable": self.readable,
            "sentences": self.sentences,
            "within": [row.row() for row in self.within],
            "probes": {probe.name: [probe.auc, probe.low, probe.high] for probe in self.probes},
        }


def audit(
    part: Xrays, probability: np.ndarray, auc: float, seed: int, encoder: TileEncoder | None = None
) -> Audit:
    """Probe all pictures of the data that the part is from, and score the model within each source
    and view of the part.

    probability: (N, K) of the pictures of the part; auc: of the model on all of them; encoder: of
    the frozen features that what predicts is of.
    """
    probes = probe_all(part.reader, part.classes, part.reader.xrays.rows(), seed, encoder)
    rows = within(part, probability, seed)
    return Audit(probes, rows, sentences(probes, rows, auc))


def probe_all(
    reader: XrayReader,
    classes: Sequence[str],
    rows: np.ndarray,
    seed: int,
    encoder: TileEncoder | None = None,
) -> list[Probe]:
    """The probes that the data allows, the entire picture last, for comparison; with an encoder
    also of its features."""
    generator = np.random.default_rng(seed)
    if len(rows) > MOST_PICTURES:
        rows = np.sort(generator.permutation(rows)[:MOST_PICTURES])
    part = Xrays(reader, rows, classes)
    patients = np.array(part.column("patients"))
    results = []
    for name, features in features_of(part, encoder).items():
        probability = _cross_predicted(features, part.labels, patients, len(classes), seed)
        if probability is None:
            continue
        auc = scores(part.labels, probability)["auc"]
        low, high = bootstrap(part.labels, probability, patients, draws=DRAWS, seed=seed)["auc"]
        readable = name not in COMPARED and bool(low > READABLE)
        results.append(Probe(name, auc, low, high, readable))
    return results


def features_of(part: XrayPart, encoder: TileEncoder | None = None) -> dict[str, np.ndarray]:
    """(N, D) of each probe; a probe without information (one source, one view, one size) is left
    out. encoder: whose features are probed, too, of pictures with and without their lungs.
    """
    features: dict[str, np.ndarray] = {}
    for name, column in ((SOURCE, "sources"), (VIEW, "views")):
        values = np.array(part.column(column))
        if len(kinds := np.unique(values)) > 1:
            features[name] = (values[:, None] == kinds).astype(np.float64)
    pictures, shapes = [], []
    for row in part.rows:
        picture, _, shape = part.reader.pictures[int(row)]
        pictures.append(resized(picture[0], (SIDE, SIDE)))
        shapes.append(shape)
    sides = np.log(np.array(shapes, np.float64))
    if len(np.unique(sides, axis=0)) > 1:
        features[FILE_SIZE] = np.column_stack([sides, sides[:, 0] - sides[:, 1]])
    x = np.stack(pictures)
    edge = np.ones((SIDE, SIDE), bool)
    edge[BORDER:-BORDER, BORDER:-BORDER] = False
    features[BORDERS] = x[:, edge].astype(np.float64)
    features[WITHOUT_LUNGS] = x[:, ~lung_fields((SIDE, SIDE))].astype(np.float64)
    if encoder is not None:
        for name, without in ((FROZEN, True), (FROZEN_ENTIRE, False)):
            pictures = Pictures(part, without_lungs=without)
            seen = frozen_features(pictures, encoder, device=encoder.mean.device)
            features[name] = seen.astype(np.float64)
    features[ENTIRE] = x.reshape(len(x), -1).astype(np.float64)
    return features


def lung_fields(size: tuple[int, int]) -> np.ndarray:
    """Where lungs lie in a frontal picture, bool (height, width): two generous ellipses, so that
    little lung remains outside. They are the same for all pictures: blacking out each picture's own
    mask would tell the shape of its lungs."""
    y, x = ((np.arange(length) + 0.5) / length for length in size)
    down = ((y[:, None] - 0.47) / 0.42) ** 2
    first, second = (down + ((x - middle) / 0.24) ** 2 <= 1 for middle in (0.28, 0.72))
    return first | second


class Pictures:
    """The larger pictures of a part, float32 (1, Y, X) in [0, 1]; without_lungs: black there."""

    def __init__(self, part: XrayPart, *, without_lungs: bool = False) -> None:
        self.part, self.without_lungs = part, without_lungs

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int, /) -> Tensor:
        picture = self.part[index]["picture"]
        if not self.without_lungs:
            return picture
        outside = ~lung_fields((picture.shape[1], picture.shape[2]))
        return picture * torch.from_numpy(outside)


def _cross_predicted(
    x: np.ndarray, labels: np.ndarray, patients: np.ndarray, classes: int, seed: int
) -> np.ndarray | None:
    """Probabilities (N, K), each by a model whose training folds do not hold the patient; None
    where there are too few patients or pictures of a class.
    """
    from sklearn.linear_model import LogisticRegression

    if len(set(patients)) < FOLDS or min(np.bincount(labels, minlength=classes)) < FOLDS:
        return None
    probability = np.zeros((len(labels), classes))
    for test in stratified_folds(labels, patients, FOLDS, seed):
        train = np.setdiff1d(np.arange(len(labels)), test)
        if len(present := np.unique(labels[train])) < 2:
            return None
        centre, scale = x[train].mean(0), x[train].std(0)
        scale[scale < 1e-6] = 1.0
        strength = 1.0 if x.shape[1] < 50 else 1.0 / x.shape[1]
        model = LogisticRegression(C=strength, max_iter=300, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about steps: a probe need not converge
            model.fit((x[train] - centre) / scale, labels[train])
        predicted = model.predict_proba((x[test] - centre) / scale)
        probability[np.ix_(test, present)] = predicted
    return probability


def sources_and_views(part: XrayPart) -> Iterator[tuple[str, str, np.ndarray]]:
    """Each source and view of a part with more than one: its kind, its name and which pictures are
    of it, bool (N,).
    """
    for kind, column in ((SOURCE, "sources"), (VIEW, "views")):
        values = np.array(part.column(column))
        names = np.unique(values)
        for name in names if len(names) > 1 else []:
            yield kind, name or "(none)", values == name


def within(part: Xrays, probability: np.ndarray, seed: int) -> list[Within]:
    """The AUC of the model in each source and view by itself, with its interval by patient, among
    the classes that have enough pictures there; None where fewer than two have.

    probability: (N, K) of the pictures of the part.
    """
    rows: list[Within] = []
    patients = np.array(part.column("patients"))
    for kind, name, members in sources_and_views(part):
        count = np.bincount(part.labels[members], minlength=len(part.classes))
        enough = np.flatnonzero(count >= LEAST_PICTURES)
        by_class = [f"{n} {label}" for n, label in zip(count.tolist(), part.classes)]
        row = Within(
            kind,
            name,
            int(members.sum()),
            ", ".join(by_class),
            bool((count > 0).all()),
            ", ".join(part.classes[c] for c in enough),
        )
        if len(enough) > 1:
            members &= np.isin(part.labels, enough)
            labels = np.searchsorted(enough, part.labels[members])
            chance = probability[members][:, enough]
            chance = chance / chance.sum(1, keepdims=True).clip(1e-12)
            auc = scores(labels, chance)["auc"]
            intervals = bootstrap(labels, chance, patients[members], draws=DRAWS, seed=seed)
            low, high = intervals["auc"]
            row = replace(row, auc=auc, low=low, high=high)
        rows.append(row)
    return rows


def sentences(results: Sequence[Probe], rows: Sequence[Within], auc: float) -> list[str]:
    """What the audit found, in plain words; the first sentence says whether to be warned.

    results: of `probe_all`; rows: of `within`; auc: of the model on all pictures of the part.
    """
    lines = [_on_probes(results)]
    for kind in (SOURCE, VIEW):
        lines += _on_kind(kind, [row for row in rows if row.kind == kind], auc)
    if not any(probe.name in (SOURCE, VIEW) for probe in results):
        lines.append(
            "The data names neither source nor view (or only one); add such columns to have them "
            "checked."
        )
    return lines


def _on_probes(results: Sequence[Probe]) -> str:
    if readable := [probe for probe in results if probe.readable]:
        names = ", ".join(f"{probe.name} ({probe.auc:.2f})" for probe in readable)
        return (
            f"Warning: the label can be read without the lung, from: {names} (AUC; .5 is chance). "
            "A model may be reading the hospital or the way the picture was taken."
        )
    if not results:
        return "The data is too small to look for shortcuts."
    best = max(
        (probe for probe in results if probe.name not in COMPARED), key=lambda probe: probe.auc
    )
    return (
        f"No probe told the label without the lung; the best was {best.name} with an AUC of "
        f"{best.auc:.2f} ({best.low:.2f} to {best.high:.2f}; .5 is chance). This is no proof that "
        "the model reads the lung."
    )


def _on_kind(kind: str, rows: Sequence[Within], auc: float) -> list[str]:
    """Sentences on the model within one source, or one view."""
    if not rows:
        return []
    lines = []
    scored = {row.name: row.auc for row in rows if row.auc is not None}
    if scored:
        by_name = ", ".join(f"{name} {value:.2f}" for name, value in scored.items())
        lower = min(scored.values()) < auc - 0.03
        hint = "; part of what it knows is which one it is" if lower else ""
        lines.append(
            f"Within one {kind} this run has an AUC of {by_name}, over all {auc:.2f}{hint}."
        )
    else:
        lines.append(
            f"No {kind} has {LEAST_PICTURES} pictures of two classes in this part, to score this "
            "run within it."
        )
    if not any(row.all_classes for row in rows):
        lines.append(
            f"No {kind} has pictures of every class: {kind} and label cannot be told apart."
        )
    return lines
