"""The verbs train, predict, evaluate, adopt and digits, as a person types them."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile
import torch

from headwise.base.account import opened
from headwise.data.speech.tokens import train_tokens
from headwise.models.speech.speech_to_text import SpeechToText
from headwise.pipelines.speech.options import AdoptOptions
from headwise.pipelines.speech.verbs.explain import Explained
from headwise.tests.whisper_files import ctranslate2

SMALL = ("--width", 16, "--heads", 2, "--encoder-layers", 1, "--decoder-layers", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "15"), "must be even"),
        (("--decoder-attention", "star"), "has no causal form"),
        (("--attention", "star"), "has no causal form, which the decoder needs; give --decoder-"),
        (("--attention", "static"), "takes no context, which the way from tokens to states needs"),
        (("--cross-attention", "static"), "takes no context"),
        (("--encoder-attention", "coordinate"), "tokens in a row"),
        (("--kernel", "4"), "must be odd"),
        (("--active", "5"), "between 1 and --experts"),
        (("--smoothing", "1"), "[0, 1)"),
        (("--weights", "nothing.pt"), "no such file or folder"),
        (("--encoder", "lstm"), "--encoder"),
        (("--weights", "x", "--cross-attention", "taylor"), "softmax attention"),
    ],
)
def test_mistakes_get_one_line(headwise, home, tmp_path, options, message):
    sizes = () if "--weights" in options else SMALL  # which weights decide
    code, lines = headwise(
        "speech", "train", "--data", home, "--run", tmp_path / "r", *sizes, *options
    )
    assert code == 2
    assert message in lines[-1]
    assert not (tmp_path / "r").exists()


def test_the_report_has_error_rates_and_times(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["intervals"]["wer"][0] <= metrics["wer"] <= metrics["intervals"]["wer"][1]
    assert "the same text for all" in metrics["baselines"]
    page = (run / "report.html").read_text()
    assert "word error rate" in page
    assert metrics["lag"] in range(9)


@pytest.mark.parametrize("beams", [1, 2])
def test_the_batch_does_not_matter(headwise, home, run, tmp_path, beams):
    """Papi et al., arXiv 2303.16166: the same transcripts for batches of 1, 10 and 100."""
    for size in (1, 10, 100):
        words = (
            "--input",
            home,
            "--output",
            tmp_path / f"{size}.parquet",
            "--batch-size",
            size,
            "--beams",
            beams,
        )
        assert headwise("speech", "predict", "--run", run, *words)[0] == 0
    alone = pl.read_parquet(tmp_path / "1.parquet")
    for size in (10, 100):
        assert_frame_equal(pl.read_parquet(tmp_path / f"{size}.parquet"), alone, abs_tol=1e-4)
    for row in alone["words"]:
        assert all(word["start"] <= word["end"] for word in row)


def test_every_format_and_known_text(headwise, home, run, tmp_path):
    words = ("--input", home, "--output", tmp_path / "o.parquet", "--known-text", "--maps")
    code, lines = headwise(
        "speech",
        "predict",
        "--run",
        run,
        *words,
        "--formats",
        "json",
        "srt",
        "vtt",
        "tsv",
        "ctm",
        "TextGrid",
        "txt",
    )
    assert code == 0, lines
    texts = sorted(p.name for p in (tmp_path / "o.parquet.texts").iterdir())
    assert len(texts) == 24 * 7
    rows = pl.read_parquet(tmp_path / "o.parquet")
    manifest = {
        json.loads(line)["id"]: json.loads(line)
        for line in (home / "manifest.jsonl").read_text().splitlines()
    }
    for row in rows.iter_rows(named=True):
        assert row["text"] == manifest[row["item"]]["text"]
        assert [word["word"] for word in row["words"]] == row["text"].split()
    maps = np.load(tmp_path / "o.parquet.maps" / "generated-001.npz")
    assert maps["maps_0"].shape[0] == 2
    for method in ("dtw", "area"):
        words = (
            "--input",
            home,
            "--output",
            tmp_path / f"{method}.parquet",
            "--known-text",
            "--times",
            method,
        )
        assert headwise("speech", "predict", "--run", run, *words)[0] == 0
        spans = pl.read_parquet(tmp_path / f"{method}.parquet")["words"][0]
        assert all(a["end"] <= b["start"] + 1e-6 for a, b in pairwise(spans))


def test_hours_silence_and_bad_files_in_one_folder(headwise, run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "none.wav", np.zeros(0), 16000)
    soundfile.write(
        folder / "eight-bit.wav", 0.1 * generator.standard_normal(8000), 8000, subtype="PCM_U8"
    )
    soundfile.write(folder / "stereo.wav", 0.1 * generator.standard_normal((48000, 2)), 48000)
    soundfile.write(folder / "long.wav", 0.1 * generator.standard_normal(8000 * 100), 8000)
    soundfile.write(folder / "whole.flac", 0.1 * generator.standard_normal(64000), 16000)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:50000])
    (folder / "text.wav").write_text("no sound")
    code, lines = headwise(
        "speech", "predict", "--run", run, "--input", folder, "--output", tmp_path / "o.parquet"
    )
    assert code == 3, lines
    rows = {
        row["item"]: row for row in pl.read_parquet(tmp_path / "o.parquet").iter_rows(named=True)
    }
    assert {name for name, row in rows.items() if row["status"] == "error"} == {
        "none.wav",
        "cut.flac",
        "text.wav",
    }
    assert rows["silence.wav"]["text"] == ""
    assert rows["long.wav"]["seconds"] == pytest.approx(100, abs=0.01)
    assert all("\n" not in row["error"] for row in rows.values() if row["error"])


def test_long_recordings_are_cut_to_what_the_model_knows(headwise, home, run, tmp_path):
    """A model that was trained on strings of a few seconds is not given thirty at once."""
    lines = [json.loads(line) for line in (home / "manifest.jsonl").read_text().splitlines()]
    spoken = [soundfile.read(home / line["audio"])[0] for line in lines]
    longest = max(map(len, spoken)) / 16000
    pause = np.zeros(8000)
    soundfile.write(
        tmp_path / "long.wav",
        np.concatenate([part for digits in spoken for part in (digits, pause)]),
        16000,
    )
    code, output = headwise(
        "speech",
        "predict",
        "--run",
        run,
        "--input",
        tmp_path / "long.wav",
        "--output",
        tmp_path / "o.parquet",
        "--formats",
        "json",
    )
    assert code == 0, output
    segments = json.loads((tmp_path / "o.parquet.texts" / "long.json").read_text())["segments"]
    assert len(segments) >= len(spoken)
    assert all(segment["end"] - segment["start"] <= longest + 0.01 for segment in segments)


def test_no_two_items_share_a_file():
    from headwise.base.files import distinct_names
    from headwise.data.formats.audio import AUDIO_SUFFIXES

    def stems(names):
        return distinct_names(names, AUDIO_SUFFIXES, "")

    assert stems(["a.wav", "a.flac", "b/c.wav", "d", "d"]) == ["a.wav", "a.flac", "b/c", "d", "d-2"]
    assert stems(["m.Headset-0", "m.Headset-1.wav"]) == ["m.Headset-0", "m.Headset-1"]


def write_weights(folder):
    """A small model in Whisper's shape, as CTranslate2 would store it."""
    tokens = train_tokens(["zero one two three four five six seven eight nine"], "bpe", 300)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokens.to_json(), encoding="utf-8")
    torch.manual_seed(0)
    model = SpeechToText(
        len(tokens),
        width=16,
        heads=2,
        encoder_layers=2,
        decoder_layers=2,
        audio_positions=150,
        text_positions=40,
    )
    (folder / "model.bin").write_bytes(ctranslate2(model))
    (folder / "config.json").write_text(
        json.dumps({"alignment_heads": [[1, 0]], "suppress_ids": [1, 2]})
    )
    return folder


def test_a_language_that_nobody_named_is_noted(tmp_path, monkeypatch):
    from headwise.pipelines.speech import pretrained

    folder = write_weights(tmp_path / "weights")
    read_tokens = pretrained.read_tokens

    def several(path, language):
        return replace(read_tokens(path), languages={"en": 1, "de": 2})

    monkeypatch.setattr(pretrained, "read_tokens", several)
    for language, noted in ((None, True), ("de", False)):
        with opened() as account:
            options = AdoptOptions(weights=str(folder), run="r", language=language)
            pretrained.open_pretrained(str(folder), options)
        assert ("the language is en" in "".join(account.lines())) == noted


def test_weights_are_adopted(headwise, home, tmp_path):
    """From adoption to words."""
    folder = write_weights(tmp_path / "weights")
    code, lines = headwise("speech", "adopt", "--weights", folder, "--run", tmp_path / "run")
    assert code == 0, lines
    words = (
        "--run",
        tmp_path / "run",
        "--input",
        home / "generated-001.wav",
        "--output",
        tmp_path / "o.parquet",
    )
    assert headwise("speech", "predict", *words)[0] == 0
    assert headwise("speech", "evaluate", "--run", tmp_path / "run", "--data", home)[0] == 0
    assert (
        headwise(
            "speech",
            "train",
            "--weights",
            folder,
            "--data",
            home,
            "--run",
            tmp_path / "tuned",
            "--max-steps",
            1,
            "--lr",
            1e-5,
        )[0]
        == 0
    )
    # What is explained is the text of the whole window, whatever a shorter one would give.
    few = ("--masks", 6, "--input-masks", 4, "--segments", 10, "--margin", 0.1)
    code, lines = headwise(
        "speech", "explain", *words[:4], "--output", tmp_path / "explained", *few
    )
    assert code == 0, lines
    text = pl.read_parquet(tmp_path / "o.parquet")["text"][0]
    assert pl.read_parquet(tmp_path / "explained" / "explanations.parquet")["text"][0] == text
    code, lines = headwise(
        "speech",
        "compare",
        "--run",
        tmp_path / "run",
        "--data",
        words[3],
        "--output",
        tmp_path / "compared",
        *few,
    )
    assert code == 0, lines
    code, lines = headwise("speech", "adopt", "--weights", tmp_path, "--run", tmp_path / "other")
    assert code == 2
    assert "neither model.bin" in lines[-1]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--encoder", "conformer"),
        ("--ffn", "moe"),
        ("--attention", "taylor"),
        ("--decoder-attention", "differential"),
        ("--cross-attention", "differential"),
        ("--tokens", "bpe", "--vocabulary", 300, "--ctc", 0),
    ],
)
def test_any_mechanism_trains(headwise, home, tmp_path, options):
    words = ("--data", home, "--run", tmp_path / "r", *SMALL, "--max-steps", 2, *options)
    code, lines = headwise("speech", "train", *words)
    assert code == 0, lines


@pytest.mark.real_data
def test_strings_of_recorded_digits(headwise, real_data, tmp_path):
    recordings = real_data / "speech" / "fsdd" / "recordings"
    words = (
        "--recordings",
        recordings,
        "--output",
        tmp_path / "d",
        "--strings",
        6,
        "--test",
        "theo",
    )
    assert headwise("speech", "digits", *words)[0] == 0
    lines = [
        json.loads(line) for line in (tmp_path / "d" / "manifest.jsonl").read_text().splitlines()
    ]
    assert {line["part"] for line in lines if line["speaker"] == "theo"} == {"test"}
    assert {line["part"] for line in lines if line["speaker"] != "theo"} == {"train"}
    assert headwise("speech", "digits", *words)[0] == 2


def test_weights_that_are_not_here_are_explained(headwise, tmp_path):
    words = ("--weights", "whisper-small", "--run", tmp_path / "r")
    code, lines = headwise("speech", "adopt", *words)
    assert code == 2
    for part in ("--weights small", "HEADWISE_OFFLINE", "hf download openai/whisper-small"):
        assert part in lines[-1]


@pytest.mark.parametrize("ending", [".srt", ".vtt", ".TextGrid", ".ctm", ".txt", ".csv", ".jsonl"])
def test_the_ending_of_the_output_decides(headwise, home, run, tmp_path, ending):
    output = tmp_path / f"o{ending}"
    words = ("--run", run, "--input", home / "generated-001.wav", "--output", output)
    code, lines = headwise("speech", "predict", *words)
    assert code == 0, lines
    begin = output.read_bytes()[:12]
    assert begin[:4] != b"PAR1"
    expected = {
        ".vtt": b"WEBVTT",
        ".TextGrid": b"File type",
        ".csv": b"file,item",
        ".srt": b"1\n00",
    }
    assert begin.startswith(expected.get(ending, b""))


def test_what_is_explained_has_an_account(headwise, home, run, tmp_path):
    few = ("--masks", 2, "--input-masks", 2, "--segments", 10, "--no-gradients")
    words = ("--run", run, "--input", home / "generated-001.wav", "--output", tmp_path / "e [1]")
    code, lines = headwise("speech", "explain", *words, *few)
    assert code == 0, lines
    assert "read: 1 recordings" in "\n".join(lines)
    entries = json.loads((tmp_path / "e [1]" / "account.json").read_text())
    assert entries[0]["what"] == "recordings"
    assert Explained(tmp_path / "e [1]", 1, 0).table().height == 1
