"""Recordings: right samples, or one clear line."""

import math
import wave

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile
from scipy.signal import resample_poly

from headwise.base.errors import InputError
from headwise.data.formats import audio
from headwise.data.formats.audio import audio_facts, read_audio, resampled


def tone(rate, seconds=0.7, channels=1):
    t = np.arange(round(rate * seconds)) / rate
    sine = 0.4 * np.sin(2 * np.pi * 440 * t)
    return np.stack([sine] * channels, 1).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_blocks_are_resampled_as_one(rate):
    x = np.random.default_rng(rate).normal(size=3 * rate + 17).astype(np.float32)
    samples = (
        np.concatenate(list(resampled(iter(np.array_split(x, 7)), rate))) if rate != 16000 else x
    )
    shared = math.gcd(rate, 16000)
    expected = resample_poly(x, 16000 // shared, rate // shared)
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".wav", "PCM_U8"),
        (".wav", "PCM_16"),
        (".wav", "PCM_24"),
        (".wav", "FLOAT"),
        (".flac", "PCM_16"),
        (".ogg", None),
    ],
)
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2)])
def test_every_kind_of_file_is_read(tmp_path, suffix, kind, rate, channels):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(rate, channels=channels), rate, subtype=kind)
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 0.7 * 16000) <= 1
    middle = slice(2000, 9000)
    expected = tone(16000)[middle, 0]
    assert np.abs(samples[middle] - expected).max() < (0.05 if kind is None else 0.01)
    facts = audio_facts(path)
    assert (facts.rate, facts.channels) == (rate, channels)


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize(
    ("suffix", "kind"), [(".wav", "PCM_16"), (".wav", "FLOAT"), (".flac", "PCM_24")]
)
def test_channels_are_averaged(tmp_path, suffix, kind, rate):
    """A voice on one side only, opposite phases, six channels."""
    generator = np.random.default_rng(rate)
    smooth = np.cumsum(generator.normal(size=(rate // 2, 6)), 0)
    voices = 0.4 * smooth / np.abs(smooth).max(0)
    for channels in (voices[:, :2], voices[:, :1] * [0, 1], voices[:, :1] * [1, -1], voices):
        soundfile.write(tmp_path / f"a{suffix}", channels, rate, subtype=kind)
        soundfile.write(tmp_path / "mono.wav", channels.mean(1), rate, subtype="FLOAT")
        np.testing.assert_allclose(
            read_audio(tmp_path / f"a{suffix}"), read_audio(tmp_path / "mono.wav"), atol=2e-4
        )


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_recording_of_many_blocks_is_complete(tmp_path, monkeypatch, rate):
    """Every sample once and in order, the last block, which is shorter, too."""
    x = np.random.default_rng(rate).uniform(-0.5, 0.5, (round(3.3 * rate), 2))
    soundfile.write(tmp_path / "a.wav", x, rate, subtype="FLOAT")
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    shared = math.gcd(rate, 16000)
    expected = resample_poly(x.mean(1), 16000 // shared, rate // shared)
    samples = read_audio(tmp_path / "a.wav")
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, atol=1e-5)
    middle = read_audio(tmp_path / "a.wav", 0.5, 2.75)
    assert len(middle) == 36_000
    np.testing.assert_allclose(middle[200:-200], expected[8_200:43_800], atol=1e-3)


def test_a_stretch_is_cut_out_by_its_seconds(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(32000) / 32000, 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(path, 0.5, 0.75), np.arange(8000, 12000) / 32000, atol=1e-6
    )
    assert len(read_audio(path, 1.0)) == 16000
    with pytest.raises(InputError, match="has no samples from 3 s"):
        read_audio(path, 3.0)


def test_what_is_no_recording_is_one_line(tmp_path):
    soundfile.write(
        tmp_path / "full.flac", np.random.default_rng(0).normal(size=64000) * 0.1, 16000
    )
    content = (tmp_path / "full.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.wav").write_text("this is no sound at all, only text")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    for name, message in (
        ("cut.flac", "cut off|damaged"),
        ("text.wav", "no recording"),
        ("empty.wav", "empty file"),
        ("none.wav", "holds no samples"),
        ("nan.wav", "not finite"),
        ("missing.wav", "no such file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.real_data
def test_an_mp3_whose_header_counts_too_many_samples(real_data):
    """Common Voice's files name up to a frame more than any decoder gives out."""
    path = real_data / "speech" / "lhotse" / "test" / "fixtures" / "common_voice_en_651325.mp3"
    named = soundfile.info(path).frames / 48000
    assert named - 1152 / 48000 <= len(read_audio(path)) / 16000 < named


def test_a_cut_mp3_is_still_cut_off(tmp_path):
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    soundfile.write(tmp_path / "a.mp3", np.random.default_rng(0).normal(size=80000) * 0.1, 16000)
    assert len(read_audio(tmp_path / "a.mp3")) == 80000
    (tmp_path / "cut.mp3").write_bytes((tmp_path / "a.mp3").read_bytes()[:10000])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_audio(tmp_path / "cut.mp3")


def test_hours_are_refused_by_their_header(tmp_path):
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(1000)
        file.writeframes(bytes(9 * 3600 * 1000))
    with pytest.raises(InputError, match=r"9\.0 hours long"):
        read_audio(path)
