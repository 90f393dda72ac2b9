"""Scores of raters of topics: agreement, accuracy and bias, of models and of annotators."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ....base.account import note
from ....data.texts.topic_answers import RatedTask, Ratings
from ....data.texts.topic_tasks import MIXED, SINGLE, WordTask
from ...metrics.agreement import Score, agreement_scores, detection_scores, pair_kappas
from ...metrics.bootstrap import interval_of_mean
from .scores import NOTHING, auc_score, likeness_of, pick_intruders
from .word_vectors import WordVectors

_SIZE = re.compile(r"[_-]\d+$")


@dataclass(frozen=True)
class RatedKind:
    """What is known of the answers to tasks of one kind.

    agreement: alpha, fleiss_kappa and pairwise_agreement, without the controls. kappas: (R, R) of
    the annotators. by_model, by_family, by_annotator: scores by name; a family are the models whose
    names differ by a number at the end. controls: share of right answers to
    controls.
    """

    kind: str
    tasks: int
    answers: int
    annotators: Sequence[str]
    agreement: Mapping[str, Score]
    kappas: np.ndarray
    by_model: Mapping[str, Mapping[str, Score]]
    by_family: Mapping[str, Mapping[str, Score]]
    by_annotator: Mapping[str, Mapping[str, float]]
    controls: Score


def rate_kind(ratings: Ratings, *, merge_sizes: bool, draws: int, seed: int) -> RatedKind:
    """Scores of the answers of one kind. Controls count for themselves only."""
    codes, names = answer_codes(ratings)
    ordinary = [(t, a, c) for t, a, c in ratings.answers if not ratings.tasks[t].control]
    controls = [(t, a, c) for t, a, c in ratings.answers if ratings.tasks[t].control]
    right = np.array([code == ratings.tasks[task].truth for task, _, code in controls], float)
    kappas = pair_kappas(codes)
    by_model, by_family = (
        {
            model: _task_scores(ratings, answers, draws, seed)
            for model, answers in _by_model(ratings, ordinary, merged).items()
        }
        for merged in (False, merge_sizes)
    )
    return RatedKind(
        ratings.kind,
        len(names),
        len(ordinary),
        ratings.annotators,
        agreement_scores(codes, draws=draws, seed=seed),
        kappas,
        by_model,
        by_family,
        _by_annotator(ratings, kappas),
        Score(float(right.mean()), *interval_of_mean(right, seed=seed)) if len(right) else NOTHING,
    )


def answer_codes(ratings: Ratings) -> tuple[np.ndarray, list[str]]:
    """Codes (T, R) of the tasks that are no controls, -1 for missing, and the names of the tasks.

    Of several answers of an annotator to a task the first counts; the others are noted.
    """
    names = [name for name, task in ratings.tasks.items() if not task.control]
    row = {name: place for place, name in enumerate(names)}
    column = {name: place for place, name in enumerate(ratings.annotators)}
    codes = np.full((len(names), len(column)), -1)
    again = []
    for task, annotator, code in ratings.answers:
        if task not in row:
            continue
        if codes[row[task], column[annotator]] >= 0:
            again.append(f"{task}: {annotator}")
            continue
        codes[row[task], column[annotator]] = code
    if again:
        note("left out", "second answers of an annotator to a task (agreement)", again)
    return codes, names


def merged_name(model: str) -> str:
    """The name of a model without the number of its topics: "LDA" of "LDA_25"."""
    return _SIZE.sub("", model)


def size_correlation(intrusion: RatedKind, mixing: RatedKind) -> tuple[float, int]:
    """Spearman's correlation over models of intrusion accuracy with hit rate minus false alarm rate
    of mixing, and how many models; NaN for fewer than 3.
    """
    models = [name for name in intrusion.by_model if name in mixing.by_model]
    if len(models) < 3:
        return float("nan"), len(models)
    first = [intrusion.by_model[name]["accuracy"].value for name in models]
    detected = [mixing.by_model[name] for name in models]
    second = [scores["hit_rate"].value - scores["false_alarm_rate"].value for scores in detected]
    return rank_correlation(np.array(first), np.array(second)), len(models)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation, ties with their mean rank; NaN where one does not vary."""
    ranks = rankdata(first), rankdata(second)
    if min(rank.std() for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def machine_scores(
    ratings: Ratings, vectors: WordVectors, seed: int
) -> tuple[dict[str, Score], int]:
    """How a machine does the same tasks, controls aside, and how many it can do.

    intrusion: machine and human accuracy on these tasks, and that of the machine on the topics of
    each family of models. mixing: AUC of the machine and of the
    humans' vote (the share of "single"), and Spearman's correlation of the two.
    """
    known = {
        name: task
        for name, task in ratings.tasks.items()
        if not task.control and task.truth >= 0 and task.words
    }
    words = list({word: None for task in known.values() for word in task.words})
    if not words or ratings.kind == "names":
        return {}, 0
    vectors = vectors.stored(words)
    doable = {name: task for name, task in known.items() if np.isfinite(vectors(task.words)).all()}
    if len(doable) < len(known):
        what = "tasks of machine raters with a word that has no vector"
        note("left out", what, count=len(known) - len(doable))
    if not doable:
        return {}, 0
    tasks = [_word_task(task) for task in doable.values()]
    votes = _votes(ratings, doable)
    if ratings.kind == "intrusion":
        picked = pick_intruders(tasks, vectors)
        right = picked == np.array([task.truth for task in doable.values()])
        families = np.array([merged_name(task.model) for task in tasks])
        of_family = {
            f"machine_accuracy, {family}": _mean(right[families == family].astype(float), seed)
            for family in sorted(set(families.tolist()))
            if family
        }
        return {
            "machine_accuracy": _mean(right.astype(float), seed),
            "human_accuracy": _mean(votes[np.isfinite(votes)], seed),
            **of_family,
        }, len(doable)
    single = np.array([task.truth == 0 for task in doable.values()])
    likeness = likeness_of(tasks, vectors)
    voted = np.isfinite(votes)
    correlation = rank_correlation(likeness[voted], votes[voted])
    return {
        "machine_auc": auc_score(single, likeness, seed),
        "human_vote_auc": auc_score(single[voted], votes[voted], seed),
        "rank_correlation": Score(correlation, float("nan"), float("nan")),
    }, len(doable)


def _votes(ratings: Ratings, tasks: Mapping[str, RatedTask]) -> np.ndarray:
    """Of each task the share of right answers (intrusion) or of "single" (mixing); NaN without."""
    by_task: dict[str, list[int]] = {}
    for task, _, code in ratings.answers:
        by_task.setdefault(task, []).append(code)
    shares = []
    for name, task in tasks.items():
        counted = task.truth if ratings.kind == "intrusion" else 0
        codes = np.array(by_task.get(name, []))
        shares.append((codes == counted).mean() if len(codes) else np.nan)
    return np.array(shares)


def _word_task(task: RatedTask) -> WordTask:
    if task.kind == "mixing":
        return WordTask("mixing", task.model, (), task.words, MIXED if task.truth else SINGLE)
    return WordTask("intrusion", task.model, (), task.words, task.words[task.truth])


def _by_model(
    ratings: Ratings, answers: Sequence[tuple[str, str, int]], merged: bool
) -> dict[str, list[tuple[str, str, int]]]:
    """Answers to the tasks of each model, or of each family of models."""
    groups: dict[str, list[tuple[str, str, int]]] = {}
    for answer in answers:
        model = ratings.tasks[answer[0]].model
        if model:
            groups.setdefault(merged_name(model) if merged else model, []).append(answer)
    return dict(sorted(groups.items()))


def _task_scores(
    ratings: Ratings, answers: Sequence[tuple[str, str, int]], draws: int, seed: int
) -> dict[str, Score]:
    """accuracy (intrusion, names) or those of detection (mixing: the signal is two topics)."""
    known = [answer for answer in answers if ratings.tasks[answer[0]].truth >= 0]
    tasks = [task for task, _, _ in known]
    truth = np.array([ratings.tasks[task].truth for task in tasks])
    codes = np.array([code for _, _, code in known])
    if ratings.kind == "mixing":
        return detection_scores(truth == 1, codes == 1, tasks, draws=draws, seed=seed)
    if not known:
        return {"accuracy": NOTHING}
    right = (truth == codes).astype(float)
    return {
        "accuracy": Score(
            float(right.mean()), *interval_of_mean(right, tasks, draws=draws, seed=seed)
        )
    }


def _by_annotator(ratings: Ratings, kappas: np.ndarray) -> dict[str, dict[str, float]]:
    """What each annotator answered: accuracy, mean kappa with the others, controls; of mixing also
    how often it said "two", d' and the criterion.
    """
    rows: dict[str, dict[str, float]] = {}
    for place, annotator in enumerate(ratings.annotators):
        answers = [answer for answer in ratings.answers if answer[1] == annotator]
        ordinary = [answer for answer in answers if not ratings.tasks[answer[0]].control]
        controls = [answer for answer in answers if ratings.tasks[answer[0]].control]
        scores = {name: s.value for name, s in _task_scores(ratings, ordinary, 1, 0).items()}
        defined = kappas[place][np.isfinite(kappas[place])]
        row = {"answers": float(len(ordinary)), "accuracy": scores["accuracy"]}
        row["kappa"] = float(defined.mean()) if len(defined) else float("nan")
        right = [code == ratings.tasks[task].truth for task, _, code in controls]
        row["controls"] = float(np.mean(right)) if right else float("nan")
        if ratings.kind == "mixing":
            said = [code == 1 for _, _, code in ordinary]
            row["says_two"] = float(np.mean(said)) if said else float("nan")
            row |= {name: scores[name] for name in ("d_prime", "criterion")}
        rows[annotator] = row
    return rows


def _mean(values: np.ndarray, seed: int) -> Score:
    if not len(values):
        return NOTHING
    return Score(float(values.mean()), *interval_of_mean(values, seed=seed))
