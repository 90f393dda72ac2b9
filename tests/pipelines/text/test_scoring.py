"""Scores against scikit-learn on small tables, and what is scored by itself."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax
from scipy.stats import pearsonr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
)

from headwise.data.texts.counting import CountedTerms
from headwise.data.texts.table import TextTable
from headwise.pipelines.text.coding import CodedTexts, TextCoder
from headwise.pipelines.text.data import TextPart
from headwise.pipelines.text.probabilities import Told
from headwise.pipelines.text.scoring import score_classes, score_labels, score_numbers
from headwise.tests.pipelines.text.messages import spec_of

N, LABELS = 90, ("x::a", "x::b", "y::c", "y::d")


def part_of(truth: np.ndarray, sources: list[str] | None = None) -> TextPart:
    """A part of which only the truth, the groups and the sources matter."""
    count = len(truth)
    blank = [""] * count
    names = sources or blank
    table = TextTable(blank, blank, blank, names, blank, blank, None, pl.DataFrame(), {})
    coded = CodedTexts(
        csr_matrix((count, 1), dtype=np.float32),
        [],
        np.zeros((count, 0), np.float32),
        np.zeros(count, np.int64),
    )
    coder = TextCoder(spec_of("labels", LABELS), CountedTerms([], np.zeros(0), False), None)
    return TextPart(table, coded, truth.astype(np.float32), np.arange(count) // 2, coder)


def labelled(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Told]:
    """Logits, truth, and what is told with thresholds of 0.3."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(N, 4)) * 2
    truth = generator.random((N, 4)) < expit(logits)
    return logits, truth, Told(expit(logits), logits > 0.3, logits > -1)


def value(scores: Any, name: str) -> float:
    return float(scores.values[name])


def test_scores_of_labels_are_those_of_scikit_learn():
    logits, truth, told = labelled()
    scores = score_labels(part_of(truth), logits, told, spec_of("labels", LABELS))
    assert value(scores, "texts") == N
    assert value(scores, "micro_f1") == pytest.approx(f1_score(truth, told.labels, average="micro"))
    assert value(scores, "macro_f1") == pytest.approx(f1_score(truth, told.labels, average="macro"))
    assert value(scores, "map") == pytest.approx(average_precision_score(truth, logits))
    first = truth[np.arange(N), logits.argmax(1)].mean()
    assert value(scores, "precision_at_1") == pytest.approx(first)
    half = f1_score(truth, logits >= 0, average="macro")
    assert value(scores, "macro_f1_at_half") == pytest.approx(half)
    for name in ("micro_f1", "map"):
        low, high = scores.intervals[name]
        assert low < value(scores, name) < high
    assert f"{N} texts: P@1" in scores.headline


def test_sets_are_scored_over_texts_that_have_labels():
    _, truth, told = labelled()
    truth[:5] = False
    scores = score_labels(part_of(truth), told.probability, told, spec_of("labels", LABELS))
    expected = [
        (told.possible[k] & truth[k]).sum() / truth[k].sum() for k in range(N) if truth[k].any()
    ]
    assert value(scores, "set_coverage") == pytest.approx(np.mean(expected))
    assert value(scores, "set_size") == pytest.approx(told.possible.sum(1).mean())


def test_labels_with_levels_are_scored_level_by_level_too():
    logits, truth, told = labelled()
    flat = score_labels(part_of(truth), logits, told, spec_of("labels", LABELS))
    levelled = score_labels(part_of(truth), logits, told, spec_of("labels", LABELS, "::"))
    further = set(levelled.values) - set(flat.values)
    assert further
    assert {k: v for k, v in levelled.values.items() if k not in further} == flat.values


def test_tables_name_each_label_and_bucket():
    logits, truth, told = labelled()
    spec = spec_of("labels", LABELS, counts=[2, 5, 40, 900])
    scores = score_labels(part_of(truth), logits, told, spec)
    table = scores.tables["Labels"]
    assert table["label"].to_list() == list(LABELS[::-1])
    row = table.row(by_predicate=pl.col("label") == "y::c", named=True)
    assert row["texts of this part"] == truth[:, 2].sum()
    assert row["predicted"] == told.labels[:, 2].sum()
    assert row["F1"] == pytest.approx(f1_score(truth[:, 2], told.labels[:, 2]))
    buckets = scores.tables["Labels in thirds, by how often the training part has them"]
    assert buckets["how many labels"].sum() == 4


def test_sources_with_enough_texts_are_scored_by_themselves():
    logits, truth, told = labelled()
    sources = ["mail"] * 40 + ["chat"] * 45 + ["form"] * 5
    scores = score_labels(part_of(truth, sources), logits, told, spec_of("labels", LABELS))
    table = scores.tables["By source"]
    assert table["source"].to_list() == ["chat", "mail"]
    mail = table.row(by_predicate=pl.col("source") == "mail", named=True)
    assert mail["texts"] == 40
    expected = f1_score(truth[:40], told.labels[:40], average="micro")
    assert mail["micro-F1"] == pytest.approx(expected)
    assert "By language" not in scores.tables
    one = score_labels(part_of(truth, ["mail"] * N), logits, told, spec_of("labels", LABELS))
    assert "By source" not in one.tables


def test_texts_without_any_label_can_be_scored():
    logits, truth, told = labelled()
    scores = score_labels(part_of(truth & False), logits, told, spec_of("labels", LABELS))
    assert np.isnan(value(scores, "set_coverage"))
    assert value(scores, "micro_f1") == 0


def test_scores_of_classes_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(N, 3))
    labels = generator.integers(0, 3, N)
    probability = softmax(logits, axis=1)
    predicted = probability.argmax(1)
    told = Told(probability, np.eye(3, dtype=bool)[predicted], probability > 0.25)
    sources = ["mail"] * 45 + ["chat"] * 45
    part = part_of(np.eye(3)[labels], sources)
    scores = score_classes(part, told, spec_of("class", ("p", "q", "r")))
    assert value(scores, "accuracy") == pytest.approx(accuracy_score(labels, predicted))
    expected = balanced_accuracy_score(labels, predicted)
    assert value(scores, "balanced_accuracy") == pytest.approx(expected)
    inside = (probability > 0.25)[np.arange(N), labels].mean()
    assert value(scores, "set_coverage") == pytest.approx(inside)
    table = scores.tables["Classes"]
    assert table["class"].to_list() == ["p", "q", "r"]
    assert table["of these right"].sum() == (labels == predicted).sum()
    by_source = dict(scores.tables["By source"].select("source", "accuracy").rows())
    assert by_source["mail"] == pytest.approx((labels == predicted)[:45].mean())


def test_a_class_that_no_text_of_the_part_has_is_scored_as_absent():
    generator = np.random.default_rng(0)
    probability = softmax(generator.normal(size=(N, 3)), axis=1)
    labels = generator.integers(0, 2, N)
    told = Told(probability, np.eye(3, dtype=bool)[probability.argmax(1)], probability > 0.2)
    scores = score_classes(part_of(np.eye(3)[labels]), told, spec_of("class", ("p", "q", "r")))
    assert scores.tables["Classes"]["texts of this part"].to_list()[2] == 0
    assert np.isfinite(value(scores, "accuracy"))


def test_scores_of_a_number_are_in_its_own_unit():
    generator = np.random.default_rng(0)
    scaled = generator.normal(size=(N, 1))
    logits = scaled + generator.normal(size=(N, 1)) * 0.5
    spec = spec_of("number", ["stars"], mean=3.0, deviation=2.0)
    sources = ["mail"] * 45 + ["chat"] * 45
    scores = score_numbers(part_of(scaled, sources), logits, 0.8, spec)
    truth, predicted = (x[:, 0].astype(np.float32) * 2 + 3 for x in (scaled, logits))
    assert value(scores, "r2") == pytest.approx(r2_score(truth, predicted), abs=1e-5)
    assert value(scores, "mae") == pytest.approx(mean_absolute_error(truth, predicted), abs=1e-5)
    assert value(scores, "pearson") == pytest.approx(pearsonr(truth, predicted)[0], abs=1e-5)
    assert value(scores, "interval_half_width") == pytest.approx(1.6)
    inside = (np.abs(truth - predicted) <= 1.6).mean()
    assert value(scores, "interval_coverage") == pytest.approx(inside)
    mail = scores.tables["By source"].row(by_predicate=pl.col("source") == "mail", named=True)
    assert mail["R²"] == pytest.approx(r2_score(truth[:45], predicted[:45]), abs=1e-5)


def test_numbers_that_are_all_the_same_and_intervals_without_end_are_no_error():
    scores = score_numbers(
        part_of(np.ones((30, 1))), np.zeros((30, 1)), float("inf"), spec_of("number", ["stars"])
    )
    assert scores.values["interval_half_width"] is None
    assert value(scores, "interval_coverage") == 1
    assert value(scores, "mae") == pytest.approx(1)


@pytest.mark.parametrize("goal", ["labels", "class", "number"])
def test_copies_within_a_group_make_no_interval_narrower_and_groups_are_counted(goal):
    """Four copies of each text in one group count as one text."""
    logits, truth, told = labelled()
    spec = spec_of(goal, ["number"] if goal == "number" else LABELS)
    if goal == "class":
        truth = np.eye(4)[(logits + 2 * truth).argmax(1)] > 0
    if goal == "number":
        logits, truth = logits[:, :1], logits[:, :1] + truth[:, :1]

    def scores(copies: int) -> Any:
        part = part_of(np.repeat(truth, copies, 0))
        part.groups = np.repeat(np.arange(N), copies)
        rows = np.repeat(logits, copies, 0)
        values = (told.probability, told.labels, told.possible)
        told_of = Told(*(np.repeat(array, copies, 0) for array in values))
        if goal == "number":
            return score_numbers(part, rows, 1.0, spec)
        if goal == "class":
            return score_classes(part, told_of, spec)
        return score_labels(part, rows, told_of, spec)

    single, copied = scores(1), scores(4)
    assert single.intervals.keys() == copied.intervals.keys()
    for name, ends in single.intervals.items():
        np.testing.assert_allclose(ends, copied.intervals[name], rtol=1e-9, err_msg=name)
    assert (copied.values["texts"], copied.values["groups"]) == (4 * N, N)
    assert f"Scores, 95 % intervals over {N} groups" in copied.tables
    assert f"Scores, 95 % intervals over {N} texts" in single.tables
