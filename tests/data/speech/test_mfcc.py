"""MFCC against the plain formula, changes against a fitted line, pitch against tones."""

import numpy as np
import pytest

from headwise.data.speech.log_mel import mel_filters
from headwise.data.speech.mfcc import (
    STATISTICS,
    changes,
    clip_statistics,
    mfcc,
    mfcc_with_changes,
    pitch,
)

RATE = 16_000


def noise(seconds: float = 0.3, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def voice(hertz: float, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(0.3 / k * np.sin(2 * np.pi * hertz * k * t) for k in range(1, 8)).astype(np.float32)


def test_coefficients_are_the_cosines_of_the_logarithm_of_the_bands() -> None:
    x = noise()
    filters = mel_filters(40).astype(np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    mirrored = np.pad(x.astype(np.float64), 200, mode="reflect")
    got = mfcc(x)
    assert got.shape == (13, len(x) // 160)
    for frame in (0, 7, got.shape[1] - 1):
        piece = mirrored[160 * frame : 160 * frame + 400] * window
        bins = np.arange(201)[:, None]
        spectrum = np.exp(-2j * np.pi * bins * np.arange(400) / 400) @ piece
        bands = np.log(np.maximum(filters @ np.abs(spectrum) ** 2, 1e-10))
        for k in range(13):
            cosines = np.cos(np.pi * k * (2 * np.arange(40) + 1) / 80)
            scale = np.sqrt((1 if k == 0 else 2) / 40)
            assert got[k, frame] == pytest.approx(scale * (bands @ cosines), abs=2e-3)


def test_a_change_is_the_slope_of_the_line_through_five_frames() -> None:
    values = np.random.default_rng(1).normal(size=(3, 20))
    got = changes(values)
    for row in range(3):
        for frame in range(2, 18):
            slope = np.polyfit(np.arange(5), values[row, frame - 2 : frame + 3], 1)[0]
            assert got[row, frame] == pytest.approx(slope)
    assert changes(np.full((1, 4), 2.5)).tolist() == [[0.0] * 4]


def test_changes_of_changes_follow_the_coefficients() -> None:
    x = noise()
    rows = mfcc_with_changes(x)
    np.testing.assert_array_equal(rows[:13], mfcc(x))
    np.testing.assert_allclose(rows[26:], changes(changes(mfcc(x))), atol=1e-5)


@pytest.mark.parametrize("hertz", [70, 110, 180, 250, 380])
def test_the_pitch_of_a_voice_is_found_within_a_percent(hertz: float) -> None:
    of_frames = pitch(voice(hertz))[3:-3]
    assert np.abs(of_frames / hertz - 1).max() < 0.011


def test_noise_and_silence_have_no_pitch() -> None:
    assert (pitch(noise()) == 0).mean() > 0.95
    assert not pitch(np.zeros(8000, np.float32)).any()


def test_statistics_are_finite_for_the_shortest_sound_and_named() -> None:
    for samples in (noise(0.005), noise(0.3), voice(150)):
        values = clip_statistics(samples)
        assert values.shape == (len(STATISTICS),) == (67,)
        assert np.isfinite(values).all()


def test_statistics_tell_high_from_low_and_loud_from_quiet() -> None:
    at = {name: place for place, name in enumerate(STATISTICS)}
    low, high = clip_statistics(voice(110)), clip_statistics(voice(220))
    assert high[at["pitch, mean"]] - low[at["pitch, mean"]] == pytest.approx(1, abs=0.02)
    quiet = clip_statistics(0.1 * voice(110))
    assert low[at["energy, mean"]] - quiet[at["energy, mean"]] == pytest.approx(20, abs=0.1)
    assert low[at["share of voiced frames"]] > 0.9
