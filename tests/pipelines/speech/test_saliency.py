"""Saliency by masks, its agreement with attention, and the sentence on both."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

pytest.importorskip("skimage", reason="the extra `speech` is not installed")

from headwise.data.speech.transcripts import Word
from headwise.pipelines.metrics.alignment import equal_words
from headwise.pipelines.speech.verbs.agreement import (
    averages_of,
    near_words,
    places_of_words,
    sentence_on_times,
)
from headwise.pipelines.speech.verbs.deletion import area_under
from headwise.pipelines.speech.verbs.saliency import (
    correlation,
    pooled,
    saliency_of_spectrogram,
    saliency_of_states,
    segments_of,
)

OPTIONS = SimpleNamespace(
    masks=400, input_masks=300, chunk=3, hidden=0.5, segments=(40, 80), batch_size=16, seed=0
)


def transcribed(states=30, frames=59, tokens=2):
    """A recording that is shorter than the model's window."""
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        memory=SimpleNamespace(states=torch.zeros(1, states + 10, 4)),
        states=states,
        frames=frames,
        ids=tuple(range(tokens)),
        features=torch.randn(1, 8, frames + 20, generator=generator),
    )


def test_states_that_matter_are_found():
    recording, counts = transcribed(), []

    def masking(visible):
        assert visible[:, recording.states :].all()  # silence behind the recording is never hidden
        counts.append(len(visible))
        return torch.stack([(~visible[:, 12]).float(), (~visible[:, 25]).float()], 1)

    values, reliability = saliency_of_states(
        masking, recording, OPTIONS, np.random.default_rng(0), lambda count: None
    )
    assert values.shape == (2, 30)
    assert values.argmax(1).tolist() == [12, 25]
    assert sum(counts) == 400
    assert reliability > 0.9
    # Two places closer than a stretch are told apart, since stretches begin anywhere.
    assert values[0, 12] > values[0, 13] > values[0, 15]


def test_noise_is_not_reliable():
    generator = torch.Generator().manual_seed(0)
    _, reliability = saliency_of_states(
        lambda visible: torch.rand(len(visible), 2, generator=generator),
        transcribed(),
        OPTIONS,
        np.random.default_rng(0),
        lambda count: None,
    )
    assert reliability < 0.5


def test_places_of_the_spectrogram_that_matter_are_found():
    recording = transcribed()

    def masking(visible):
        assert visible[:, :, recording.frames :].all()
        return (~visible[:, 3, 20]).float()[:, None].expand(-1, 2)

    values, reliability = saliency_of_spectrogram(
        masking, recording, OPTIONS, np.random.default_rng(0), lambda count: None
    )
    assert values.shape == (2, 8, 59)
    assert values[0, 3, 20] == values[0].max()
    assert reliability > 0.8


@pytest.mark.parametrize("frames", [1, 7, 300])
def test_segments_cover_the_spectrogram(frames):
    x = np.random.default_rng(0).normal(size=(80, frames)).astype(np.float32)
    labels = segments_of(x, 100)
    assert labels.shape == x.shape
    assert labels.min() == 0
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))


def test_pooling_takes_the_largest_of_bands_and_frames():
    x = torch.randn(2, 4, 5)
    states = pooled(x)
    assert states.shape == (2, 3)
    torch.testing.assert_close(states[:, 0], x[:, :, :2].flatten(1).amax(1))
    torch.testing.assert_close(states[:, 2], x[:, :, 4].amax(1))


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
    averages = averages_of(attention, [(1, 0), (1, 2)])
    torch.testing.assert_close(averages["all heads"], attention.mean((0, 1)))
    torch.testing.assert_close(averages["layer 2"], attention[1].mean(0))
    torch.testing.assert_close(averages["layer 1 head 3"], attention[0, 2])
    torch.testing.assert_close(averages["heads of word times"], attention[1, [0, 2]].mean(0))
    assert averages["map of word times"].shape == (5, 40)
    assert len(averages) == 3 + 2 + 6


def test_a_word_far_from_what_mattered_most_gets_a_warning():
    values = torch.zeros(3, 50)
    values[0, 8:12], values[1, 9:13], values[2, 40:44] = 1, 1, 1
    words = [Word("one", 0.1, 0.3), Word("two", 0.4, 0.5)]
    places = places_of_words(values, [(0, 2), (2, 3)])
    assert places[0] == pytest.approx(0.22, abs=0.03)
    assert places[1] == pytest.approx(0.84, abs=0.03)
    near = near_words(words, places)
    assert near == [True, False]
    agreement = {"states": {"all heads": [0.5, 0.4]}, "spectrogram": {"all heads": [0.25, 0.2]}}
    line = sentence_on_times(agreement, words, near, {"states": 0.95, "spectrogram": 0.9})
    assert "0.50 (the states of its encoder) and 0.25 (the spectrogram)" in line
    assert "1 of 2 words" in line
    assert "take the times of two with care" in line
    assert "too few" not in line
    assert "too few" in sentence_on_times(
        agreement, words, [True, True], {"states": 0.3, "spectrogram": 0.9}
    )
    assert (
        "nan"
        not in sentence_on_times(agreement, [], [], {"states": float("nan")}).split("reliability")[
            0
        ]
    )


def test_areas_and_equal_words():
    assert area_under([1.0] * 21) == pytest.approx(100)
    assert area_under(np.linspace(0, 1, 21)) == pytest.approx(50)
    assert equal_words(["The", "cat", "sat."], ["the", "big", "cat", "sat"]) == [
        (0, 0),
        (1, 2),
        (2, 3),
    ]
    assert equal_words([], ["a"]) == []
