"""Which recordings a training takes, and what it notes of them."""

import json

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.speech.options import SpeechOptions


@pytest.fixture(scope="module")
def pipeline():
    return load_task("speech").load()


def write_manifest(home, rows, rate=16000, channels=1):
    """Recordings of noise of half a second, each with its row; returns the manifest."""
    for number, row in enumerate(rows):
        name = row.setdefault("audio", f"{number}.wav")
        sound = 0.1 * np.random.default_rng(number).standard_normal((rate // 2, channels))
        if not (home / name).exists():
            soundfile.write(home / name, sound, rate)
        row.setdefault("text", "yes no"[: 3 + 3 * (number % 2)])
    (home / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(home / "m.jsonl")


def opened_data(pipeline, data, accept=(), **options):
    with opened(accept) as account:
        splits = pipeline.open_data(SpeechOptions(data=data, **options))
    return splits, {(entry.topic, entry.what): list(entry.names) for entry in account.entries()}


def test_the_counts_are_of_the_recordings_that_are_used(pipeline, tmp_path):
    rows = [{} for _ in range(8)] + [{"text": ""}, {"text": "long " * 40}, {"audio": "0.wav"}]
    data = write_manifest(tmp_path, rows)
    with opened(["copies", "two-labels"]) as account:
        pipeline.open_data(SpeechOptions(data=data, text_positions=50))
    assert account.lines()[0] == "read: 8 recordings; 8 texts of recordings"


def names(part):
    return {utterance.name for utterance in part.utterances}


def test_what_a_training_leaves_out_is_named(pipeline, tmp_path):
    rows = [{} for _ in range(8)]
    rows += [{"text": ""}, {"text": "long " * 40}]
    splits, notes = opened_data(pipeline, write_manifest(tmp_path, rows), text_positions=50)
    assert notes["left out", "recordings without a transcript"] == ["8.wav"]
    assert notes["left out", "recordings longer than 30 s or 50 tokens"] == ["9.wav"]
    assert ("groups", "there is no column of speakers: each of the recordings counts as its own "
            "group") in notes  # fmt: skip
    parts = [names(part) for part in (splits.train, splits.validation, splits.test)]
    assert set().union(*parts) == {f"{k}.wav" for k in range(8)}


def test_rates_channels_and_stretches_are_noted(pipeline, tmp_path):
    rows = [{} for _ in range(6)] + [{"audio": "0.wav", "start": 0.2, "end": 0.9}]
    data = write_manifest(tmp_path, rows, rate=8000, channels=2)
    _, notes = opened_data(pipeline, data)
    assert len(notes["assumed", "recordings at 8,000 samples a second, changed to 16,000"]) == 6
    assert len(notes["assumed", "recordings of several channels, which are averaged"]) == 6
    assert notes["values", "stretches that end behind their recording"] == ["0.wav@0.20"]
    rows[6]["start"] = 0.6
    with pytest.raises(InputError, match=r"is 0\.50 s long; a stretch begins at 0\.6 s"):
        opened_data(pipeline, write_manifest(tmp_path, rows))


def test_speakers_that_are_kept_together_are_noted(pipeline, tmp_path):
    def notes_for(speakers, **options):
        rows = [{"speaker": speaker} for speaker in speakers]
        return opened_data(pipeline, write_manifest(tmp_path, rows), **options)[1]

    notes = notes_for(["a", "b", "c", "d", "", ""] * 2)
    assert ("groups", "8 recordings of 4 speakers (column 'speaker')") in notes
    assert ("groups", "recordings without a speaker, each its own group") in notes
    few = "fewer than four speakers are named: each recording is its own group"
    assert ("groups", few) in notes_for(["a", "b"] * 6)
    asked = "--split-by recording: each recording is its own group"
    assert ("groups", asked) in notes_for(["a", "b", "c", "d"] * 3, split_by="recording")


def test_exact_copies_share_a_part(pipeline, tmp_path):
    """The same samples under another name and in another format."""
    rows = [{"text": "yes"} for _ in range(20)]
    write_manifest(tmp_path, rows)
    for number in range(10, 20):
        sound, rate = soundfile.read(tmp_path / f"{number - 10}.wav")
        rows[number]["audio"] = f"copy{number}.flac"
        soundfile.write(tmp_path / f"copy{number}.flac", sound, rate)
    splits, notes = opened_data(pipeline, write_manifest(tmp_path, rows))
    assert len(notes["items", "exact copies of other recordings; copies share a part"]) == 10
    for part in (splits.train, splits.validation, splits.test):
        for number in range(10):
            assert (f"{number}.wav" in names(part)) == (f"copy{number + 10}.flac" in names(part))
    rows[10]["text"] = "no"
    with pytest.raises(InputError, match="are exact copies with the labels 'yes' and 'no'"):
        opened_data(pipeline, write_manifest(tmp_path, rows))


def test_a_recording_that_is_listed_twice_is_a_doubt(pipeline, tmp_path):
    rows = [{} for _ in range(8)] + [{"audio": "0.wav", "text": "yes"}]
    rows[0]["text"] = "yes"
    data = write_manifest(tmp_path, rows)
    with pytest.raises(InputError, match="is listed more than once"):
        opened_data(pipeline, data)
    splits, _ = opened_data(pipeline, data, accept=("copies",))
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 8
    rows[8]["text"] = "no"
    with pytest.raises(InputError, match="has the labels 'yes' and 'no'"):
        opened_data(pipeline, write_manifest(tmp_path, rows))


def test_stretches_of_one_recording_are_in_one_part(pipeline, tmp_path):
    rows = [
        {
            "audio": f"{k // 4}.wav",
            "start": 0.1 * (k % 4),
            "end": 0.1 * (k % 4) + 0.1,
            "text": "yes",
        }
        for k in range(40)
    ]
    splits, _ = opened_data(pipeline, write_manifest(tmp_path, rows))
    files = [
        {utterance.file for utterance in part.utterances}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert len(files[0]) + len(files[1]) + len(files[2]) == 10
    members = splits.members["test"]
    assert {member.file for member in members} == files[2]
    item = {"file": members[0].file, "start": rows[0]["start"], "end": None}
    assert pipeline.member(item).id in ("", "0.1000-")
    assert members[0].id.count("-") == 1


def test_a_text_that_cannot_be_read_stops_a_training(pipeline, tmp_path):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.full(1600, 0.1), 16000)
        (tmp_path / f"{number}.txt").write_text("yes")
    (tmp_path / "0.TextGrid").write_text("no grid")
    with pytest.raises(InputError, match=r"0\.TextGrid: cannot be read as a TextGrid"):
        opened_data(pipeline, str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 31}, "--kernel: is read by --encoder conformer"),
        ({"experts": 8}, "--experts: is read by --ffn moe"),
        ({"vocabulary": 300}, "--vocabulary: is read by --tokens bpe"),
        ({"language": "de"}, "--language: is read by --weights"),
        ({"weights": "x", "width": 32}, "--width: is read by a new model, while --weights"),
    ],
)
def test_options_that_nothing_reads_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_task("speech").check(SpeechOptions(**options))
