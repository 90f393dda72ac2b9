"""Open-set search against loops over queries, and thresholds against all that could be chosen."""

import numpy as np
import pytest

from headwise.pipelines.metrics.open_set import Nearest, choose_open_threshold, nearest_of
from headwise.pipelines.metrics.operating import fit_logistic

NAN = float("nan")


def searches(seed: int, queries: int = 40, gallery: int = 60):
    generator = np.random.default_rng(seed)
    similarity = generator.normal(size=(queries, gallery)).round(2)
    query_ids, gallery_ids = (generator.integers(1, 30, n) for n in (queries, gallery))
    return similarity, query_ids, gallery_ids, generator.random((queries, gallery)) < 0.6


def test_the_nearest_pictures_are_those_of_a_loop() -> None:
    similarity, query_ids, gallery_ids, counted = searches(0)
    nearest = nearest_of(similarity, query_ids, gallery_ids, counted)
    for q, (row, mask) in enumerate(zip(similarity, counted, strict=True)):
        own = [row[g] for g in range(len(row)) if mask[g] and gallery_ids[g] == query_ids[q]]
        other = [row[g] for g in range(len(row)) if mask[g] and gallery_ids[g] != query_ids[q]]
        assert nearest.other[q] == max(other)
        if own:
            assert nearest.match[q] == max(own + other)
            assert nearest.right[q] == (max(own) >= max(other))
        else:
            assert np.isnan(nearest.match[q])
            assert not nearest.right[q]
    assert np.isnan(nearest.match).any()
    assert nearest.right.any()


def errors(nearest: Nearest, threshold: float) -> tuple[float, float]:
    """Shares of strangers with a name, and of the others without the right one, by counting."""
    named = [value >= threshold for value in nearest.other if value == value]
    missed = [
        not (right and value >= threshold)
        for value, right in zip(nearest.match, nearest.right, strict=True)
        if value == value
    ]
    return sum(named) / len(named), sum(missed) / len(missed)


@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_has_more_equal_errors(seed: int) -> None:
    nearest = nearest_of(*searches(seed))
    chosen = choose_open_threshold(nearest)
    worst = max(errors(nearest, chosen))
    assert worst <= min(max(errors(nearest, t)) for t in np.arange(-4, 4, 0.005)) + 1e-12
    assert nearest.named_at(chosen).mean() == errors(nearest, chosen)[0]
    assert 1 - nearest.found_at(chosen).mean() == pytest.approx(errors(nearest, chosen)[1])


@pytest.mark.parametrize("share", [0.3, 0.1, 0.001])
def test_a_share_of_false_matches_is_kept_by_the_lowest_threshold(share: float) -> None:
    nearest = nearest_of(*searches(1))
    chosen = choose_open_threshold(nearest, share)
    assert errors(nearest, chosen)[0] <= share
    below = max(v for v in np.concatenate([nearest.other, nearest.match]) if v < chosen)
    assert errors(nearest, below)[0] > share


def test_a_threshold_lies_midway_between_what_it_separates() -> None:
    nearest = Nearest(
        np.array([0.8, 0.9, NAN]), np.array([1, 1, 0], bool), np.array([0.2, 0.1, 0.4])
    )
    assert choose_open_threshold(nearest) == pytest.approx(0.6)
    assert choose_open_threshold(nearest, 0.4) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="with and without"):
        choose_open_threshold(nearest._replace(match=np.full(3, NAN)))


def test_probabilities_of_pairs_are_those_that_they_were_drawn_with() -> None:
    generator = np.random.default_rng(0)
    similarity = generator.uniform(-1, 1, 60_000)
    same = generator.random(60_000) < 1 / (1 + np.exp(-(6 * similarity - 3)))
    slope, intercept = fit_logistic(similarity, same)
    assert slope == pytest.approx(6, abs=0.2)
    assert intercept == pytest.approx(-3, abs=0.1)
    # Where the likelihood is largest, its two derivatives are 0.
    residual = same - 1 / (1 + np.exp(-(slope * similarity + intercept)))
    assert abs(residual.mean()) < 1e-5
    assert abs((residual * similarity).mean()) < 1e-5


def test_pairs_of_one_kind_have_one_probability() -> None:
    slope, intercept = fit_logistic(np.array([0.1, 0.2]), np.array([False, False]))
    assert slope == 0
    assert 1 / (1 + np.exp(-intercept)) == pytest.approx(0.25)  # (0 + 1) / (2 + 2)
