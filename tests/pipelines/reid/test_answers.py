"""Who is in a picture, or nobody: answers of constructed vectors, by counting pair by pair."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.pipelines.metrics.open_set import Nearest
from headwise.pipelines.reid import answers
from headwise.pipelines.reid.answers import (
    Answering,
    answer_line,
    answer_scores,
    fit_answering,
    stored_answering,
    threshold_line,
    with_answers,
)
from headwise.pipelines.reid.pictures import Pictures
from headwise.pipelines.reid.protocol import search_part


def part_of(labels: list[int], cameras: list[str] | None = None, parts: list[str] | None = None):
    count = len(labels)
    pictures = SimpleNamespace(cameras=cameras, parts=parts or [""] * count)
    source = SimpleNamespace(pictures=pictures)
    return Pictures(source, np.arange(count), np.array(labels))  # type: ignore[arg-type]


def people(count: int, each: int, noise: float, seed: int, width: int = 12):
    """Vectors of length 1 around a direction for each identity."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(1, count + 1), each)
    centres = generator.normal(size=(count, width))
    vectors = centres[labels - 1] + noise * generator.normal(size=(len(labels), width))
    return labels.tolist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fitted(noise: float = 0.3, false_match: float | None = None) -> Answering:
    labels, vectors = people(20, 4, noise, 0)
    answering = fit_answering(part_of(labels), vectors.astype(np.float32), false_match)
    assert answering is not None
    return answering


def counts(labels, vectors, cameras, threshold: float) -> dict[str, list[bool]]:
    """Each query among all others, with its identity and without, by loops."""
    result = {name: [] for name in ("right", "missed", "stranger", "one", "two")}
    for q in range(len(labels)):
        if labels[q] < 1:
            continue
        hits = []
        for g in range(len(labels)):
            same = labels[g] == labels[q]
            if g == q or labels[g] == -1 or (same and cameras and cameras[g] == cameras[q]):
                continue
            cosine = float(vectors[q] @ vectors[g])
            hits.append((cosine, same))
            result["one" if same else "two"].append(cosine >= threshold)
        strangers = [cosine for cosine, same in hits if not same]
        result["stranger"].append(max(strangers) >= threshold)
        if any(same for _, same in hits):
            best, same = max(hits)
            result["right"].append(same and best >= threshold)
            result["missed"].append(best < threshold)
    return result


@pytest.mark.parametrize("crossed", [False, True])
def test_scores_of_answers_are_those_of_loops(crossed: bool) -> None:
    labels, vectors = people(15, 4, 0.7, 3)
    labels[:4] = [-1, -1, 0, 0]  # junk counts for nobody, distractors are nobody
    labels[4] = 99  # an identity with one picture: not in the gallery
    cameras = [str(place % 3) for place in range(len(labels))] if crossed else None
    part = part_of(labels, cameras)
    answering = fitted(0.7)
    scores = answer_scores(part, search_part(part, vectors), answering, 0)
    expected = counts(labels, vectors, cameras, answering.threshold)
    assert scores["queries"] == len(expected["right"]) < len(expected["stranger"])
    assert scores["strangers"] == len(expected["stranger"])
    assert scores["pairs_of_one_identity"] == len(expected["one"])
    assert scores["pairs_of_two_identities"] == len(expected["two"])
    for name, values in (
        ("named_rightly", expected["right"]),
        ("missed", expected["missed"]),
        ("strangers_named", expected["stranger"]),
        ("missed_matches", np.logical_not(expected["one"])),
        ("false_matches", expected["two"]),
    ):
        assert scores[name] == pytest.approx(np.mean(values)), name
        assert 0 < np.mean(values) < 1, name
    low, high = scores["intervals"]["named_rightly"]
    assert low < scores["named_rightly"] < high


def test_queries_are_compared_with_the_gallery_where_the_data_has_one() -> None:
    labels, vectors = people(6, 4, 0.2, 5)
    parts = ["query", "gallery", "gallery", "gallery"] * 6
    part = part_of(labels, None, parts)
    scores = answer_scores(part, search_part(part, vectors), fitted(), 0)
    assert scores["queries"] == scores["strangers"] == 6
    assert scores["pairs_of_one_identity"] == 6 * 3
    assert scores["pairs_of_two_identities"] == 6 * 15


def test_the_errors_of_the_threshold_are_about_equal_on_other_people() -> None:
    labels, vectors = people(60, 4, 0.5, 8)
    part = part_of(labels)
    scores = answer_scores(part, search_part(part, vectors), fitted(0.5), 0)
    missed = 1 - scores["named_rightly"]
    assert scores["strangers_named"] < 0.7
    assert missed < 0.5
    strict = fitted(0.5, 0.02)
    stricter = answer_scores(part, search_part(part, vectors), strict, 0)
    assert strict.threshold > fitted(0.5).threshold
    assert stricter["strangers_named"] < scores["strangers_named"] - 0.1
    assert stricter["missed"] > scores["missed"]


def test_what_a_run_keeps_is_what_it_answers_by() -> None:
    answering = fitted()
    again = stored_answering(answering.tensors())
    assert again is not None
    assert (again.threshold, again.slope, again.gallery) == (
        answering.threshold,
        answering.slope,
        79,
    )
    assert again.width == 12
    cosine = np.array([[-0.5, 0.2, 0.9]])
    expected = 1 / (1 + np.exp(-(answering.slope * cosine + answering.intercept)))
    np.testing.assert_allclose(again.probability(cosine), expected)
    assert (np.diff(again.probability(cosine)) > 0).all()
    for share in (0.3, 0.05):
        assert again.at(share).threshold == fitted(false_match=share).threshold
    assert stored_answering({}) is None


def test_too_few_searches_for_a_share_are_said() -> None:
    with opened() as account:
        answering = fitted(false_match=0.001)
    assert any("80 searches" in line and "0.001" in line for line in account.lines())
    assert not answering.nearest.named_at(answering.threshold).any()


def test_a_part_with_one_identity_or_no_pairs_has_no_threshold() -> None:
    labels, vectors = people(1, 6, 0.3, 0)
    assert fit_answering(part_of(labels), vectors, None) is None
    labels, vectors = people(6, 1, 0.3, 0)
    assert fit_answering(part_of(labels), vectors, None) is None


def test_of_a_large_part_entire_identities_are_compared(monkeypatch) -> None:
    monkeypatch.setattr(answers, "MOST_PICTURES", 10)
    labels, vectors = people(9, 4, 0.3, 0)
    labels[:2] = [-1, 0]
    some, rest = answers._some_identities(part_of(labels), vectors)
    assert some.labels.tolist() == labels[2:12]
    np.testing.assert_array_equal(rest, vectors[2:12])


def ranked() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query": ["q1", "q1", "q2", "q2", "q3", "q3"],
            "rank": [1, 2] * 3,
            "item": ["a.jpg", "b.jpg", "b.jpg", "a.jpg", "c.jpg", "a.jpg"],
            "score": [0.9, 0.1, 0.3, 0.2, 0.8, 0.2],
            "identity": ["anna", "ben", "ben", "anna", None, "anna"],
        }
    )


def constructed(threshold: float = 0.5) -> Answering:
    nearest = Nearest(np.array([0.9, 0.8]), np.array([True, True]), np.array([0.1, 0.2]))
    return Answering(threshold, 10.0, -5.0, nearest, gallery=10, width=4)


def test_a_query_is_named_by_its_first_hit_above_the_threshold_or_by_nobody() -> None:
    cosine = np.array([[0.9, 0.1], [0.3, 0.2], [0.8, 0.2]])
    rows = with_answers(ranked(), cosine, constructed())
    # The identity of c.jpg is not known: it is named itself.
    assert rows["answer"].to_list() == ["anna"] * 2 + ["nobody"] * 2 + ["c.jpg"] * 2
    expected = 1 / (1 + np.exp(5 - 10 * cosine.ravel()))
    np.testing.assert_allclose(rows["probability"], expected, rtol=1e-6)
    first, second, third = (rows.filter(pl.col("query") == q) for q in ("q1", "q2", "q3"))
    assert answer_line(first) == "anna, probability 0.982"
    assert answer_line(second).startswith("nobody in the gallery (of the nearest picture: probab")
    assert answer_line(third).startswith("c.jpg, ")
    lower = with_answers(ranked(), cosine, constructed(0.3))
    assert lower["answer"].to_list()[2] == "ben"  # a cosine that reaches the threshold


def test_a_gallery_that_is_much_larger_is_said() -> None:
    assert "--false-match" not in threshold_line(constructed(), 30)
    line = threshold_line(constructed(), 31)
    assert "among 31 pictures more strangers" in line
    assert "0.0% of those who were not" in line
    assert "from a cosine of 0.500" in line
