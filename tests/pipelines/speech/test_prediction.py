"""Rows of unusual recordings: what is heard, what is refused, and what is said of the rest."""

import json
import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.models.speech.decoding import Transcript
from headwise.pipelines import load_task
from headwise.pipelines.engine.inference.members import member_key
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.speech import prediction
from headwise.pipelines.speech.items import list_items
from headwise.pipelines.speech.options import SpeechPredictOptions
from headwise.pipelines.speech.prediction import predict_recordings
from headwise.pipelines.speech.transcriber import Transcriber


@pytest.fixture(scope="module")
def pipeline():
    return load_task("speech").load()


@pytest.fixture
def predicted(pipeline, run, tmp_path):
    """Predicts for a folder or file; gives the answers by item and what was noted."""
    loaded = load_run(pipeline, str(run), "cpu")

    def predict(source, **options):
        chosen = SpeechPredictOptions(
            **{"run": str(run), "input": str(source), "output": str(tmp_path / "o"), **options}
        )
        transcriber = Transcriber.of_run(loaded.model, loaded.context(chosen))
        with opened() as account:
            items = list_items(chosen)
            answers = predict_recordings(transcriber, items, chosen)
        notes = {(entry.topic, entry.what): list(entry.names) for entry in account.entries()}
        rows = {
            item["id"]: answer.row(0, named=True) if isinstance(answer, pl.DataFrame) else answer
            for item, answer in zip(items, answers, strict=True)
        }
        return rows, notes

    return predict


@pytest.fixture
def spoken(home):
    """Samples of generated strings of digits, in the order of the manifest."""
    lines = [json.loads(line) for line in (home / "manifest.jsonl").read_text().splitlines()]
    sounds = [soundfile.read(home / line["audio"], dtype="float32")[0] for line in lines]
    return [(sound, line["text"]) for sound, line in zip(sounds, lines, strict=True)]


def test_quiet_recordings_have_the_text_of_loud_ones(predicted, spoken, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    sound = np.pad(spoken[0][0], (8000, 8000))
    soundfile.write(folder / "usual.wav", sound, 16000, subtype="FLOAT")
    for factor in (0.01, 0.003):
        soundfile.write(folder / f"quiet-{factor}.wav", sound * factor, 16000, subtype="FLOAT")
    rows, notes = predicted(folder)
    assert "quiet" not in (rows["usual.wav"]["remarks"] or "")
    quiet = [row for name, row in rows.items() if name.startswith("quiet")]
    for row in quiet:
        assert row["text"]
        assert row["remarks"].startswith("quiet (loudest sample -")
    # All are raised to the same loudness; this hardly trained model counts to one letter.
    assert {letter for row in quiet for letter in row["text"]} == set(rows["usual.wav"]["text"])
    assert len(notes["items", "quiet recordings, which are amplified"]) == 2


def test_silence_and_channels_of_opposite_phase_are_said(predicted, spoken, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    sound = spoken[0][0]
    soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "mono.wav", sound, 16000, subtype="FLOAT")
    opposite = np.stack([sound, -sound], 1)
    soundfile.write(folder / "opposite.wav", opposite, 16000, subtype="FLOAT")
    rows, notes = predicted(folder)
    assert rows["silence.wav"]["text"] == ""
    assert rows["silence.wav"]["remarks"] == "no speech was found in it (loudest sample 0)"
    assert notes["items", "recordings in which no speech was found"] == ["silence.wav"]
    assert rows["opposite.wav"]["text"] == rows["mono.wav"]["text"]
    assert rows["opposite.wav"]["remarks"].startswith("channels of opposite phase")


def test_each_channel_is_a_row(predicted, spoken, tmp_path):
    first, second = (np.pad(sound, (0, 60_000))[:60_000] for sound, _ in spoken[:2])
    call = np.stack([first, second], 1)
    soundfile.write(tmp_path / "call.wav", call, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "a.wav", first, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", second, 16000, subtype="FLOAT")
    options = {"channels": "each", "formats": ("txt",)}
    rows, notes = predicted(tmp_path / "call.wav", **options)
    expected = [predicted(tmp_path / f"{name}.wav")[0][f"{name}.wav"] for name in "ab"]
    assert [row["text"] for row in rows.values()] == [row["text"] for row in expected]
    assert [row["channel"] for row in rows.values()] == [1, 2]
    assert list(rows) == ["call.wav channel 1", "call.wav channel 2"]
    each = "recordings of several channels, each transcribed by itself"
    assert notes["assumed", each] == ["call.wav"]
    written = sorted(path.name for path in (tmp_path / "o.texts").iterdir())
    assert written == ["call-channel-1.txt", "call-channel-2.txt"]
    rows, _ = predicted(tmp_path / "a.wav", channels="each")
    assert rows["a.wav"]["channel"] is None
    with pytest.raises(InputError, match="known text is that of a recording, not of a channel"):
        load_task("speech").check(
            SpeechPredictOptions(run="r", input="i", output="o", known_text=True, channels="each")
        )


def write_known(folder, name, sound, text):
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / f"{name}.wav", sound, 16000, subtype="FLOAT")
    if text is not None:
        (folder / f"{name}.txt").write_text(text)


def test_a_known_text_that_cannot_fit_is_an_error_or_said(predicted, spoken, tmp_path):
    sound, text = spoken[0]
    folder = tmp_path / "in"
    write_known(folder, "right", sound, text)
    write_known(folder, "short", sound[:4000], text * 3)
    write_known(folder, "fast", sound[: len(text) * 16000 // 45], text)
    write_known(folder, "silence", np.zeros(64000), text)
    write_known(folder, "special", sound, "one <|endoftext|> two")
    (folder / "broken.TextGrid").write_text("no grid")
    soundfile.write(folder / "broken.wav", sound, 16000)
    rows, notes = predicted(folder, known_text=True)
    assert "nobody can say in 0.25 s" in str(rows["short.wav"])
    assert "its text hardly fits: " in rows["fast.wav"]["remarks"]
    # This model was hardly trained; its probabilities fit nothing.
    assert "hardly fits what is heard: mean log-prob" in rows["right.wav"]["remarks"]
    assert "no speech was found in it" in rows["silence.wav"]["remarks"]
    assert "letters in" not in (rows["right.wav"]["remarks"] or "")
    assert rows["right.wav"]["text"] == text
    assert "cannot be read as a TextGrid" in str(rows["broken.wav"])
    assert notes["items", "recordings in which no speech was found"] == ["silence.wav"]


def test_a_recording_without_a_text_is_transcribed_whatever_it_is_batched_with(
    predicted, spoken, tmp_path
):
    folder = tmp_path / "in"
    write_known(folder, "known", *spoken[0])
    write_known(folder, "unknown", spoken[1][0], None)
    alone, _ = predicted(folder / "unknown.wav")
    for size in (1, 8):
        rows, notes = predicted(folder, known_text=True, batch_size=size)
        assert rows["unknown.wav"]["text"] == alone["unknown.wav"]["text"] != ""
        assert rows["unknown.wav"]["remarks"].startswith("it came without a text")
        without = "recordings without a known text, which are transcribed"
        assert notes["items", without] == ["unknown.wav"]


def test_a_known_text_of_any_length_is_aligned_in_windows(
    predicted, spoken, tmp_path, monkeypatch, pipeline, run
):
    """Each word lies in the window in which it was heard; here the windows hear what is said."""
    pause = np.zeros(16000, np.float32)
    sounds, texts = zip(*spoken[:16], strict=True)
    starts = np.cumsum([0, *(len(sound) + len(pause) for sound in sounds)]) / 16000
    text = " ".join(texts)
    write_known(tmp_path / "in", "a", np.concatenate([x for s in sounds for x in (s, pause)]), text)
    spec = load_run(pipeline, str(run), "cpu").spec
    assert starts[-1] > spec.longest_seconds

    def hear(self, memory, seconds, beams=1):
        """The true texts, by the length of what is heard."""
        lengths = np.array([len(sound) / 16000 for sound in sounds])
        nearest = [int(np.abs(lengths + 0.0 - s).argmin()) for s in seconds]
        return [Transcript(self.text_ids(texts[k]), (0.0,), True) for k in nearest]

    monkeypatch.setattr(Transcriber, "transcripts", hear)
    rows, _ = predicted(tmp_path / "in", known_text=True)
    row = rows["a.wav"]
    assert row["text"] == text
    words = row["words"]
    assert [word["word"] for word in words] == text.split()
    assert all(a["end"] <= b["start"] + 1e-3 for a, b in pairwise(words))
    assert words[-1]["end"] <= row["seconds"]
    monkeypatch.undo()
    write_known(tmp_path / "silent", "b", np.zeros(16000 * 40), text)
    rows, _ = predicted(tmp_path / "silent", known_text=True)
    assert "no speech was found in it to align its text with" in str(rows["b.wav"])


def test_a_text_that_repeats_itself_is_marked(predicted, spoken, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", spoken[0][0], 16000)

    def loop(self, memory, seconds, beams=1):
        return [Transcript(self.text_ids("one two three " * 9), (0.0,), True) for _ in seconds]

    monkeypatch.setattr(Transcriber, "transcripts", loop)
    rows, _ = predicted(tmp_path / "a.wav")
    assert "repeats itself (compression ratio" in rows["a.wav"]["remarks"]


def test_recordings_are_done_in_groups_of_bounded_length(predicted, home, monkeypatch):
    together, _ = predicted(home)
    monkeypatch.setattr(prediction, "GROUP_SECONDS", 3)
    apiece, _ = predicted(home)
    assert [row["text"] for row in apiece.values()] == [row["text"] for row in together.values()]
    assert list(apiece) == list(together)


def test_a_file_that_cannot_be_written_is_the_error_of_its_recording(predicted, spoken, tmp_path):
    folder = tmp_path / "in"
    write_known(folder, "b" * 251, spoken[0][0], None)
    write_known(folder, "a", spoken[1][0], None)
    rows, _ = predicted(folder, formats=("TextGrid",))  # a longer name than there can be
    assert "cannot be written" in str(rows[f"{'b' * 251}.wav"])
    assert rows["a.wav"]["text"] is not None


def test_a_name_that_is_not_utf_8_is_written_as_escapes(predicted, spoken, tmp_path):
    soundfile.write(tmp_path / "a.wav", spoken[0][0], 16000)
    os.rename(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    rows, _ = predicted(tmp_path)
    assert list(rows) == ["\\xff.wav"]


def test_a_language_that_nobody_named_is_noted(predicted, spoken, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", spoken[0][0], 16000)
    of_run = Transcriber.of_run

    def several(model, context):
        transcriber = of_run(model, context)
        return replace(transcriber, tokens=replace(transcriber.tokens, languages={"en": 1}))

    assumed = "the language is en, of several that the weights know (--language)"
    assert ("assumed", assumed) not in predicted(tmp_path / "a.wav")[1]
    monkeypatch.setattr(Transcriber, "of_run", several)
    assert ("assumed", assumed) in predicted(tmp_path / "a.wav")[1]


def test_what_is_listed_twice_is_noted(predicted, spoken, tmp_path):
    soundfile.write(tmp_path / "a.wav", spoken[0][0], 16000)
    (tmp_path / "m.csv").write_text("audio,id\na.wav,one\na.wav,two\n")
    rows, notes = predicted(tmp_path / "m.csv")
    assert rows["one"]["text"] == rows["two"]["text"]
    listed_twice = "recordings that are listed more than once"
    assert notes["items", listed_twice] == [str(tmp_path / "a.wav")]


def test_an_item_is_recognised_as_that_of_a_part(pipeline, home, run):
    options = SpeechPredictOptions(run=str(run), input=str(home), output="o")
    loaded = load_run(pipeline, str(run), "cpu")
    members = pipeline.open_data(loaded.options, loaded.spec).members
    part_of = {member_key(member): part for part, items in members.items() for member in items}
    parts = [part_of[member_key(pipeline.member(item))] for item in list_items(options)]
    lines = [json.loads(line) for line in (home / "manifest.jsonl").read_text().splitlines()]
    assert parts == [line["part"] for line in lines]
