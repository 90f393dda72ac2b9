"""Recordings: right samples, or one clear line."""

import math
import wave

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile
from scipy.signal import resample_poly

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats import audio
from headwise.data.formats.audio import OPPOSITE, audio_facts, read_audio, read_sound, resampled
from headwise.data.formats.audio_sizes import missing_sound


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
    """A voice on one side only, two voices, six channels."""
    generator = np.random.default_rng(rate)
    smooth = np.cumsum(generator.normal(size=(rate // 2, 6)), 0)
    voices = 0.4 * smooth / np.abs(smooth).max(0)
    for channels in (voices[:, :2], voices[:, :1] * [0, 1], voices):
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


def noise(seconds=1.0, rate=16000, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


@pytest.mark.parametrize("disturbance", ["none", "constant", "hum", "noise"])
def test_channels_of_opposite_phase_do_not_cancel(tmp_path, disturbance):
    """A microphone that is wired the wrong way round, also with what both channels share."""
    voice, t = noise(), np.arange(16000) / 16000
    common = {
        "none": 0 * t,
        "constant": 0 * t + 0.4,
        "hum": 0.3 * np.sin(2 * np.pi * 50 * t),
        "noise": 0.01 * noise(seed=1),
    }[disturbance]
    channels = np.stack([voice + common, common - voice], 1)
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype="FLOAT")
    with opened() as account:
        sound = read_sound(tmp_path / "a.wav")
    np.testing.assert_allclose(sound.samples, voice, atol=1e-6)
    assert sound.remarks == (OPPOSITE,)
    assert any(OPPOSITE in entry.what for entry in account.entries())


def test_channels_that_do_not_cancel_stay_as_they_are(tmp_path):
    voices = np.stack([noise(seed=1), noise(seed=2) - 0.5 * noise(seed=1)], 1)
    soundfile.write(tmp_path / "a.wav", voices, 16000, subtype="FLOAT")
    with opened() as account:
        sound = read_sound(tmp_path / "a.wav")
    np.testing.assert_allclose(sound.samples, voices.mean(1), atol=1e-6)
    assert sound.remarks == ()
    assert "recordings of several channels, which are averaged" in account.lines()[0]


def test_one_channel_is_read(tmp_path):
    voices = np.stack([noise(seed=1), -noise(seed=1), noise(seed=3)], 1)
    soundfile.write(tmp_path / "a.wav", voices, 16000, subtype="FLOAT")
    for channel in range(3):
        sound = read_sound(tmp_path / "a.wav", 0.25, 0.5, channel)
        np.testing.assert_allclose(sound.samples, voices[4000:8000, channel], atol=1e-6)
    with pytest.raises(InputError, match="has no channel 4; it has 3"):
        read_audio(tmp_path / "a.wav", channel=3)


def test_another_rate_is_noted(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(rate=8000), 8000)
    with opened() as account:
        read_audio(tmp_path / "a.wav")
    assert "recordings at 8,000 samples a second, changed to 16,000" in account.lines()[0]


@pytest.mark.parametrize(
    ("suffix", "container"),
    [
        (".wav", "WAV"),
        (".rf64", "RF64"),
        (".w64", "W64"),
        (".aiff", "AIFF"),
        (".au", "AU"),
        (".caf", "CAF"),
        (".ogg", "OGG"),
        (".opus", "OGG"),
    ],
)
def test_a_recording_that_is_cut_off_is_an_error_in_every_format(tmp_path, suffix, container):
    """libsndfile gives what is there as if it were all."""
    subtype = {".ogg": "VORBIS", ".opus": "OPUS"}.get(suffix, "PCM_16")
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, noise(4), 16000, format=container, subtype=subtype)
    assert len(read_audio(path)) == pytest.approx(64000, abs=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4])
    for read in (read_audio, audio_facts):
        with pytest.raises(InputError, match=r"is cut off: .* fetch or write it again") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def wave_bytes(count, *, data, riff):
    """A WAV of `count` samples of 16 bits whose header names these sizes."""
    header = b"RIFF" + riff.to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = (1, 1, 16000, 32000, 2, 16)
    header += b"".join(v.to_bytes(4 if v > 9999 else 2, "little") for v in form)
    sound = np.arange(count, dtype="<i2").tobytes()
    return header + b"data" + data.to_bytes(4, "little") + sound


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000])
def test_a_stream_whose_header_names_no_length_is_read_to_its_end(tmp_path, size):
    (tmp_path / "a.wav").write_bytes(wave_bytes(4000, data=size, riff=size))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav") * 32768, np.arange(4000))


def test_a_header_that_names_gigabytes_is_no_stream(tmp_path):
    (tmp_path / "a.wav").write_bytes(wave_bytes(1000, data=2_000_000_000, riff=2_000_000_036))
    with pytest.raises(InputError, match="2,000 bytes of sound are there of the 2,000,000,000"):
        read_audio(tmp_path / "a.wav")


def test_a_header_that_counts_itself_is_no_cut(tmp_path):
    """Some recorders write the size of the file in place of that of the sound."""
    (tmp_path / "a.wav").write_bytes(wave_bytes(4000, data=8044, riff=8036))
    assert missing_sound(tmp_path / "a.wav") is None
    assert len(read_audio(tmp_path / "a.wav")) == 4000


def write_stream(path, samples, codec, container, rate=48000):
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        kind, size = ("flt", 960) if codec == "libopus" else ("fltp", 1024)
        for start in range(0, len(samples) - size + 1, size):
            piece = samples[None, start : start + size].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(piece, format=kind, layout="mono")
            frame.sample_rate, frame.pts = rate, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


STREAMS = [
    (".m4a", "aac", "mp4"),
    (".mp4", "aac", "mp4"),
    (".mov", "aac", "mov"),
    (".webm", "libopus", "webm"),
    (".mkv", "aac", "matroska"),
    (".aac", "aac", "adts"),
    (".wma", "ac3", "asf"),
]


@pytest.mark.parametrize(("suffix", "codec", "container"), STREAMS)
def test_sound_of_phones_and_meetings_is_read(tmp_path, suffix, codec, container):
    path = tmp_path / f"a{suffix}"
    write_stream(path, tone(48000, 1.5)[:, 0], codec, container)
    facts, samples = audio_facts(path), read_audio(path)
    assert (facts.rate, facts.channels) == (48000, 1)
    assert facts.seconds == pytest.approx(1.5, abs=0.1)
    assert len(samples) == pytest.approx(24000, abs=1600)
    middle = samples[6000:18000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * 16000 / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)
    stretch = read_audio(path, 0.5, 1.0)
    assert len(stretch) == 8000
    np.testing.assert_allclose(stretch[500:-500], samples[8500:15500], atol=1e-3)
    renamed = tmp_path / "b.mp3"  # what it is decides, not what it is called
    path.rename(renamed)
    np.testing.assert_array_equal(read_audio(renamed), samples)


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_container_that_is_cut_off_is_one_line(tmp_path, container):
    path = tmp_path / "a.mkv"
    write_stream(path, noise(4, 48000), "aac", container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut off|damaged") as caught:
        read_audio(path)
    assert "\n" not in str(caught.value)


def test_without_pyav_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"0000ftypM4A 0000")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"pip install .*\[video\]'; or convert it: ffmpeg"):
        read_audio(tmp_path / "a.m4a")


def test_too_many_channels_and_names_that_are_too_long_are_one_line(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((10, 200)), 16000)
    with pytest.raises(InputError, match=r"has 200 channels \(at most 64\)"):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(InputError, match="cannot be opened"):
        read_audio(tmp_path / f"{'a' * 300}.wav")


def test_channels_share_the_memory_of_a_block(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.stack([noise()] * 4, 1), 16000, subtype="FLOAT")
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 4000)
    assert {len(block) for block in audio.raw_blocks(tmp_path / "a.wav")} == {1000}
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), noise(), atol=1e-6)


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "ULAW", "ALAW", "PCM_U8", "PCM_24"])
def test_the_codes_of_telephones_and_recorders_are_read_from_any_second(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000, subtype=subtype)
    whole = read_audio(tmp_path / "a.wav")
    expected = resample_poly(tone(8000)[:, 0], 2, 1)
    assert np.sqrt(np.square(whole[: len(expected)] - expected).mean()) < 0.05
    late = read_audio(tmp_path / "a.wav", 0.25, 0.5)
    assert len(late) == 4000
    np.testing.assert_allclose(late[200:-200], whole[4200:7800], atol=0.02)


def test_a_stretch_in_milliseconds_is_refused_and_one_that_ends_a_little_late_is_cut(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
    with pytest.raises(InputError, match=r"ends at 300 s, .* is 0\.70 s long; .*milliseconds"):
        read_audio(tmp_path / "a.wav", 0, 300)
    assert len(read_audio(tmp_path / "a.wav", 0.2, 0.9)) == 8000


def test_integers_saved_as_fractions_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", 32767 * tone(16000), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"fractions up to 13,107, where 1 is the loudest"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.wav", 3 * tone(16000), 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").max() > 1
