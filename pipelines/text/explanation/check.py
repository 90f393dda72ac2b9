"""Whether explanations are true of the model: words are deleted, and what it says then is compared.

Shapes: P pairs of a text and a right label, L outputs of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl
from scipy.special import logsumexp
from scipy.stats import rankdata
from torch import nn

from ....base.errors import InputError
from ....data.texts.table import TextTable, with_rows
from ....data.texts.words import word_key
from ...engine.command_line.terminal import Progressbar
from ...engine.pipeline import ReportFigure
from ...figures.style import BLUE, GREY, NARROW, styled_figure
from ...metrics.bootstrap import Interval, interval_of_mean
from ..data import TextPart
from .sums import ExplainedText, Explainer, told_of

DELETED = 3  # words
DRAWS = 10  # of random words
AT_ONCE = 24  # pairs whose texts without words are read at once


@dataclass(frozen=True)
class Checked:
    """Outcome of a check over P pairs.

    texts, pairs: how many; few_words: pairs that were left out, since their texts have no more
    words than are deleted; falls, random_falls: (P,), by how much the log-odds of the label fall
    without its top words, and without random ones (mean of the draws); share: of the pairs whose
    label falls more without its top words; of_draws: the same of pairs and single draws; overlap:
    share of the top words that are those of the linear model as well, by_chance: what random words
    would have;
    correlation: of the ranks of the words in both; nan without a linear model; error: the largest
    difference between a logit and the sum of its parts.
    """

    texts: int
    pairs: int
    few_words: int
    falls: np.ndarray
    random_falls: np.ndarray
    share: float
    interval: Interval
    of_draws: float
    overlap: float
    by_chance: float
    correlation: float
    error: float

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        low, high = self.interval
        return (
            f"A right label falls more without its {DELETED} top words than without {DELETED} "
            f"random ones in {self.share:.1%} of {self.pairs:,} cases ({low:.1%} to {high:.1%}, "
            f"95 % interval); the parts of a logit sum to it within {self.error:.1e}."
        )

    def table(self) -> pl.DataFrame:
        """The figures, for a page."""
        low, high = self.interval
        rows = [
            ("right labels of texts", f"{self.pairs:,} of {self.texts:,} texts"),
            ("left out, texts of few words", f"{self.few_words:,}"),
            (
                f"falls more without {DELETED} top words than without random ones",
                f"{self.share:.1%} ({low:.1%} to {high:.1%})",
            ),
            ("the same, of single draws of random words", f"{self.of_draws:.1%}"),
            ("log-odds fall without the top words, median", f"{np.median(self.falls):.2f}"),
            ("without random ones, median", f"{np.median(self.random_falls):.2f}"),
            ("largest difference of a logit from its sum", f"{self.error:.1e}"),
        ]
        if np.isfinite(self.overlap):
            chance = f"{self.overlap:.1%} (by chance {self.by_chance:.1%})"
            rows.append(("top words that are those of the linear model, too", chance))
            rows.append(("rank correlation with its words", f"{self.correlation:.2f}"))
        return pl.DataFrame(rows, schema=["measure", "value"], orient="row")

    def to_json(self) -> dict[str, object]:
        """The figures, for a file."""
        return {
            "sentence": self.sentence,
            "texts": self.texts,
            "pairs": self.pairs,
            "texts_of_few_words": self.few_words,
            "words_deleted": DELETED,
            "random_draws": DRAWS,
            "share_falls_more": self.share,
            "share_falls_more_interval": list(self.interval),
            "share_falls_more_of_draws": self.of_draws,
            "median_fall_of_log_odds": float(np.median(self.falls)),
            "median_fall_of_random_words": float(np.median(self.random_falls)),
            "overlap_with_linear_model": self.overlap,
            "overlap_by_chance": self.by_chance,
            "rank_correlation_with_linear_model": self.correlation,
            "largest_difference_of_logit_and_sum": self.error,
        }


@dataclass(frozen=True)
class _Pair:
    """A text with its words by how much they add to a right label, and the texts without the top
    ones and without random ones.
    """

    row: int
    label: int
    before: float
    texts: list[str]
    overlap: float
    by_chance: float
    correlation: float


def check_explanations(
    explainer: Explainer, part: TextPart, linear: nn.Module | None, *, pairs: int, seed: int
) -> Checked:
    """Delete words of labelled texts, of at most `pairs` pairs of a text and a right label that the
    model gives, drawn at random.

    linear: the linear model of counted words that the words are compared with. Raises `InputError`
    for a model of numbers, one that is no sum, and where no label is right.
    """
    spec = explainer.spec
    if spec.goal == "number":
        raise InputError("--check: is about labels; the run predicts a number")
    if not explainer.exact:
        raise InputError("--check: the model is no sum over the words; there is nothing to check")
    logits = explainer.logits(part.table)
    right = (part.truth > 0) & told_of(logits, explainer.calibration, spec).labels
    everything = np.argwhere(right)
    if not len(everything):
        raise InputError("--check: the model gives no right label to any of these texts")
    generator = np.random.default_rng(seed)
    chosen = everything[np.sort(generator.permutation(len(everything))[:pairs])]
    other = None
    if linear is not None:
        other = Explainer(linear, explainer.coder, explainer.calibration, explainer.device)
    prepared, falls, errors, few = [], [], [], 0
    with Progressbar(total=len(chosen), unit="label", desc="check") as bar:
        stream = _prepared(explainer, other, part.table, chosen, logits, generator, errors)
        while block := list(islice(stream, AT_ONCE)):
            usable = [pair for pair in block if pair is not None]
            few += len(block) - len(usable)
            falls += _falls(explainer, part.table, usable)
            prepared += usable
            bar.update(len(block))
    if not prepared:
        raise InputError(f"--check: no text has more than {DELETED} words")
    return _summary(part, prepared, np.array(falls), few, max(errors), len(np.unique(chosen[:, 0])))


def _summary(
    part: TextPart, prepared: Sequence[_Pair], falls: np.ndarray, few: int, error: float, texts: int
) -> Checked:
    """falls: (P, 1 + draws), without the top words first."""
    random_falls = falls[:, 1:].mean(1)
    more = (falls[:, 0] > random_falls).astype(np.float64)
    groups = part.groups[[pair.row for pair in prepared]]
    of_linear = np.array([(pair.overlap, pair.by_chance, pair.correlation) for pair in prepared])
    known = ~np.isnan(of_linear)
    means = np.where(known, of_linear, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    return Checked(
        texts=texts,
        pairs=len(prepared),
        few_words=few,
        falls=falls[:, 0],
        random_falls=random_falls,
        share=float(more.mean()),
        interval=share_interval(more, groups),
        of_draws=float((falls[:, :1] > falls[:, 1:]).mean()),
        overlap=float(means[0]),
        by_chance=float(means[1]),
        correlation=float(means[2]),
        error=error,
    )


def share_interval(cases: np.ndarray, groups: np.ndarray) -> Interval:
    """95 % interval of the share of cases (P,) of 0 and 1. Where all are equal, in which case no
    draw differs, that of Clopper and Pearson (1934) over as many cases as there are groups.
    """
    if len(np.unique(cases)) > 1:
        return interval_of_mean(cases, groups)
    end = float(0.025 ** (1 / len(np.unique(groups))))
    return (end, 1.0) if cases[0] else (0.0, 1 - end)


def _prepared(
    explainer: Explainer,
    other: Explainer | None,
    table: TextTable,
    chosen: np.ndarray,
    logits: np.ndarray,
    generator: np.random.Generator,
    errors: list[float],
) -> Iterator[_Pair | None]:
    """Each pair; None for a text of few words. errors: takes the error of each explanation."""
    for row, label in chosen.tolist():
        alone, place = with_rows(table, np.array([row])), np.array([label])
        explained = _explained(explainer, alone, place)
        errors.append(explained.error)
        keys, values = _by_key(explained)
        if len(keys) <= DELETED:
            yield None
            continue
        top = set(np.argsort(-values, kind="stable")[:DELETED].tolist())
        texts = [_without(explained, {keys[k] for k in top})]
        for _ in range(DRAWS):
            random_places = generator.choice(len(keys), DELETED, replace=False).tolist()
            texts.append(_without(explained, {keys[k] for k in random_places}))
        overlap = by_chance = correlation = float("nan")
        if other is not None:
            _, simple = _by_key(_explained(other, alone, place), keys)
            best = set(np.argsort(-simple, kind="stable")[:DELETED].tolist())
            overlap, by_chance = len(top & best) / DELETED, DELETED / len(keys)
            correlation = _rank_correlation(values, simple)
        before = float(log_odds(logits[[row]], explainer.spec.goal)[0, label])
        yield _Pair(row, label, before, texts, overlap, by_chance, correlation)


def _explained(explainer: Explainer, table: TextTable, labels: np.ndarray) -> ExplainedText:
    """The only text of a table. Raises InputError for one that cannot be explained."""
    explained = next(explainer.texts(table, labels, 1))
    if isinstance(explained, ValueError):
        raise InputError(f"--check: {explained}")
    return explained


def _falls(explainer: Explainer, table: TextTable, pairs: Sequence[_Pair]) -> list[np.ndarray]:
    """By how much the log-odds of each pair fall with each of its texts."""
    if not pairs:
        return []
    rows = np.repeat([pair.row for pair in pairs], 1 + DRAWS)
    changed = with_rows(table, rows)
    changed.texts[:] = [text for pair in pairs for text in pair.texts]
    odds = log_odds(explainer.logits(changed), explainer.spec.goal)
    by_pair = odds.reshape(len(pairs), 1 + DRAWS, -1)
    return [pair.before - after[:, pair.label] for pair, after in zip(pairs, by_pair, strict=True)]


def log_odds(logits: np.ndarray, goal: str) -> np.ndarray:
    """Of each label (n, L): the logit; of classes, against all others together."""
    if goal != "class":
        return logits
    odds = np.empty_like(logits)
    for k in range(logits.shape[1]):
        odds[:, k] = logits[:, k] - logsumexp(np.delete(logits, k, 1), axis=1)
    return odds


def _by_key(
    explained: ExplainedText, keys: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """Distinct words of a text, and what all places of each add together. keys: the words, by
    default all.
    """
    words = [word_key(explained.text[a:b]) for a, b in explained.spans.tolist()]
    names = list(dict.fromkeys(words)) if keys is None else list(keys)
    places = {name: place for place, name in enumerate(names)}
    values = np.zeros(len(names))
    for word, value in zip(words, explained.words[:, 0].tolist(), strict=True):
        if word in places:
            values[places[word]] += value
    return names, values


def _without(explained: ExplainedText, keys: set[str]) -> str:
    """The text without some words at all their places."""
    pieces, at = [], 0
    for start, end in explained.spans.tolist():
        if word_key(explained.text[start:end]) in keys:
            pieces.append(explained.text[at:start])
            at = end
    return "".join([*pieces, explained.text[at:]])


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; nan where one of the two says the same of all words."""
    x, y = rankdata(a), rankdata(b)
    if not x.std() or not y.std():
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def check_figure(checked: Checked) -> ReportFigure:
    """What is lost without the top words against what is lost without random ones."""
    ends = [
        float(min(checked.falls.min(), checked.random_falls.min())),
        float(max(checked.falls.max(), checked.random_falls.max())),
    ]
    with styled_figure(NARROW, NARROW) as figure:
        axes = figure.subplots()
        axes.plot(ends, ends, ":", color=GREY)
        axes.plot(checked.random_falls, checked.falls, ".", color=BLUE, alpha=0.5)
        axes.set(
            xlabel=f"fall of the log-odds without {DELETED} random words, mean of {DRAWS} draws",
            ylabel=f"without the {DELETED} top words",
        )
    caption = (
        "Each dot is a text and a right label: above the dotted line the label loses more without "
        "its top words than without random ones."
    )
    return ReportFigure("deletion", caption, figure)
