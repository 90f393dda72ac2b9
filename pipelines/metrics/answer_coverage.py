"""How much of what several texts say differently a summary holds: coverage of groups of answers.

A group holds answers to a question that say the same; it is covered if some sentence of the summary
is similar enough to one of its answers. In the form of DiverseSumm (arXiv 2309.09369), whose
repository has the data format and the consolidation of answers, but not the code of its scores:
figures of that paper are not to be compared with these. Shapes: S sentences, A answers, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from .bootstrap import UNDEFINED, interval_of_mean

LEAST = 2.75  # mean score above which the official consolidation joins two answers


class CoverageRow(TypedDict):
    """Coverage at one threshold: mean share over stories, with its interval."""

    threshold: float
    coverage: float
    low: float
    high: float
    covered: int
    groups: int
    stories: int


def nearest_by_group(similarity: np.ndarray, group_of: Sequence[int], count: int) -> np.ndarray:
    """The highest similarity of a sentence of the summary to an answer of each group, (G,).

    similarity: (S, A); group_of: of each answer, from 0 to count - 1. 0 for a summary without
    sentences.
    """
    best = np.zeros(count)
    if len(similarity):
        np.maximum.at(best, np.asarray(group_of, np.int64), similarity.max(0))
    return best


def coverage(
    nearest: Sequence[np.ndarray], thresholds: Sequence[float], *, seed: int = 0
) -> list[CoverageRow]:
    """Share of covered groups at each threshold, mean over stories, with intervals that draw
    stories.

    nearest: of each story, as `nearest_by_group` gives it; stories without groups do not count.
    """
    stories = [values for values in nearest if len(values)]
    rows: list[CoverageRow] = []
    for threshold in thresholds:
        shares = np.array([float((values >= threshold).mean()) for values in stories])
        low, high = interval_of_mean(shares, seed=seed) if len(shares) > 1 else UNDEFINED
        rows.append(
            {
                "threshold": threshold,
                "coverage": float(shares.mean()) if len(shares) else float("nan"),
                "low": low,
                "high": high,
                "covered": sum(int((values >= threshold).sum()) for values in stories),
                "groups": sum(map(len, stories)),
                "stories": len(stories),
            }
        )
    return rows


def consolidate(
    answers: Sequence[str], scores: Mapping[tuple[str, str], float], *, least: float = LEAST
) -> list[list[int]]:
    """Groups of answers that say the same, largest first, as places in `answers`.

    scores: how far one answer says what another says, from 0 to 5, for both directions of every
    pair of different answers. Equal answers count 5; two are joined where the mean of both
    directions is above `least`; groups are the communities of that graph (Louvain, of networkx with
    a fixed seed). So the repository of DiverseSumm does it, with python-louvain.

    Raises ValueError, naming the pair, where a score is missing or not finite.
    """
    import networkx

    graph = networkx.Graph()
    # In an order of their own, so that the groups do not depend on that of the articles.
    order = sorted(range(len(answers)), key=lambda place: (answers[place], place))
    graph.add_nodes_from(order)
    for index, first in enumerate(order):
        for second in order[index + 1 :]:
            a, b = answers[first], answers[second]
            if a == b or (_score(scores, a, b) + _score(scores, b, a)) / 2 > least:
                graph.add_edge(first, second)
    parts = networkx.community.louvain_communities(graph, seed=0)
    groups = [sorted(part) for part in parts]
    return sorted(groups, key=lambda group: (-len(group), answers[group[0]], group))


def _score(scores: Mapping[tuple[str, str], float], first: str, second: str) -> float:
    score = scores.get((first, second))
    if score is None or not np.isfinite(score):
        raise ValueError(f"no score of answer {first[:40]!r} against {second[:40]!r}")
    return float(score)
