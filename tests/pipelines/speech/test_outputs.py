"""Predictions as files of other programs, and as lines for the terminal."""

import polars as pl
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

from headwise.base.errors import InputError
from headwise.data.speech.transcripts import read_textgrid
from headwise.pipelines import load_task
from headwise.pipelines.speech.items import refuse_several
from headwise.pipelines.speech.outputs import WRITERS
from headwise.pipelines.speech.prediction import SCHEMA

WORDS = [
    {"word": "one", "start": 0.1, "end": 0.5, "confidence": 0.9},
    {"word": "two", "start": 2.0, "end": 2.5, "confidence": None},
]


def rows_of(*items):
    """Rows of a prediction. items: (name, channel); None for a name: a recording that failed."""
    head = {"file": pl.String, "item": pl.String, "part": pl.String, "status": pl.String}
    rows = [
        {
            "file": name or "bad.wav",
            "item": name or "bad.wav",
            "status": "ok" if name else "error",
            "text": "one two" if name else None,
            "seconds": 3.0 if name else None,
            "words": WORDS if name else None,
            "channel": channel,
            "remarks": "quiet" if channel == 2 else None,
        }
        for name, channel in items
    ]
    return pl.DataFrame(rows, schema={**head, **SCHEMA})


def written(tmp_path, ending, *items):
    path = tmp_path / f"o{ending}"
    WRITERS[ending](rows_of(*items).lazy(), path)
    return path


def test_the_words_of_one_recording_are_subtitles(tmp_path):
    assert load_task("speech").load().further_outputs() is WRITERS
    expected = "1\n00:00:00,100 --> 00:00:00,500\none\n\n2\n00:00:02,000 --> 00:00:02,500\ntwo\n"
    assert written(tmp_path, ".srt", ("a.wav", None)).read_text() == expected
    text = written(tmp_path, ".vtt", ("a.wav", None)).read_text()
    assert text.startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.500\none\n")
    words = read_textgrid(written(tmp_path, ".TextGrid", ("a.wav", None)))
    assert [(word.text, word.start, word.end) for word in words] == [
        ("one", 0.1, 0.5),
        ("two", 2.0, 2.5),
    ]
    assert written(tmp_path, ".srt", (None, None)).read_text().strip() == ""


def test_several_recordings_in_one_file_of_subtitles_are_refused(tmp_path):
    for ending in (".srt", ".vtt", ".TextGrid"):
        with pytest.raises(InputError, match="holds one recording, and there are 2"):
            written(tmp_path, ending, ("a.wav", None), ("b.wav", None))
    refuse_several("o.srt", 1)
    refuse_several("o.csv", 2)
    with pytest.raises(InputError, match=r"--output o\.SRT"):
        refuse_several("o.SRT", 2)


def test_words_of_several_recordings_and_channels_are_lines(tmp_path):
    items = (("a b.wav", None), (None, None), ("c.wav channel 1", 1), ("c.wav channel 2", 2))
    assert written(tmp_path, ".ctm", *items).read_text().splitlines() == [
        "a_b 1 0.100 0.400 one 0.900",
        "a_b 1 2.000 0.500 two",
        "c 1 0.100 0.400 one 0.900",
        "c 1 2.000 0.500 two",
        "c 2 0.100 0.400 one 0.900",
        "c 2 2.000 0.500 two",
    ]


def test_transcripts_are_text(tmp_path):
    assert written(tmp_path, ".txt", ("a.wav", None)).read_text() == "one two\n"
    several = written(tmp_path, ".txt", ("a.wav", None), (None, None), ("b.wav", None))
    assert several.read_text() == "a.wav\tone two\nb.wav\tone two\n"


def test_the_answer_for_one_recording_is_its_transcript():
    lines = load_task("speech").load().answer_lines
    assert lines(rows_of(("a.wav", None)), None) == ["one two"]
    assert lines(rows_of(("a channel 2", 2)), None) == [
        "channel 2: one two",
        "channel 2: note: quiet",
    ]
    silent = rows_of(("a.wav", None)).with_columns(text=pl.lit(""))
    assert lines(silent, None) == ["(no words)"]
