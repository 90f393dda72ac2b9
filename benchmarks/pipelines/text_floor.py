"""The linear model of `headwise text` beside the same in a few lines of scikit-learn.

    python benchmarks/pipelines/text_floor.py --data TABLE [--columns text=... label=...]

Both are fitted to the training part of a table with columns of texts, labels and parts: tf-idf of
words and pairs of words that are in two texts, logistic regression with C = 10 for each label.
Scores on the test part; one threshold for all labels is chosen on the validation part.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.data.columns import parse_columns
from headwise.data.texts.counting import CountedTerms
from headwise.data.texts.labels import label_names
from headwise.data.texts.table import FIELDS, TextReading, read_text_data
from headwise.pipelines.metrics.labels.decisions import decision_scores, given_labels
from headwise.pipelines.metrics.labels.ranking import ranking_scores
from headwise.pipelines.metrics.labels.thresholds import best_single_threshold
from headwise.pipelines.text.linear import Rows, fit_linear, linear_logits


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--columns", nargs="*", default=[])
    arguments = parser.parse_args()
    columns = parse_columns(arguments.columns, FIELDS)
    table = read_text_data(arguments.data, TextReading(columns, goal="labels"))
    assert table.labels is not None
    part, rows = np.array(table.parts), [row or () for row in table.labels.names]
    names = label_names(
        arguments.data,
        [row for row, p in zip(rows, part, strict=True) if p == "train"],
        "labels",
        3,
    )
    truth = np.array([[name in row for name in names] for row in rows])
    texts = np.array(table.texts, dtype=object)
    train, held, test = (part == name for name in ("train", "validation", "test"))
    print_header("model", "mAP", "P@1", "nDCG@5", "micro-F1", "macro-F1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        inputs = vectorizer.fit_transform(texts[train])
        plain = OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear"))
        plain.fit(inputs, truth[train])
        scores = [plain.decision_function(vectorizer.transform(texts[p])) for p in (held, test)]
    show("scikit-learn", truth[held], truth[test], *scores)
    terms = CountedTerms.learn(texts[train].tolist(), pieces=False, most=1_000_000)

    def coded(which: np.ndarray) -> Rows:
        count = int(which.sum())
        counted = terms.rows(texts[which].tolist())
        nothing = np.zeros((count, 0), np.float32)
        source = np.zeros(count, np.int64)
        return Rows(counted, nothing, truth[which].astype(np.float32), np.arange(count), source, 0)

    fitted = fit_linear(coded(train), coded(held), "labels", by_source=False, penalty=10.0)
    show(
        "headwise",
        truth[held],
        truth[test],
        *(linear_logits(fitted, coded(p)) for p in (held, test)),
    )


def show(
    name: str, held: np.ndarray, truth: np.ndarray, held_logits: np.ndarray, logits: np.ndarray
) -> None:
    """A row of scores."""
    ranks = ranking_scores(truth, logits)
    threshold = best_single_threshold(held, held_logits)
    decisions = decision_scores(truth, given_labels(logits, threshold))
    values = (ranks["map"], ranks["precision_at_1"], ranks["ndcg_at_5"])
    both = (decisions["micro_f1"], decisions["macro_f1"])
    print_row(name, *(f"{value:.3f}" for value in (*values, *both)))


if __name__ == "__main__":
    main()
