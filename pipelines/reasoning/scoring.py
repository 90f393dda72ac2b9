"""How good answers are: by level, by operator, well-posed and ambiguous trials apart, beside what
can be answered without looking at the scene.

Shapes: N trials of a part, A answers, O objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from ...data.trials.trial import ANSWERS, OPERATORS, question_place
from ...data.trials.words import answer_words
from ...models.layers.blend import BlendedClassifier
from ...models.reasoning.networks import Reasoner
from ...models.reasoning.simple import ConstantByForm
from ..engine.ladder import rung_outputs
from ..engine.options import RungName
from ..engine.spec import JsonValue
from ..engine.training import order
from ..metrics.bootstrap import interval_of_mean
from .data import TrialPart, level_rows

BATCH = 256
LOOKED = 512
"""Trials whose attention is measured for a report."""


@torch.no_grad()
def logits_of(
    models: Mapping[RungName, nn.Module], part: TrialPart, device: torch.device, size: int = BATCH
) -> dict[RungName, np.ndarray]:
    """float64 (N, A) of each rung. size: trials of a batch."""

    def logits(model: nn.Module) -> Tensor:
        batches = order.loader(part, order.sequential(len(part), size), device=device)
        outputs = [model(batch["rules"], batch["scenes"]).float().cpu() for batch in batches]
        return torch.cat(outputs) if outputs else torch.zeros(0, ANSWERS)

    outputs = rung_outputs(models, logits)
    return {name: values.double().numpy() for name, values in outputs.items()}


def log_losses(logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Log-loss of each trial, (N,)."""
    return -log_softmax(logits, axis=1)[np.arange(len(answers)), answers]


def fit_shares(part: TrialPart) -> Tensor:
    """The shares of the answers that each operator gives, as `ConstantByForm` holds them, (10, A):
    of the questions that the rules ask on the way, true and false, of the last ones the answers.
    """
    counts = np.full((len(OPERATORS) + 1, ANSWERS), 1e-6)
    for entry, outcome in zip(part.trials, part.outcomes, strict=True):
        rule, path = entry.trial.rule, outcome.path
        for level, (here, below) in enumerate(pairwise(path)):
            # The first of two branches is that of true.
            counts[rule[here].operator, (below - question_place(level + 1, 0)) % 2] += 1
        counts[rule[path[-1]].operator, entry.trial.answer] += 1
    return torch.from_numpy(counts / counts.sum(1, keepdims=True)).float()


def blind_accuracy(part: TrialPart) -> float:
    """The accuracy of the best constant answer for each form of question: what can be had without
    looking at the scenes. The constants of each half of the trials are those of the other half,
    since those of the same trials would be better by chance. NaN for fewer than two trials.
    """
    if len(part) < 2:
        return float("nan")
    places, right, device = np.arange(len(part)), 0.0, torch.device("cpu")
    for half in (0, 1):
        scored, model = part.take(places[half::2]), ConstantByForm()
        model.shares = fit_shares(part.take(places[1 - half :: 2]))
        logits = logits_of({"simple": model}, scored, device)["simple"]
        right += float((logits.argmax(1) == scored.answers).sum())
    return right / len(part)


@dataclass(frozen=True)
class Share:
    """A share of trials that are answered right, with its 95 % interval by trial (Wilson)."""

    trials: int
    accuracy: float
    interval: tuple[float, float]
    blind: float

    def to_json(self) -> dict[str, JsonValue]:
        """As `metrics.json` holds it."""
        return {
            "trials": self.trials,
            "accuracy": self.accuracy,
            "interval_95": list(self.interval),
            "blind": self.blind,
        }


def share_of(right: np.ndarray, part: TrialPart, rows: np.ndarray) -> Share | None:
    """The share of some trials that is right; None without trials."""
    from scipy.stats import binomtest

    if not len(rows):
        return None
    count, chosen = len(rows), int(right[rows].sum())
    low, high = binomtest(chosen, count).proportion_ci(method="wilson")
    blind = blind_accuracy(part.take(rows))
    return Share(count, chosen / count, (float(low), float(high)), blind)


@dataclass(frozen=True)
class ReasoningScores:
    """How good the answers to a part are.

    total: of all trials; levels, operators (of the question that gives the answer), posed: by name;
    log_loss: mean; most_common: the accuracy of the most common answer; by_rule: the share of the
    stated answers that the rules give.
    """

    total: Share
    levels: Mapping[str, Share]
    operators: Mapping[str, Share]
    posed: Mapping[str, Share]
    log_loss: float
    most_common: float
    by_rule: float

    def metrics(self) -> dict[str, JsonValue]:
        """As `metrics.json` holds them."""
        groups = {"levels": self.levels, "operators": self.operators, "posed": self.posed}
        named: dict[str, JsonValue] = {
            group: {name: share.to_json() for name, share in shares.items()}
            for group, shares in groups.items()
        }
        return {
            **self.total.to_json(),
            "log_loss": self.log_loss,
            "most_common": self.most_common,
            "answers_by_rule": self.by_rule,
            **named,
        }

    def tables(self) -> dict[str, pl.DataFrame]:
        """Tables of the report by caption."""
        captions = {
            "By level of the test part": self.levels,
            "By operator of the question that gives the answer": self.operators,
            "Well posed, and ambiguous: a question fits several objects": self.posed,
        }
        return {caption: _table(shares) for caption, shares in captions.items()}

    @property
    def headline(self) -> str:
        """The main figures in a sentence."""
        levels = ", ".join(
            f"{name} {share.accuracy:.3f} (blind {share.blind:.3f})"
            for name, share in self.levels.items()
        )
        return (
            f"{self.total.trials:,} trials: {self.total.accuracy:.3f} right; {levels}; the most "
            f"common answer {self.most_common:.3f}"
        )


def _table(shares: Mapping[str, Share]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "trials of": name,
                "trials": share.trials,
                "right": share.accuracy,
                "95 % interval": f"{share.interval[0]:.3f} to {share.interval[1]:.3f}",
                "best constant for each form of question": share.blind,
            }
            for name, share in shares.items()
        ]
    )


def score(part: TrialPart, logits: np.ndarray) -> ReasoningScores:
    """Score logits (N, A) of a part of at least one trial."""
    right = logits.argmax(1) == part.answers
    last = np.array(
        [
            entry.trial.rule[outcome.path[-1]].operator
            for entry, outcome in zip(part.trials, part.outcomes, strict=True)
        ]
    )
    clear = np.array([outcome.well_posed for outcome in part.outcomes])
    operators = {name: np.flatnonzero(last == k) for k, name in enumerate(OPERATORS, 1)}
    posed = {"well posed": np.flatnonzero(clear), "ambiguous": np.flatnonzero(~clear)}
    agree = [entry.trial.answer == entry.by_rule for entry in part.trials]
    total = share_of(right, part, np.arange(len(part)))
    assert total is not None
    return ReasoningScores(
        total,
        _shares(right, part, level_rows(part)),
        _shares(right, part, operators),
        _shares(right, part, posed),
        float(log_losses(logits, part.answers).mean()),
        float(np.bincount(part.answers).max() / len(part)),
        float(np.mean(agree)),
    )


def _shares(
    right: np.ndarray, part: TrialPart, groups: Mapping[str, np.ndarray]
) -> dict[str, Share]:
    shares = {name: share_of(right, part, rows) for name, rows in groups.items()}
    return {name: share for name, share in shares.items() if share is not None}


def network_of(model: nn.Module) -> Reasoner | None:
    """The network that looks at scenes in what predicts; None for an answer without one."""
    part = model.model if isinstance(model, BlendedClassifier) else model
    return part if isinstance(part, Reasoner) else None


@torch.no_grad()
def attention_of(
    network: Reasoner, part: TrialPart, device: torch.device
) -> dict[str, list[np.ndarray]]:
    """Attention on the objects of each trial, summing to 1 over them, by who attends in which
    layer. {} for a network or a mechanism without attention weights.
    """
    looks: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(part), BATCH):
        rows = range(start, min(start + BATCH, len(part)))
        batch = part.__getitems__(list(rows))
        try:
            attended = network.attended(batch["rules"].to(device), batch["scenes"].to(device))
        except ValueError:
            return {}
        for name, weights in attended.items():
            values = weights.double().cpu().numpy()
            for row, value in zip(rows, values, strict=True):
                on_objects = np.abs(value[: len(part.trials[row].trial.scene)])
                total = on_objects.sum()
                even = np.full(len(on_objects), 1 / max(1, len(on_objects)))
                looks.setdefault(name, []).append(on_objects / total if total > 0 else even)
    return looks


@dataclass(frozen=True)
class Look:
    """How much of the attention on a scene is on the objects that were asked for.

    trials: those that ask for an object and have others, too; mass: the mean share of the
    attention; even: what even attention would have; hits: how often the object with the most
    attention was asked for.
    """

    trials: int
    mass: float
    interval: tuple[float, float]
    even: float
    hits: float

    def to_json(self) -> dict[str, JsonValue]:
        """As `metrics.json` holds it."""
        return {
            "trials": self.trials,
            "mass": self.mass,
            "interval_95": list(self.interval),
            "even": self.even,
            "hits": self.hits,
        }


def look_of(part: TrialPart, attention: Sequence[np.ndarray]) -> Look | None:
    """How attention fits what was asked for; None where no trial can tell."""
    mass, even, hits = [], [], []
    for outcome, weights in zip(part.outcomes, attention, strict=True):
        asked = list(outcome.asked)
        if asked and len(asked) < len(weights):
            mass.append(weights[asked].sum())
            even.append(len(asked) / len(weights))
            hits.append(int(weights.argmax()) in asked)
    if not mass:
        return None
    values = np.array(mass)
    return Look(
        len(mass), float(values.mean()), interval_of_mean(values), float(np.mean(even)),
        float(np.mean(hits)),
    )  # fmt: skip


def looks_of(part: TrialPart, attention: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Look]:
    """`look_of` by who attends in which layer, the one that points best first."""
    looks = {name: look_of(part, weights) for name, weights in attention.items()}
    known = {name: look for name, look in looks.items() if look is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1].mass))


def looks_table(looks: Mapping[str, Look]) -> pl.DataFrame:
    """The table of the report."""
    return pl.DataFrame(
        [
            {
                "who attends": name,
                "trials": look.trials,
                "attention on what was asked for": look.mass,
                "95 % interval": f"{look.interval[0]:.3f} to {look.interval[1]:.3f}",
                "even attention": look.even,
                "most attended object was asked for": look.hits,
            }
            for name, look in looks.items()
        ]
    )


def answers_in_words(logits: np.ndarray) -> list[str]:
    """The most probable answer of each trial."""
    return [answer_words(answer) for answer in logits.argmax(1).tolist()]
