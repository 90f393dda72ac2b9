"""Word times from maps with known spans; the dynamic program of intervals against trying all."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the extra `speech` is not installed")

from headwise.base.errors import InputError
from headwise.data.speech.transcripts import Word
from headwise.pipelines.metrics.alignment import boundary_errors, plain, text_errors
from headwise.pipelines.speech import word_times as wt


def map_of(spans, states, weight=1.0):
    """A map that looks at each span, (W, N)."""
    place = np.arange(states)
    return np.stack([np.where((place >= a) & (place < b), weight, 0.0) for a, b in spans])


def test_intervals_are_the_best_of_all():
    """The dynamic program against every choice of intervals."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        inside, between = generator.normal(size=(2, 6)), generator.normal(size=6)
        length = np.zeros((2, 5))
        length[:, 1:] = generator.normal(size=(2, 4))

        def total_of(cut, inside=inside, between=between, length=length):
            a, b, c, d = cut
            total = between[:a].sum() + between[b:c].sum() + between[d:].sum()
            return (
                total
                + inside[0, a:b].sum()
                + inside[1, c:d].sum()
                + length[0, b - a]
                + length[1, d - c]
            )

        cuts = [
            cut
            for cut in itertools.product(range(7), repeat=4)
            if cut[0] < cut[1] <= cut[2] < cut[3] and cut[1] - cut[0] <= 4 and cut[3] - cut[2] <= 4
        ]
        best = max(cuts, key=total_of)
        chosen = wt._best(inside, between, length)
        assert total_of(tuple(chosen.flatten())) == pytest.approx(total_of(best))


def test_pauses_belong_to_no_word():
    spans = [(5, 15), (30, 44), (44, 60)]
    words = [("one", 0, 1), ("two", 1, 2), ("three", 2, 3)]
    # Attention that stays on a word through the pause behind it, as time warping has it.
    weights = map_of([(0, 30), (30, 44), (44, 70)], 70) - 0.3
    share = map_of([(5, 15), (30, 60)], 70).max(0)
    result = wt.intervals(weights, words, share)
    assert np.abs(np.array(result) - np.array(spans)).max() <= 1
    assert wt.intervals(weights, [], share) == []


def test_maps_that_are_not_finite_are_one_line():
    maps = torch.rand(1, 2, 3, 20)
    maps[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="no finite number"):
        wt.smoothed(maps, torch.tensor([3]), torch.tensor([20]))


def test_a_late_map_is_moved():
    spans = [(10, 25), (25, 40), (40, 55)]
    words = [("seven", 0, 1), ("three", 1, 2), ("eight", 2, 3)]
    late = map_of([(a + 4, b + 4) for a, b in spans], 60) - 0.3
    share = map_of([(10, 55)], 60)[0]
    result = wt.intervals(late, words, share, lag=4)
    assert np.abs(np.array(result) - np.array(spans)).max() <= 1


def test_more_words_than_states():
    words = [("a", k, k + 1) for k in range(9)]
    result = wt.intervals(np.random.default_rng(0).normal(size=(9, 4)), words, np.ones(4))
    assert len(result) == 9
    assert all(0 <= a <= b <= 4 for a, b in result)


def test_area_splits_where_blocks_meet():
    spans = [(0, 12), (12, 20), (20, 40)]
    assert wt.split_by_area(map_of(spans, 40) - 0.2, [(0, 1), (1, 2), (2, 3)]) == spans


def test_maps_are_normalised_over_tokens_and_padding_is_0():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 5, 30)
    smooth = wt.smoothed(maps, torch.tensor([5, 3]), torch.tensor([30, 20]))
    assert (smooth[1, 3:] == 0).all()
    assert (smooth[1, :, 20:] == 0).all()
    alone = wt.smoothed(maps[1:, :, :3, :20], torch.tensor([3]), torch.tensor([20]))
    torch.testing.assert_close(smooth[1:, :3, :20], alone)


def test_the_lag_is_fitted():
    true = [[Word("a", 1.0, 1.2), Word("b", 2.0, 2.3)]]
    times = lambda lag: [[Word(w.text, w.start + 0.02 * (5 - lag), w.end) for w in true[0]]]  # noqa: E731
    assert wt.fitted_lag(times, true) == 5


def test_error_rates():
    errors = text_errors(
        ["one Two, three", "four five", ""], ["one two three", "four six five", "seven"]
    )
    assert errors.wrong.tolist() == [0, 1, 1]
    assert errors.total.tolist() == [3, 3, 1]
    assert errors.rate == pytest.approx(2 / 7)
    low, high = errors.interval(["a", "b", "c"])
    assert low <= errors.rate <= high
    letters = text_errors(["ab"], ["abc"], characters=True)
    assert letters.rate == pytest.approx(1 / 3)
    assert text_errors(["uh"], [""]).wrong.tolist() == [1]
    assert plain("Don’t  STOP -- it's 'fine'.") == "don't stop it's fine"


def test_boundaries_match_equal_words():
    predicted = [[("one", 0.1, 0.4), ("three", 1.1, 1.5)]]
    true = [[("One", 0.0, 0.5), ("two", 0.6, 0.9), ("three", 1.0, 1.5)]]
    bounds = boundary_errors(predicted, true)
    np.testing.assert_allclose(bounds.start, [0.1, 0.1])
    np.testing.assert_allclose(bounds.end, [-0.1, 0.0], atol=1e-9)
    assert bounds.summary()["start_mae_ms"] == pytest.approx(100)
    assert boundary_errors([[]], true).summary() == {"words": 0}
