"""Claim: beside texts of other sources a new source needs 75 % fewer labels (CRAF, 2602.15857).

    python benchmarks/claims/text_sources.py [--data TABLE] [--own 800] [--draws 5] [--table NAME]

The table has texts, a number or labels, and a column of sources (`headwise data get
sentiment-sources`). Each source in turn is the new one: a linear model of `own` texts of it, drawn
from its training part; one of all other sources' training parts and a quarter of these texts; one
of the other sources alone. All have the same terms, learned from the training parts of the other
sources and the `own` texts, and the same penalty for each kind, chosen on the validation part of
the new source. Correlation with the truth on its test part, mean over draws, and the difference
with 95 % intervals over groups of the test part (the mean of the draws in each of 1,000 draws).
"""

from __future__ import annotations

import numpy as np

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.data.catalogue import get_dataset
from headwise.data.texts.counting import CountedTerms
from headwise.data.texts.table import TextReading, TextTable, read_text_data, with_rows
from headwise.pipelines.metrics.bootstrap import draw_weights, percentile_interval
from headwise.pipelines.text.coding import learn_columns, table_numbers
from headwise.pipelines.text.data import groups_of
from headwise.pipelines.text.linear import Rows, fit_linear, linear_logits

SHARE = 4  # own texts, over those beside other sources


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data")
    parser.add_argument("--own", type=int, default=800)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--table", nargs="*", default=["lexicon"])
    arguments = parser.parse_args()
    data = arguments.data or str(get_dataset("sentiment-sources"))
    table = read_text_data(data, TextReading(table=tuple(arguments.table), goal="number"))
    names = sorted(set(table.sources) - {""})
    print_header(
        "new source", "own texts", f"others + 1/{SHARE} of them", "others alone",
        "others + few over own", "95 % interval",
    )  # fmt: skip
    for name in names:
        of_source(table, name, arguments.own, arguments.draws)


def of_source(table: TextTable, name: str, own: int, draws: int) -> None:
    """The row of a new source."""
    source, part = np.array(table.sources), np.array(table.parts)
    groups = groups_of(table)
    known, held, test = (np.flatnonzero((source == name) & (part == p)) for p in
                         ("train", "validation", "test"))  # fmt: skip
    others = np.flatnonzero((source != name) & (part == "train"))
    scores: dict[str, list[np.ndarray]] = {"own": [], "few": [], "none": []}
    weights = np.concatenate(list(draw_weights(groups[test], 1000, seed=0)))
    plain = np.concatenate([np.ones((1, len(test))), weights])
    count = 0
    for seed in range(draws):
        chosen = np.random.default_rng(seed).permutation(known)[:own]
        count = len(chosen)
        few = chosen[: max(1, count // SHARE)]
        parts = {"own": chosen, "few": np.concatenate([others, few]), "none": others}
        train = np.concatenate([others, chosen])
        coded = coder(table, train, groups)
        for kind, rows in parts.items():
            by_source = kind != "own"
            fitted = fit_linear(
                coded(rows, by_source), coded(held, by_source), "number",
                by_source=by_source,
            )  # fmt: skip
            logits = linear_logits(fitted, coded(test, by_source))[:, 0]
            truth = table_truth(table)[test]
            scores[kind].append(correlations(truth, logits, plain))
    mean = {kind: np.mean(values, axis=0) for kind, values in scores.items()}
    gain = mean["few"] - mean["own"]
    low, high = percentile_interval(gain[1:])
    print_row(
        f"{name} ({count})", *(f"{mean[kind][0]:.3f}" for kind in scores), f"{gain[0]:+.3f}",
        f"{low:+.3f} to {high:+.3f}",
    )  # fmt: skip


def coder(table: TextTable, train: np.ndarray, groups: np.ndarray):
    """What makes rows of a linear model, with the terms and columns of the training texts."""
    learned = with_rows(table, train)
    terms = CountedTerms.learn(learned.texts, pieces=True, most=200_000)
    columns = learn_columns(table.table, train)
    names = sorted(set(table.sources))
    source = np.array([names.index(value) for value in table.sources])
    truth = table_truth(table)
    mean, deviation = truth[train].mean(), truth[train].std()

    def rows(places: np.ndarray, by_source: bool) -> Rows:
        part = with_rows(table, places)
        return Rows(
            terms.rows(part.texts),
            table_numbers(part.table, columns, len(part)),
            ((truth[places] - mean) / deviation).astype(np.float32)[:, None],
            groups[places],
            source[places] if by_source else np.zeros(len(places), np.int64),
            len(names) if by_source else 0,
        )

    return rows


def table_truth(table: TextTable) -> np.ndarray:
    """The numbers to predict."""
    assert table.labels is not None
    return table.labels.numbers


def correlations(truth: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation for each row of weights (R, N) -> (R,)."""
    total = weights.sum(1)
    first, second = weights @ truth / total, weights @ logits / total
    both = weights @ (truth * logits) / total - first * second
    spreads = (weights @ truth**2 / total - first**2, weights @ logits**2 / total - second**2)
    return both / np.sqrt(spreads[0] * spreads[1])


if __name__ == "__main__":
    main()
