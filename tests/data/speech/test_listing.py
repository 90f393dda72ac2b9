"""Which recordings and texts are listed, what is left out, and what is noted of it."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.speech import recordings
from headwise.data.speech.recordings import list_speech


def write_sounds(home, *names):
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(home / name, np.full(1600, 0.1), 16000, format="WAV")


def noted(account):
    """What was noted, with its names, by topic and words."""
    return {(entry.topic, entry.what): list(entry.names) for entry in account.entries()}


def listed(path, *, accept=(), **options):
    with opened(accept) as account:
        utterances = list_speech(path, **options)
    return utterances, noted(account), account


def test_columns_are_taken_by_their_usual_names(tmp_path):
    """Those of NeMo, Common Voice, Kaldi and hospitals; what is not used is named."""
    write_sounds(tmp_path, "a.wav")
    for names in (
        ("audio_filepath", "text", "spk"),
        ("path", "sentence", "client_id"),
        ("File Name", "Transcript", "Patient ID"),
        ("wav_path", "transcription", "case_id"),
        ("filename", "text", "subject_id"),
    ):
        (tmp_path / "m.csv").write_text(f"{','.join(names)},mood\na.wav,yes,s1,good\n")
        (utterance,), notes, _ = listed(tmp_path / "m.csv")
        assert (utterance.text, utterance.speaker, utterance.file) == (
            "yes", "s1", str(tmp_path / "a.wav"),
        )  # fmt: skip
        assert notes["columns", "not used"] == ["mood"]
        assert ("columns", f"{names[2]!r} is taken as the speaker") in notes


def test_columns_are_taken_by_the_option(tmp_path):
    write_sounds(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text("sound,words_said,who\na.wav,yes,s1\n")
    with pytest.raises(InputError, match="--columns audio=COLUMN"):
        list_speech(tmp_path / "m.csv")
    columns = ("audio=sound", "text=words_said", "speaker=who")
    (utterance,), _, _ = listed(tmp_path / "m.csv", columns=columns)
    assert (utterance.text, utterance.speaker) == ("yes", "s1")
    with pytest.raises(InputError, match="there is no column 'wo'; did you mean 'who'"):
        list_speech(tmp_path / "m.csv", ("audio=sound", "speaker=wo"))


def test_a_column_that_names_no_parts_is_not_used(tmp_path):
    write_sounds(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text("audio,fold\na.wav,3\n")
    (utterance,), notes, _ = listed(tmp_path / "m.csv")
    assert utterance.part == ""
    assert notes["columns", "not used as parts, since they hold other words"] == ["fold"]
    assert ("columns", "not used") not in notes
    (tmp_path / "m.csv").write_text("audio,subset\na.wav,dev\n")
    assert list_speech(tmp_path / "m.csv")[0].part == "validation"


@pytest.mark.parametrize("cell", ["nan", "None", "NA", "NULL", ""])
def test_a_missing_text_is_missing(tmp_path, cell):
    write_sounds(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text(f"audio,text\na.wav,{cell}\na.wav,null\n")
    (missing, number), notes, _ = listed(tmp_path / "m.csv")
    assert (missing.text, number.text) == (None, "null")  # German for 0
    assert (("values", "texts such as NA or nan, taken as missing") in notes) == bool(cell)


def test_a_manifest_that_nobody_named_stays_in_its_folder(tmp_path):
    """Its own recordings are read; others only where that is accepted, or the manifest named."""
    write_sounds(tmp_path, "private.wav", "in/a.wav", "in/b.wav")
    manifest = tmp_path / "in" / "manifest.jsonl"
    manifest.write_text('{"audio": "a.wav"}\n')
    utterances, notes, _ = listed(tmp_path / "in")
    assert [utterance.name for utterance in utterances] == ["a.wav"]
    says = "manifest.jsonl in the folder says which recordings are read, with what text"
    assert ("assumed", says) in notes
    assert notes["left out", "recordings that manifest.jsonl does not name"] == ["b.wav"]
    (tmp_path / "in" / "link.wav").symlink_to(tmp_path / "private.wav")
    for audio in (str(tmp_path / "private.wav"), "../private.wav", "link.wav"):
        manifest.write_text(json.dumps({"audio": audio}) + "\n")
        with pytest.raises(InputError, match=r"leads out of the folder; .* --accept links"):
            list_speech(tmp_path / "in")
        assert len(listed(tmp_path / "in", accept=("links",))[0]) == 1
        assert len(list_speech(manifest)) == 1


def test_recordings_of_one_name_that_share_a_text_are_named(tmp_path):
    write_sounds(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.wav").read_bytes())
    (tmp_path / "b.flac").write_bytes((tmp_path / "b.wav").read_bytes())
    (tmp_path / "a.txt").write_text("hello")
    utterances, _, account = listed(tmp_path)
    assert [utterance.text for utterance in utterances] == ["hello", "hello", None, None]
    lines = "\n".join(account.lines())
    assert "2 recordings that share a text, as their names differ by the ending (a.flac" in lines


def test_texts_beside_recordings_and_those_without_one_are_told_apart(tmp_path):
    write_sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "a.txt").write_bytes("so große Töne".encode("cp1252"))
    (tmp_path / "b.lab").write_bytes("zwölf".encode("utf-16"))
    (tmp_path / "b.txt").write_text("zwölf", encoding="utf-8")
    (tmp_path / "readme.txt").write_text("of another kind")
    (tmp_path / "notes.pdf").write_text("x")
    utterances, notes, account = listed(tmp_path)
    assert [utterance.text for utterance in utterances] == ["so große Töne", "zwölf", None]
    without = "files of text without a recording of the same name"
    assert notes["left out", without] == ["readme.txt"]
    assert notes["left out", "files of other kinds"] == ["notes.pdf"]
    again = "files of text, as there is another for the recording"
    assert notes["left out", again] == [str(tmp_path / "b.lab")]
    as_cp1252 = "files of text that are not UTF-8, read as cp1252"
    assert notes["assumed", as_cp1252] == [str(tmp_path / "a.txt")]
    assert account.lines()[0] == "read: 3 recordings; 2 texts of recordings"
    assert {utterance.text for utterance in list_speech(tmp_path, texts=False)} == {None}


def test_a_text_that_cannot_be_read_is_a_problem_of_its_recording_only(tmp_path):
    write_sounds(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.TextGrid").write_text("no grid")
    (tmp_path / "b.txt").write_text("two")
    broken, good = list_speech(tmp_path)
    assert "cannot be read as a TextGrid" in broken.problem
    assert (good.text, good.problem) == ("two", "")


def test_recordings_that_need_pyav_are_named_where_it_is_not_installed(tmp_path, monkeypatch):
    write_sounds(tmp_path, "a.wav", "b.m4a")
    assert [u.name for u in list_speech(tmp_path)] == ["a.wav", "b.m4a"]
    monkeypatch.setattr(recordings, "has_pyav", lambda: False)
    utterances, notes, _ = listed(tmp_path)
    assert [utterance.name for utterance in utterances] == ["a.wav"]
    assert notes["left out", recordings.NEEDS_PYAV] == ["b.m4a"]
    (tmp_path / "a.wav").unlink()
    with pytest.raises(InputError, match=r"only PyAV reads \(pip install .* no others: b\.m4a"):
        list_speech(tmp_path)


def test_links_in_circles_and_long_names_stop_nothing(tmp_path):
    write_sounds(tmp_path, "a.wav", f"{'b' * 251}.wav")
    (tmp_path / "round.wav").symlink_to("round.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    utterances = list_speech(tmp_path)
    assert [utterance.name[:3] for utterance in utterances] == ["a.w", "bbb", "gon", "rou"]
    for utterance in utterances[2:]:
        with pytest.raises(InputError):
            utterance.samples()
    assert len(list_speech(tmp_path / f"{'b' * 251}.wav")) == 1
    for name in ("c" * 300, "aa.wav"):
        with pytest.raises(InputError, match="there is no such file or folder"):
            list_speech(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.wav")
    for name, kind in (("round.wav", "a link to nothing"), ("pipe.wav", "not a plain file")):
        with pytest.raises(InputError, match=f"is {kind}"):
            list_speech(tmp_path / name)


def test_recordings_whose_names_are_spelt_otherwise_are_found(tmp_path):
    write_sounds(tmp_path, "in/a.wav")
    (tmp_path / "m.csv").write_text("audio,text\nIN\\A.WAV,yes\nin/a ,no\ngone.wav,no\n")
    utterances, notes, _ = listed(tmp_path / "m.csv")
    assert [u.file for u in utterances[:2]] == [str(tmp_path / "in" / "a.wav")] * 2
    assert utterances[2].file == str(tmp_path / "gone.wav")
    assert notes["assumed", "names of a list that are spelt otherwise than their files"] == [
        "IN\\A.WAV: in/a.wav",
        "in/a: in/a.wav",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 61748 She had your dark suit.\n", "She had your dark suit."),
        (
            "1\n00:00:00,500 --> 00:00:01,000\nso\n<i>it</i>\n\n2\n0:01,2 --> 0:02,0\nis\n",
            "so it is",
        ),
        ("0.00\t0.40\tgood\n0.40\t0.90\tday\n", "good day"),
        ("1 2 buckle my shoe", None),
        ("10 20 one\n5 6 two", None),
    ],
)
def test_times_in_a_text_are_no_words(tmp_path, text, words):
    write_sounds(tmp_path, "a.wav")
    (tmp_path / "a.txt").write_text(text)
    utterances, notes, _ = listed(tmp_path)
    assert utterances[0].text == (words or " ".join(text.split()))
    said = ("assumed", "files of text with times, of which the words alone are read") in notes
    assert said == (words is not None)
