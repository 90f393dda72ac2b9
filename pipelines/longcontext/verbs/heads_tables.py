"""What `heads` shows: tables of heads and of cuts, pictures, and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ....models.language.analysis.needle import NeedleScores
from ....models.language.plans.facts import ModelFacts
from ...engine.pipeline import ReportFigure
from ...metrics.bootstrap import interval_of_mean
from ...metrics.proportions import wilson
from ..attention_figures import cost_of_cutting, falling_scores, map_of_heads

SHOWN = 20  # heads in the table of the page
Head = tuple[int, int]  # layer, head of keys


@dataclass(frozen=True)
class Cut:
    """A head of keys that alone was cut. best: whether it is one of the best; change: of the
    answer's loss, by prompt, nats a token.
    """

    layer: int
    head: int
    best: bool
    change: np.ndarray


@dataclass(frozen=True)
class HeadSet:
    """Heads that stay full while all others are cut. heads: how many; kept: share of the cache;
    right and losses: by prompt, whether greedy decoding writes the answer, and its loss.
    """

    name: str
    heads: int
    kept: float
    right: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True)
class Shape:
    """How the heads were cut, and at which lengths. agreement: share of the best heads that both
    halves of the prompts choose.
    """

    total: int
    sink: int
    window: int
    longest: int
    prompts: int
    agreement: float


def headline(shape: Shape, best: Sequence[float], sets: Sequence[HeadSet]) -> str:
    """What was learnt, in words. best: scores of the best heads, falling."""
    share = f"{len(best)} of {shape.total} heads of keys"
    if not best:
        first = "No head of keys fits into --share beside sink and window"
    else:
        first = (
            f"{share} attend most to what is asked for: {best[0]:.2f} to {best[-1]:.2f} of their "
            f"attention, on {shape.prompts} prompts of up to {shape.longest:,} tokens"
        )
        if np.isfinite(shape.agreement):
            first += f" (both halves of the prompts agree on {shape.agreement:.0%} of them)"
    if not sets:
        return first + "."
    parts = ", ".join(f"{_count(row)} {_words(row)}" for row in sets)
    return (
        f"{first}. Answers written right where the other heads keep their first {shape.sink} and "
        f"last {shape.window} tokens: {parts}."
    )


def _count(row: HeadSet) -> str:
    return f"{int(row.right.sum())}/{len(row.right)}"


def _words(row: HeadSet) -> str:
    names = {
        "all": "with all heads full",
        "the best": "with only the best full",
        "all but the best": "with all but the best full",
        "as many others, at random": "with as many others",
        "none": "with none full",
    }
    return f"{names[row.name]} ({row.kept:.1%} of the cache)"


def tables(
    scores: NeedleScores,
    facts: ModelFacts,
    ranking: Sequence[Head],
    count: int,
    sets: Sequence[HeadSet],
    cuts: Sequence[Cut],
) -> dict[str, pl.DataFrame]:
    """Tables by the name of their file; those of cuts only where heads were cut."""
    by_head, by_query = scores.table().numpy(), scores.query_heads().numpy()
    ranks = {head: rank for rank, head in enumerate(ranking, 1)}
    rows = [(layer, head) for layer in range(facts.layers) for head in range(facts.kv_heads)]
    written = {
        "heads": pl.DataFrame(
            {
                "layer": [layer for layer, _ in rows],
                "head": [head for _, head in rows],
                "score": by_head.flatten(),
                "rank": pl.Series([ranks.get(row) for row in rows], dtype=pl.Int64),
                "in_plan": [ranks.get(row, count + 1) <= count for row in rows],
            }
        ),
        "query_heads": pl.DataFrame(
            {
                "layer": np.repeat(np.arange(facts.layers), facts.heads),
                "query_head": np.tile(np.arange(facts.heads), facts.layers),
                "head": np.tile(
                    np.arange(facts.heads) * facts.kv_heads // facts.heads, facts.layers
                ),
                "score": by_query.flatten(),
            }
        ),
    }
    if sets:
        written["sets"] = pl.DataFrame([_set_row(row) for row in sets])
    if cuts:
        written["cuts"] = pl.DataFrame([_cut_row(cut, by_head) for cut in cuts])
    return written


def _set_row(row: HeadSet) -> dict[str, object]:
    low, high = wilson(int(row.right.sum()), len(row.right))
    return {
        "full heads": row.name,
        "heads": row.heads,
        "cache kept": row.kept,
        "right": int(row.right.sum()),
        "prompts": len(row.right),
        "share right": float(row.right.mean()),
        "right from": low,
        "right to": high,
        "loss": float(row.losses.mean()),
    }


def _cut_row(cut: Cut, scores: np.ndarray) -> dict[str, object]:
    low, high = interval_of_mean(cut.change)
    return {
        "layer": cut.layer,
        "head": cut.head,
        "score": float(scores[cut.layer, cut.head]),
        "best": cut.best,
        "change of loss": float(cut.change.mean()),
        "from": low,
        "to": high,
    }


def best_table(heads: pl.DataFrame) -> pl.DataFrame:
    """The first heads of keys by score."""
    return heads.filter(pl.col("rank").is_not_null()).sort("rank").head(SHOWN)


def pictures(
    scores: NeedleScores, ranking: Sequence[Head], count: int, cuts: Sequence[Cut]
) -> list[ReportFigure]:
    """The map of heads, their falling scores, and what single cuts cost."""
    table = scores.table().numpy()
    figures = [
        ReportFigure(
            "heads",
            "Attention of every head of keys to what is asked for; framed: those of the plan.",
            map_of_heads(table, ranking[:count]),
            is_answer=True,
        ),
        ReportFigure(
            "falling",
            "The same scores from the best head on; shaded: those of the plan.",
            falling_scores([float(table[head]) for head in ranking], count),
        ),
    ]
    if cuts:
        rows = []
        for cut in cuts:
            low, high = interval_of_mean(cut.change)
            name = f"layer {cut.layer}, head {cut.head}"
            rows.append((name, float(cut.change.mean()), low, high, cut.best))
        figures.append(
            ReportFigure(
                "cuts",
                "What cutting one head alone costs, with 95 % intervals over prompts; blue: the "
                "best heads, grey: others at random.",
                cost_of_cutting(rows),
            )
        )
    return figures
