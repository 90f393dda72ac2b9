"""Speech is heard however short or quiet it is; noise of any loudness is not made speech."""

import numpy as np
import pytest

from headwise.data.formats.audio import RATE
from headwise.data.speech.voice_activity import Activity, speech_spans, speech_windows


def noise(seconds, level, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (level * samples).astype(np.float32)


def babble(seconds, seed=1):
    """Sound that swells and fades as syllables do."""
    t = np.arange(round(seconds * RATE)) / RATE
    return noise(seconds, 0.1, seed) * np.abs(np.sin(2 * np.pi * 2 * t)).astype(np.float32) ** 2


@pytest.mark.parametrize("background", [0.0, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize(("before", "seconds"), [(60.0, 2.0), (28.0, 1.1)])
def test_speech_that_fills_little_of_a_recording_is_heard(background, before, seconds):
    """At the loudness of room noise, and in digital silence."""
    sound = np.concatenate([np.zeros(round(before * RATE), np.float32), babble(seconds)])
    sound = sound + noise(len(sound) / RATE, background, 2)
    spans = speech_spans(sound)
    assert spans[0][0] == pytest.approx(before, abs=0.15)
    assert spans[-1][1] == pytest.approx(before + seconds, abs=0.15)
    windows = speech_windows(sound)
    assert all(start <= before + 0.1 and stop >= before for start, stop in windows)
    assert Activity.of(sound).gain == 1.0


@pytest.mark.parametrize("loudness", [0.03, 0.01, 0.003, 0.001, 0.0003])
def test_speech_is_heard_whatever_its_loudness(loudness):
    sound = np.concatenate([noise(2, 1e-4), babble(4) + noise(4, 1e-4), noise(2, 1e-4)])
    quiet = Activity.of(sound * np.float32(loudness))
    expected = Activity.of(sound).spans()
    assert len(quiet.spans()) == len(expected)
    np.testing.assert_allclose(quiet.spans(), expected, atol=0.1)
    raised = Activity.of(sound * np.float32(loudness * quiet.gain))
    assert raised.gain == 1.0
    assert quiet.gain >= 1.0


def test_a_quiet_word_without_a_background_is_heard():
    assert Activity.of(babble(0.3) * np.float32(0.005)).gain > 1


@pytest.mark.parametrize("loudness", [1e-4, 1e-5, 0.0])
def test_even_noise_that_is_quiet_is_no_speech(loudness):
    for seconds in (0.3, 3.0, 40.0):
        activity = Activity.of(noise(seconds, loudness))
        assert activity.gain == 0.0
        assert activity.windows() == []
    hum = np.sin(2 * np.pi * 50 * np.arange(3 * RATE) / RATE).astype(np.float32)
    assert Activity.of(np.float32(loudness) * hum).gain == 0.0


def test_what_may_be_a_click_in_silence_is_said():
    click = np.zeros(60 * RATE, np.float32)
    click[30 * RATE : 30 * RATE + 3000] = babble(3000 / RATE)
    assert Activity.of(click).is_rare
    assert not Activity.of(babble(5)).is_rare
    assert not Activity.of(np.zeros(RATE, np.float32)).is_rare


def test_a_loud_click_does_not_hide_speech():
    """A bump of the microphone that is far louder than who speaks."""
    speech = 0.02 * babble(20) + noise(20, 1e-5)
    bumped = speech.copy()
    bumped[8000:10_000] += noise(2000 / RATE, 1.0, 5)
    for sound in (speech, bumped):
        spans = speech_spans(sound)
        assert sum(stop - start for start, stop in spans) > 10
