"""Features, tokens, lists of utterances, voice activity, transcripts in other formats."""

import base64
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from headwise.base.errors import InputError
from headwise.data.formats.audio import RATE
from headwise.data.speech import voice_activity
from headwise.data.speech.generate import write_digit_strings, write_sample_speech
from headwise.data.speech.log_mel import log_mel, mel_filters
from headwise.data.speech.manifests import write_manifest
from headwise.data.speech.recordings import list_speech
from headwise.data.speech.tokens import END, START, TextTokens, read_tokens, train_tokens
from headwise.data.speech.transcripts import (
    FORMATS,
    Segment,
    Word,
    format_transcript,
    read_textgrid,
)
from headwise.data.speech.voice_activity import speech_share, speech_spans, speech_windows

WORDS = (Word("hello", 0.1, 0.5, 0.9), Word("<b>", 0.5, 0.8), Word("world", 2.9, 3.0, 0.5))
SEGMENTS = (Segment(0.0, 3.0, "hello <b> world", WORDS),)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample_speech(tmp_path_factory.mktemp("speech"), strings=12)


@pytest.mark.real_data
def test_filters_are_the_published_ones(real_data):
    known = np.load(real_data / "speech" / "jfk" / "mel_filters.npz")
    for bands in (80, 128):
        if f"mel_{bands}" in known:
            np.testing.assert_allclose(mel_filters(bands), known[f"mel_{bands}"], atol=1e-7)


def test_features_of_a_tone_lie_in_its_band():
    t = np.arange(RATE) / RATE
    features = log_mel(np.sin(2 * np.pi * 1000 * t).astype(np.float32))
    assert features.shape == (80, 100)
    assert float(features.max() - features.min()) <= 2.0 + 1e-5  # eight decades, divided by four
    band = int(mel_filters(80)[:, round(1000 / 40)].argmax())
    assert int(features[:, 50].argmax()) == band
    assert log_mel(np.zeros(10, np.float32)).shape[0] == 80
    assert log_mel(np.zeros(RATE, np.float32), frames=3000).shape == (80, 3000)


def test_utterances_of_a_folder_and_manifests(sample, tmp_path):
    utterances = list_speech(sample)
    assert len(utterances) == 12
    assert {utterance.part for utterance in utterances} == {"train", "validation", "test"}
    utterance = utterances[0]
    assert utterance.text == " ".join(word.text for word in utterance.words)
    assert utterance.words[-1].end <= len(utterance.samples()) / RATE
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").write_bytes((sample / "generated-001.wav").read_bytes())
    (tmp_path / "a.txt").write_text("seven eight\n")
    (tmp_path / "b.TextGrid").write_text(
        format_transcript("TextGrid", "b.wav", 3.0, SEGMENTS), encoding="utf-8"
    )
    listed = list_speech(tmp_path)
    assert [utterance.name for utterance in listed] == ["a.wav", "b.wav", "c.wav"]
    assert [utterance.text for utterance in listed] == ["seven eight", "hello <b> world", None]
    assert listed[1].words[0] == Word("hello", 0.1, 0.5)
    (tmp_path / "m.csv").write_text("path,transcript,start,end\na.wav,one,0.1,0.4\n")
    utterance = list_speech(tmp_path / "m.csv")[0]
    assert (utterance.name, utterance.text, len(utterance.samples())) == ("a.wav@0.10", "one", 4800)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", "is no object"),
        ('{"text": "a"}', "names no recording"),
        ('{"audio": "a.wav", "start": -1}', "no time in seconds"),
        ('{"audio": "a.wav", "start": 2, "end": 1}', "before it"),
        ('{"audio": "a.wav", "part": "x"}', "none of train"),
        ('{"audio": "a.wav", "words": [["a", 1]]}', "words must be"),
    ],
)
def test_bad_manifests_are_one_line(tmp_path, line, message):
    (tmp_path / "m.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        list_speech(tmp_path / "m.jsonl")
    assert "\n" not in str(caught.value)


def test_every_format_is_written(tmp_path):
    files = {kind: format_transcript(kind, "a b.wav", 3.0, SEGMENTS) for kind in FORMATS}
    assert json.loads(files["json"])["segments"][0]["words"][0]["confidence"] == 0.9
    assert files["srt"].startswith(
        "1\n00:00:00,100 --> 00:00:00,800\nhello <b>\n\n2\n00:00:02,900 --> 00:00:03,000\n"
    )
    assert files["vtt"].startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.800\nhello &lt;b&gt;\n")
    assert files["tsv"].splitlines()[1] == "100\t500\thello"
    assert files["ctm"].splitlines()[0] == "a_b 1 0.100 0.400 hello 0.900"
    (tmp_path / "a.TextGrid").write_text(files["TextGrid"], encoding="utf-8")
    back = read_textgrid(tmp_path / "a.TextGrid")
    assert [(word.text, word.start, word.end) for word in back] == [
        (w.text, w.start, w.end) for w in WORDS
    ]
    assert len(read_textgrid(tmp_path / "a.TextGrid", "words")) == 3
    with pytest.raises(InputError, match="no interval tier 'phones'"):
        read_textgrid(tmp_path / "a.TextGrid", "phones")
    (tmp_path / "b.TextGrid").write_text("no grid")
    with pytest.raises(InputError, match="cannot be read as a TextGrid"):
        read_textgrid(tmp_path / "b.TextGrid")
    assert format_transcript("TextGrid", "a.wav", 1.0, ()).count("text =") == 1
    with pytest.raises(ValueError, match="not as 'doc'"):
        format_transcript("doc", "a", 1.0, ())


@pytest.mark.real_data
def test_textgrids_of_others_are_read(real_data):
    for file in sorted((real_data / "speech" / "mfa").rglob("*cold_corpus3.TextGrid")):
        words = read_textgrid(file)
        assert len(words) > 50
        assert all(a.end <= b.start + 1e-6 for a, b in pairwise(words))


def test_speech_is_where_sound_is():
    generator = np.random.default_rng(0)
    x = 0.001 * generator.standard_normal(40 * RATE).astype(np.float32)
    loud = [(2.0, 9.0), (12.0, 21.0), (24.0, 38.0)]
    for start, stop in loud:
        span = slice(round(start * RATE), round(stop * RATE))
        x[span] += 0.2 * generator.standard_normal(span.stop - span.start).astype(np.float32)
    spans = speech_spans(x)
    assert len(spans) == 3
    np.testing.assert_allclose(spans, loud, atol=0.03)
    share = speech_share(x)
    assert len(share) == 2000
    assert share[150:440].min() > 0.9
    assert share[460:590].max() < 0.1
    cut = speech_windows(x)
    assert cut == [
        (pytest.approx(1.8, abs=0.03), pytest.approx(21.2, abs=0.03)),
        (pytest.approx(23.8, abs=0.03), pytest.approx(38.2, abs=0.03)),
    ]
    assert speech_windows(x[: 20 * RATE]) == [(0.0, 20.0)]
    assert (
        speech_windows(np.zeros(5 * RATE, np.float32))
        == speech_windows(np.zeros(0, np.float32))
        == []
    )
    cut_anyway = speech_windows(0.1 * generator.standard_normal(70 * RATE).astype(np.float32))
    assert all(stop - start <= 30 for start, stop in cut_anyway)
    assert (cut_anyway[0][0], cut_anyway[-1][1]) == (0.0, 70.0)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_tokens_of_our_own_come_back_as_text(kind, tmp_path):
    tokens = train_tokens(["one two", "three, é"], kind, 300)
    (tmp_path / "tokenizer.json").write_text(tokens.to_json(), encoding="utf-8")
    again = read_tokens(tmp_path)
    ids = again.encode("two one, é")
    assert again.decode(ids) == "two one, é"
    assert [word for word, _, _ in again.words(ids)] == ["two", "one,", "é"]
    assert [b for _, _, b in again.words(ids)][-1] == len(ids)
    assert (again.prompt, again.end) == (tokens.prompt, tokens.end)
    assert again.decode([*again.prompt, *ids, again.end]) == "two one, é"


def test_tokens_of_ranks_come_back_as_text(tmp_path):
    """A vocabulary of OpenAI: bytes by rank, merged by rank."""
    ranks = [bytes([k]) for k in range(256)] + [b"on", b"one", b" t", b"wo", b" two"]
    (tmp_path / "v.tiktoken").write_text(
        "\n".join(f"{base64.b64encode(b).decode()} {k}" for k, b in enumerate(ranks))
    )
    tokens = read_tokens(tmp_path / "v.tiktoken")
    assert tokens.encode("one two") == [257, 260]
    assert tokens.words([257, 260]) == [("one", 0, 1), ("two", 1, 2)]
    assert tokens.tokenizer.token_to_id(END) == 261
    assert tokens.prompt[0] == tokens.tokenizer.token_to_id(START)


def test_mistakes_of_tokens_are_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        read_tokens(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_tokens(tmp_path / "other.json")
    with pytest.raises(InputError, match="no text"):
        train_tokens([""])
    assert isinstance(train_tokens(["a"]), TextTokens)


@pytest.mark.real_data
def test_digit_strings_have_exact_times(real_data, tmp_path):
    from headwise.data.formats.audio import read_audio

    home = write_digit_strings(
        real_data / "speech" / "fsdd" / "recordings", tmp_path / "d", strings=4, seed=3
    )
    for utterance in list_speech(home):
        sound = read_audio(utterance.file)
        for before, after in pairwise(utterance.words):
            gap = sound[
                round(before.end * RATE) + 2 : round(after.start * RATE) - 2
            ]  # times have four decimals
            assert len(gap) > 0
            assert np.abs(gap).max() == 0
    with pytest.raises(InputError, match="holds no recordings"):
        write_digit_strings(tmp_path, tmp_path / "e")


def test_times_of_a_manifest_are_seconds_of_the_recording(tmp_path):
    """By start and end, start and duration, offset; a duration alone is that of the file; words
    stay as they are.
    """
    ramp = np.arange(2 * RATE, dtype=np.float32) / (4 * RATE)
    soundfile.write(tmp_path / "a.wav", ramp, RATE, subtype="FLOAT")
    rows = [
        {"start": 0.5, "end": 0.75},
        {"start": 0.5, "duration": 0.25},
        {"offset": "0.5", "duration": "0.25"},
        {"start": 0.5, "end": 0.75, "duration": 9},
        {"start": 0.5},
        {"duration": 2.0},
        {},
    ]
    spans = [(0.5, 0.75)] * 4 + [(0.5, 2.0), (0.0, 2.0), (0.0, 2.0)]
    words = [["hi", 0.1, 0.2]]
    lines = [
        json.dumps(
            {
                "audio": "a.wav",
                "text": f"t{k}",
                "speaker": f"s{k % 3}",
                "part": ("dev", "test")[k % 2],
                "words": words,
                **row,
            }
        )
        for k, row in enumerate(rows)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    recordings = list_speech(tmp_path / "m.jsonl")
    assert len(recordings) == len(rows)
    stretches = ["a.wav@0.50"] * 5 + ["a.wav", "a.wav"]
    assert [recording.name for recording in recordings] == stretches, "two stretches, two names"
    write_manifest(tmp_path / "again.jsonl", recordings)
    for recording, again, (start, end), k in zip(
        recordings, list_speech(tmp_path / "again.jsonl"), spans, range(9), strict=False
    ):
        expected = ramp[round(start * RATE) : round(end * RATE)]
        np.testing.assert_array_equal(recording.samples(), expected)
        np.testing.assert_array_equal(again.samples(), expected)
        assert (recording.text, recording.speaker, recording.part) == (
            f"t{k}",
            f"s{k % 3}",
            ("validation", "test")[k % 2],
        )
        assert recording.words == (Word("hi", 0.1, 0.2),)
        assert (again.text, again.speaker, again.part, again.words) == (
            recording.text,
            recording.speaker,
            recording.part,
            recording.words,
        )


def test_text_stays_with_its_recording(tmp_path):
    """In folders at any depth, where names repeat, and in tables in any order; none is lost."""
    for k, name in enumerate(("b/1", "a/1", "a/2", "c/d/1", "0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            tmp_path / f"{name}.wav", np.full(800, 0.1 * k, np.float32), RATE, subtype="FLOAT"
        )
        (tmp_path / f"{name}.lab").write_text(f"level {k}")
    recordings = list_speech(tmp_path)
    assert [recording.name for recording in recordings] == [
        "0.wav",
        "a/1.wav",
        "a/2.wav",
        "b/1.wav",
        "c/d/1.wav",
    ]
    lines = [
        f"s{recording.text[-1]},{recording.text},{recording.name}" for recording in recordings[::-1]
    ]
    (tmp_path / "m.csv").write_text("speaker,text,audio\n" + "\n".join(lines))
    listed = list_speech(tmp_path / "m.csv")
    assert len(listed) == 5
    for recording in (*recordings, *listed):
        level = round(float(recording.samples().mean()) * 10)
        assert recording.text == f"level {level}"
        assert recording.speaker in ("", f"s{level}")


def test_features_are_the_published_formula():
    """Whisper's: periodic Hann window, mirrored ends, power, the last frame left out, decades cut
    at 8, (x + 4) / 4.
    """
    sound = np.random.default_rng(0).normal(size=2000) * np.linspace(0.001, 0.5, 2000)
    padded = np.pad(sound, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([padded[160 * k : 160 * k + 400] * window for k in range(len(sound) // 160)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    decades = np.log10(np.maximum(mel_filters(80) @ power.T, 1e-10))
    expected = (np.maximum(decades, decades.max() - 8) + 4) / 4
    np.testing.assert_allclose(log_mel(sound.astype(np.float32)).numpy(), expected, atol=1e-4)
    padded = log_mel(sound.astype(np.float32), frames=20)
    np.testing.assert_allclose(padded[:, :11].numpy(), expected[:, :11], atol=1e-4)


def test_loudness_of_a_long_recording_is_that_of_its_blocks(monkeypatch):
    sound = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    expected = voice_activity.loudness(sound)
    monkeypatch.setattr(voice_activity, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(voice_activity.loudness(sound), expected, atol=1e-4)
    assert len(expected) == 100


def test_times_beyond_an_hour_are_written_in_every_format(tmp_path):
    words = (Word("late", 3723.25, 3723.75), Word("later", 36_000.5, 36_001.0))
    segments = [Segment(3723.25, 36_001.0, "late later", words)]
    transcripts = {kind: format_transcript(kind, "a.wav", 36_002.0, segments) for kind in FORMATS}
    assert "01:02:03,250 --> 01:02:03,750\nlate\n" in transcripts["srt"]
    assert "10:00:00,500 --> 10:00:01,000\nlater\n" in transcripts["srt"]
    assert "10:00:00.500 --> 10:00:01.000\nlater\n" in transcripts["vtt"]
    assert transcripts["tsv"].splitlines()[1:] == [
        "3723250\t3723750\tlate",
        "36000500\t36001000\tlater",
    ]
    assert transcripts["ctm"].splitlines() == [
        "a 1 3723.250 0.500 late",
        "a 1 36000.500 0.500 later",
    ]
    stored_words = json.loads(transcripts["json"])["segments"][0]["words"]
    assert [(word["start"], word["end"]) for word in stored_words] == [
        (3723.25, 3723.75),
        (36_000.5, 36_001.0),
    ]
    (tmp_path / "a.TextGrid").write_text(transcripts["TextGrid"], encoding="utf-8")
    assert [(word.start, word.end) for word in read_textgrid(tmp_path / "a.TextGrid")] == [
        (3723.25, 3723.75),
        (36_000.5, 36_001.0),
    ]


def test_the_prompt_names_the_language_that_is_asked_for(tmp_path):
    """Of a model of many languages; of one of English alone there is none to name."""
    import tokenizers

    special = [
        END,
        START,
        "<|en|>",
        "<|de|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    for name, size in (("many", 50_257), ("one", 300)):
        words = {f"t{k}": k for k in range(size)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
        tokenizer.add_special_tokens(special)
        tokenizer.save(str(tmp_path / f"{name}.json"))
    first = 50_257
    many = {
        language: read_tokens(tmp_path / "many.json", language) for language in (None, "en", "de")
    }
    assert many[None].prompt == many["en"].prompt == (first + 1, first + 2, first + 5, first + 6)
    assert many["de"].prompt == (first + 1, first + 3, first + 5, first + 6)
    assert (many["de"].end, many["de"].languages) == (first, {"en": first + 2, "de": first + 3})
    assert read_tokens(tmp_path / "one.json").prompt == (301, 306)
    with pytest.raises(InputError, match="knows one language"):
        read_tokens(tmp_path / "one.json", "de")


def test_features_of_other_bands_are_not_those_before():
    sound = np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    first, more_bands, again = log_mel(sound, 80), log_mel(sound, 128), log_mel(sound, 80)
    assert (first.shape[0], more_bands.shape[0]) == (80, 128)
    assert torch.equal(first, again)
