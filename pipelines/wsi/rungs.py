"""The rungs of slides: the shares of the classes, the best of a few models of statistics of a bag,
and its blend with the bag model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from ...models.bags.simple import (
    BlendedBags,
    ForestBags,
    KernelBags,
    LinearBags,
    PriorBags,
    SimpleBags,
)
from ...models.layers.forest import Forest, ForestSizes, random_forest
from ..engine.class_ladder import class_list, class_scores, fit_blend, prior_logits
from ..engine.ladder import (
    LEAST_BLOCKS,
    LadderScores,
    Rung,
    Rungs,
    drawn_scores,
    rung_outputs,
    weighted_mean,
)
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..engine.subsets import stratified_folds
from .data import BagSet, WsiSpec
from .options import WsiOptions

FOLDS = 3  # that choose a simple model
FOLDS_OF_FEW = 10  # where there are so few bags that each one counts, and a fit takes no time
FEW = 300  # bags
TREES = 300
TRIAL_TREES = 60  # while forms are compared
PENALTIES = (0.005, 0.05, 0.5)  # inverse ones, C of scikit-learn
MACHINES = (1.0, 3.0)
SURE = 0.95
PLATT_FOLDS = 5
PLATT_PENALTY = 10.0  # an inverse one; 1 flattens the logit of a hundred bags


class Form(NamedTuple):
    """A simple model before it is fitted."""

    kind: str
    extremes: bool
    strength: float = 0.0

    @property
    def words(self) -> str:
        of = "the mean, least and largest instance" if self.extremes else "the mean instance"
        kind = {
            "linear": f"logistic regression (C = {self.strength:g})",
            "forest": f"random forest of {TREES} trees",
            "kernel": f"support vector machine (C = {self.strength:g})",
        }[self.kind]
        return f"{kind} on {of}"

    @property
    def short(self) -> str:
        return {
            "linear": "logistic regression",
            "forest": "a random forest",
            "kernel": "a support vector machine",
        }[self.kind]


class SlideRungs(Rungs[WsiOptions, WsiSpec, BagSet]):
    """The shares of the classes, the best of a few models of statistics of a bag, and the blend."""

    def answer_words(self, options: WsiOptions, spec: WsiSpec) -> str:
        """What is told of a slide."""
        return f"class of a slide ({class_list(spec.classes)})"

    def model_words(self, options: WsiOptions) -> str:
        """The name of the bag model."""
        return options.model

    def simple(
        self,
        model: nn.Module,
        splits: Splits[WsiSpec, BagSet],
        options: WsiOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The shares of the classes, and the form with the smallest log-loss, over folds of the
        training part and over the validation part together.
        """
        train, spec = splits.train, splits.spec
        seed = options.seed % (1 << 32)  # as scikit-learn takes it
        naive = PriorBags(spec.width, len(spec.classes))
        naive.logits = prior_logits(train.labels, len(spec.classes))
        rungs = {"naive": Rung("shares of the classes", naive, short="the shares of the classes")}
        if len(np.unique(train.labels)) < 2:
            return rungs
        statistics = Statistics(train, splits.validation)
        held_out = statistics.held_out(seed)
        losses = {form: _losses_of(form, held_out, spec, seed) for form in forms(len(spec.classes))}
        best = min(losses, key=lambda form: losses[form].mean())

        def rung(bags: np.ndarray, labels: np.ndarray) -> Rung:
            fitted = fit_form(best, bags, labels, spec, seed)
            return Rung(best.words, fitted, _facts(best, fitted), short=best.short)

        def refit() -> Rung:
            return rung(*statistics.together())

        rungs["simple"] = rung(statistics.train, train.labels)._replace(
            proven=_is_proven(losses[best], held_out),
            refit=refit if len(splits.validation) else None,
        )
        return rungs

    def blend(
        self,
        model: nn.Module,
        simple: nn.Module,
        splits: Splits[WsiSpec, BagSet],
        options: WsiOptions,
        device: torch.device,
    ) -> Rung:
        """The mean of the probabilities of the two."""
        validation, blend = splits.validation, BlendedBags(model, simple.to(device))
        logits = logits_of({"model": model, "simple": blend.simple}, validation, device)
        groups = len(set(validation.patients.tolist()))
        words = fit_blend(blend, validation.labels, logits["model"], logits["simple"], groups)
        return Rung(words, blend)

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: WsiSpec,
    ) -> nn.Module:
        """Shares, a regression, a forest or a machine, or the blend."""
        width, classes, extremes = spec.width, len(spec.classes), bool(facts.get("extremes"))
        if name == "naive":
            return PriorBags(width, classes)
        if name == "blend":
            return BlendedBags(models["model"], models["simple"])
        if facts["kind"] == "linear":
            return LinearBags(width, classes, extremes=extremes)
        if facts["kind"] == "kernel":
            return KernelBags(width, int(str(facts["vectors"])), extremes=extremes)
        forest = Forest(**cast(ForestSizes, facts["sizes"]))
        return ForestBags(width, forest, extremes=extremes)

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: BagSet,
        context: Context[WsiOptions, WsiSpec],
    ) -> LadderScores:
        """Log-loss, with draws of patients."""
        logits = logits_of(models, dataset, context.device)
        return class_scores(dataset.labels, logits, dataset.patients)


def forms(classes: int) -> list[Form]:
    """What is tried."""
    linear = [Form("linear", extremes, c) for extremes in (False, True) for c in PENALTIES]
    kernel = [Form("kernel", True, c) for c in MACHINES] if classes == 2 else []
    return [*linear, Form("forest", True), *kernel]


class HeldOut(NamedTuple):
    """Statistics that a form is fitted to, with their labels, and others that judge it, with their
    labels and patients.
    """

    fitted: np.ndarray
    labels: np.ndarray
    held: np.ndarray
    held_labels: np.ndarray
    held_groups: np.ndarray


class Statistics:
    """Mean, least and largest instance of the bags (N, 3 D) of two parts, in float64."""

    def __init__(self, train: BagSet, validation: BagSet) -> None:
        self.train, self.validation = _statistics(train), _statistics(validation)
        self.labels, self.groups = train.labels, train.patients
        self.held_labels, self.held_groups = validation.labels, validation.patients

    def together(self) -> tuple[np.ndarray, np.ndarray]:
        """Statistics and labels of both parts."""
        bags = np.concatenate([self.train, self.validation])
        return bags, np.concatenate([self.labels, self.held_labels])

    def held_out(self, seed: int) -> list[HeldOut]:
        """Folds of the training part, each held out from a fit of the others, and the validation
        part, held out from a fit of all of it.
        """
        parts: list[HeldOut] = []
        count = FOLDS_OF_FEW if len(self.labels) <= FEW else FOLDS
        largest = int(np.bincount(self.labels).max())  # a fold takes one of this class at least
        count = min(count, largest, len(set(self.groups.tolist())))
        folds = stratified_folds(self.labels, self.groups, count, seed) if count > 1 else []
        for rows in folds:
            rest = np.setdiff1d(np.arange(len(self.labels)), rows)
            if len(np.unique(self.labels[rest])) > 1:
                fitted, held = (self.train[rest], self.train[rows]), self.labels[rows]
                parts.append(
                    HeldOut(fitted[0], self.labels[rest], fitted[1], held, self.groups[rows])
                )
        held = self.validation, self.held_labels, self.held_groups
        return [*parts, HeldOut(self.train, self.labels, *held)]


def _statistics(bags: BagSet) -> np.ndarray:
    model = SimpleBags(bags[0][0].shape[1], extremes=True)
    return np.concatenate([model.statistics(bags[k][0].float()).numpy() for k in range(len(bags))])


def _losses_of(form: Form, parts: Sequence[HeldOut], spec: WsiSpec, seed: int) -> np.ndarray:
    """Log-losses of samples that the form was not fitted on, (N,)."""
    return np.concatenate(
        [
            _losses(
                fit_form(form, part.fitted, part.labels, spec, seed, trial=True),
                part.held,
                part.held_labels,
            )
            for part in parts
        ]
    )


def _prior_losses(part: HeldOut) -> np.ndarray:
    """Log-losses of the shares of the classes, (N,)."""
    classes = 1 + max(int(part.labels.max()), int(part.held_labels.max(initial=0)))
    logits = prior_logits(part.labels, classes).double().numpy()
    return -log_softmax(logits)[part.held_labels]


def _is_proven(losses: np.ndarray, parts: Sequence[HeldOut]) -> bool:
    """Whether a form with these losses (N,) is better than the shares of the classes in 95 % of all
    draws of patients: it is asked whether it is better, not by how much.
    """
    by_rung: dict[RungName, np.ndarray] = {
        "naive": np.concatenate([_prior_losses(part) for part in parts]),
        "simple": losses,
    }
    scores = drawn_scores(
        "log-loss",
        {name: float(values.mean()) for name, values in by_rung.items()},
        {name: partial(weighted_mean, values) for name, values in by_rung.items()},
        np.concatenate([part.held_groups for part in parts]),
    )
    return scores.blocks >= LEAST_BLOCKS and scores.share_better("simple", "naive") >= SURE


@torch.no_grad()
def _losses(model: SimpleBags, statistics: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(statistics[:, : model.size]).float()
    logits = model.classify((rows - model.mean) / model.deviation).double().numpy()
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def fit_form(
    form: Form,
    statistics: np.ndarray,
    labels: np.ndarray,
    spec: WsiSpec,
    seed: int,
    *,
    trial: bool = False,
) -> SimpleBags:
    """Fit with scikit-learn and keep the tensors. statistics (N, 3 D); labels of two classes or
    more; trial: a smaller forest, to compare forms.
    """
    x = statistics if form.extremes else statistics[:, : spec.width]
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation < 1e-6 * (1 + np.abs(mean))] = 1.0
    standardised = ((x - mean) / deviation).astype(np.float32)
    if form.kind == "linear":
        model = _fit_linear(form, standardised, labels, spec, seed)
    elif form.kind == "forest":
        model = _fit_forest(standardised, labels, spec, seed, TRIAL_TREES if trial else TREES)
    else:
        model = _fit_machine(form, standardised, labels, spec.width, seed)
    model.mean, model.deviation = (
        torch.from_numpy(mean).float(),
        torch.from_numpy(deviation).float(),
    )
    return model


def _fit_linear(
    form: Form, x: np.ndarray, labels: np.ndarray, spec: WsiSpec, seed: int
) -> LinearBags:
    from ..metrics.linear_baseline import fit_linear_baseline

    fitted = fit_linear_baseline(
        x, labels, len(spec.classes), inverse_penalty=form.strength, iterations=2000, seed=seed
    )
    model = LinearBags(spec.width, len(spec.classes), extremes=form.extremes)
    model.weight = fitted["baseline_weight"].float()
    model.bias = fitted["baseline_bias"].float()
    return model


def _fit_forest(
    x: np.ndarray, labels: np.ndarray, spec: WsiSpec, seed: int, trees: int
) -> ForestBags:
    from sklearn.ensemble import RandomForestClassifier

    fitted = RandomForestClassifier(trees, random_state=seed, min_samples_leaf=2)
    fitted.fit(x, labels)
    return ForestBags(spec.width, random_forest(fitted, len(spec.classes)), extremes=True)


def _fit_machine(
    form: Form, x: np.ndarray, labels: np.ndarray, width: int, seed: int
) -> KernelBags:
    """The logit of the margin is fitted to rows that the machine was not fitted on (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import SVC

    machine = SVC(C=form.strength, gamma="scale").fit(x, labels)
    model = KernelBags(width, len(machine.support_vectors_), extremes=True)
    model.vectors = torch.from_numpy(machine.support_vectors_).float()
    model.weights = torch.from_numpy(machine.dual_coef_[0]).float()
    bias = float(machine.intercept_[0])
    model.gamma = torch.tensor(float(machine._gamma))
    folds = min(PLATT_FOLDS, int(np.bincount(labels).min()))
    if folds >= 2:
        margins = np.asarray(
            cross_val_predict(machine, x, labels, cv=folds, method="decision_function")
        )
        logit = LogisticRegression(C=PLATT_PENALTY).fit(margins[:, None], labels)
        slope = max(float(logit.coef_[0, 0]), 0.1)
        model.slope = torch.tensor(slope)
        bias += float(logit.intercept_[0]) / slope
    model.bias = torch.tensor(bias)
    return model


def _facts(form: Form, model: SimpleBags) -> dict[str, object]:
    facts: dict[str, object] = {"kind": form.kind, "extremes": form.extremes}
    if isinstance(model, ForestBags):
        facts["sizes"] = model.forest.sizes
    if isinstance(model, KernelBags):
        facts["vectors"] = len(model.vectors)
    return facts


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], bags: BagSet, device: torch.device
) -> dict[RungName, np.ndarray]:
    """float64 (N, C) of each rung."""
    rows: dict[RungName, list[torch.Tensor]] = {name: [] for name in models}
    for k in range(len(bags)):
        x = bags[k][0].to(device)
        for name, logits in rung_outputs(models, lambda model, x=x: model(x)).items():
            rows[name].append(logits)
    return {name: torch.cat(values).double().cpu().numpy() for name, values in rows.items()}
