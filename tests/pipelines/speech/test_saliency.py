"""Saliency by masks, its agreement with attention, and what is said of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

pytest.importorskip("skimage", reason="the extra `speech` is not installed")

from headwise.data.speech.transcripts import Word
from headwise.pipelines.metrics.alignment import equal_words
from headwise.pipelines.speech.agreement import area, near, places, scopes, sentence
from headwise.pipelines.speech.saliency import (
    correlation,
    of_spectrogram,
    of_states,
    pooled,
    segments_of,
)

OPTIONS = SimpleNamespace(
    masks=400, input_masks=300, chunk=3, hidden=0.5, segments=(40, 80), batch_size=16, seed=0
)


def heard(states=30, frames=59, tokens=2):
    """A recording of which the model's window holds more than is asked for."""
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        memory=SimpleNamespace(states=torch.zeros(1, states + 10, 4)),
        states=states,
        frames=frames,
        ids=tuple(range(tokens)),
        features=torch.randn(1, 8, frames + 20, generator=generator),
    )


def test_states_that_matter_are_found():
    one, seen = heard(), []

    def masking(kept):
        assert kept[:, one.states :].all()  # silence behind the recording is never hidden
        seen.append(len(kept))
        return torch.stack([(~kept[:, 12]).float(), (~kept[:, 25]).float()], 1)

    drawn, reliability = of_states(
        masking, one, OPTIONS, np.random.default_rng(0), lambda count: None
    )
    assert drawn.shape == (2, 30)
    assert drawn.argmax(1).tolist() == [12, 25]
    assert sum(seen) == 400
    assert reliability > 0.9
    # Two places closer than a stretch are told apart, since stretches begin anywhere.
    assert drawn[0, 12] > drawn[0, 13] > drawn[0, 15]


def test_noise_is_not_reliable():
    generator = torch.Generator().manual_seed(0)
    one = heard()
    _, reliability = of_states(
        lambda kept: torch.rand(len(kept), 2, generator=generator),
        one,
        OPTIONS,
        np.random.default_rng(0),
        lambda count: None,
    )
    assert reliability < 0.5


def test_places_of_the_spectrogram_that_matter_are_found():
    one = heard()

    def masking(kept):
        assert kept[:, :, one.frames :].all()
        return (~kept[:, 3, 20]).float()[:, None].expand(-1, 2)

    drawn, reliability = of_spectrogram(
        masking, one, OPTIONS, np.random.default_rng(0), lambda count: None
    )
    assert drawn.shape == (2, 8, 59)
    assert drawn[0, 3, 20] == drawn[0].max()
    assert reliability > 0.8


@pytest.mark.parametrize("frames", [1, 7, 300])
def test_segments_cover_the_spectrogram(frames):
    x = np.random.default_rng(0).normal(size=(80, frames)).astype(np.float32)
    found = segments_of(x, 100)
    assert found.shape == x.shape
    assert found.min() == 0
    assert np.unique(found).tolist() == list(range(found.max() + 1))


def test_pooling_takes_the_largest_of_bands_and_frames():
    x = torch.randn(2, 4, 5)
    found = pooled(x)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[:, 0], x[:, :, :2].flatten(1).amax(1))
    torch.testing.assert_close(found[:, 2], x[:, :, 4].amax(1))


def test_correlation_is_of_normalised_rows():
    a, b = torch.randn(3, 20), torch.randn(3, 20) * torch.tensor([[1.0], [50.0], [0.01]])
    rows = [scipy.stats.pearsonr(x, y)[0] for x, y in zip(a.numpy(), b.numpy())]
    assert correlation(a, b) == pytest.approx(np.mean(rows), abs=1e-6)
    flat = [((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)).flatten() for x in (a, b)]
    assert correlation(a, b, ranks=True) == pytest.approx(scipy.stats.spearmanr(*flat)[0], abs=1e-6)
    assert correlation(a, 3 * a + 2) == pytest.approx(1)
    assert np.isnan(correlation(a, torch.ones(3, 20)))


def test_averages_of_attention():
    attention = torch.rand(2, 3, 5, 40)
    found = scopes(attention, [(1, 0), (1, 2)])
    torch.testing.assert_close(found["all heads"], attention.mean((0, 1)))
    torch.testing.assert_close(found["layer 2"], attention[1].mean(0))
    torch.testing.assert_close(found["layer 1 head 3"], attention[0, 2])
    torch.testing.assert_close(found["heads of word times"], attention[1, [0, 2]].mean(0))
    assert found["map of word times"].shape == (5, 40)
    assert len(found) == 3 + 2 + 6


def test_the_place_of_a_word_and_what_is_said_of_it():
    drawn = torch.zeros(3, 50)
    drawn[0, 8:12], drawn[1, 9:13], drawn[2, 40:44] = 1, 1, 1
    words = [Word("one", 0.1, 0.3), Word("two", 0.4, 0.5)]
    at = places(drawn, [(0, 2), (2, 3)])
    assert at[0] == pytest.approx(0.22, abs=0.03)
    assert at[1] == pytest.approx(0.84, abs=0.03)
    fits = near(words, at)
    assert fits == [True, False]
    found = {"states": {"all heads": [0.5, 0.4]}, "spectrogram": {"all heads": [0.25, 0.2]}}
    line = sentence(found, words, fits, {"states": 0.95, "spectrogram": 0.9})
    assert "0.50 (the states of its encoder) and 0.25 (the spectrogram)" in line
    assert "1 of 2 words" in line
    assert "take the times of two with care" in line
    assert "too few" not in line
    assert "too few" in sentence(found, words, [True, True], {"states": 0.3, "spectrogram": 0.9})
    assert "nan" not in sentence(found, [], [], {"states": float("nan")}).split("reliability")[0]


def test_areas_and_equal_words():
    assert area([1.0] * 21) == pytest.approx(100)
    assert area(np.linspace(0, 1, 21)) == pytest.approx(50)
    assert equal_words(["The", "cat", "sat."], ["the", "big", "cat", "sat"]) == [
        (0, 0),
        (1, 2),
        (2, 3),
    ]
    assert equal_words([], ["a"]) == []
