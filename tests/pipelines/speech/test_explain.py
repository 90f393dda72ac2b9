"""The verbs explain and compare, as a person types them."""

import json
import os
import shutil

import numpy as np
import polars as pl
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")
pytest.importorskip("skimage", reason="the extra `speech` is not installed")

import soundfile

FEW = ("--masks", 20, "--input-masks", 8, "--segments", 20, 40)


@pytest.fixture
def three(home, tmp_path):
    """Three of the recordings with their manifest."""
    folder = tmp_path / "three"
    folder.mkdir()
    lines = (home / "manifest.jsonl").read_text().splitlines()[:3]
    for line in lines:
        shutil.copy(home / json.loads(line)["audio"], folder)
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def test_explain_writes_maps_pictures_and_a_sentence(headwise, run, three, tmp_path):
    command = (
        "speech",
        "explain",
        "--run",
        run,
        "--input",
        three,
        "--output",
        tmp_path / "o",
        "--known-text",
        *FEW,
    )
    code, lines = headwise(*command)
    assert code == 0, lines
    rows = pl.read_parquet(tmp_path / "o" / "explanations.parquet")
    assert rows["status"].to_list() == ["ok"] * 3
    assert all("correlation of" in line for line in rows["sentence"])
    first = rows.row(0, named=True)
    assert [word["word"] for word in first["words"]] == first["text"].split()
    assert -1 <= first["correlation_states"] <= 1
    maps = np.load(tmp_path / "o" / "maps" / "generated-001.npz")
    tokens, states = maps["states"].shape
    assert maps["attention"].shape == (2, 2, tokens, states)
    assert len(maps["tokens"]) == tokens
    assert maps["spectrogram"].shape[:2] == maps["gradient_spectrogram"].shape[:2] == (tokens, 80)
    assert maps["gradient_states"].shape == (tokens, states)
    assert (tmp_path / "o" / "figures" / "generated-001.png").stat().st_size > 10_000
    assert (tmp_path / "o" / "report.html").read_text().count("<img") == 3
    # Again: recordings that are done are not done again, and the result is the same.
    path = tmp_path / "o" / "recordings" / "generated-002.json"
    before = {file.name: file.stat().st_mtime_ns for file in path.parent.glob("*.json")}
    path.unlink()
    assert headwise(*command)[0] == 0
    after = {file.name: file.stat().st_mtime_ns for file in path.parent.glob("*.json")}
    assert {name for name in before if before[name] != after[name]} == {"generated-002.json"}
    assert pl.read_parquet(tmp_path / "o" / "explanations.parquet").equals(rows)
    code, lines = headwise(*command, "--seed", 5)
    assert code == 2
    assert "other options or data" in lines[-1]


def test_a_bad_recording_does_not_stop_the_others(headwise, run, three, tmp_path):
    (three / "manifest.jsonl").unlink()
    (three / "text.wav").write_text("no sound")
    soundfile.write(
        three / "long.wav", np.random.default_rng(0).normal(size=31 * 16000) * 0.1, 16000
    )
    words = ("--run", run, "--input", three, "--output", tmp_path / "o", *FEW, "--no-gradients")
    code, lines = headwise("speech", "explain", *words)
    assert code == 3, lines
    rows = pl.read_parquet(tmp_path / "o" / "explanations.parquet")
    errors = dict(rows.filter(pl.col("status") == "error").select("item", "error").rows())
    assert "longer than 30 s" in errors["long.wav"]
    assert "no recording" in errors["text.wav"]
    assert len(rows) == 5


def test_compare_has_tables_with_intervals(headwise, run, three, tmp_path):
    words = ("speech", "compare", "--run", run, "--data", three, "--output", tmp_path / "c", *FEW)
    code, lines = headwise(*words)
    assert code == 0, lines
    assert "all heads of the cross-attention correlates" in lines[-2]
    table = pl.read_csv(tmp_path / "c" / "tables" / "agreement.csv")
    kinds = {"states", "spectrogram", "gradient of states", "gradient of spectrogram"}
    assert set(table["saliency"]) == kinds
    assert set(table.filter(pl.col("saliency") == "states")["attention"]) == {
        "all heads",
        "heads of word times",
        "map of word times",
        "layer 1",
        "layer 2",
        *(f"layer {k} head {h}" for k in (1, 2) for h in (1, 2)),
    }
    assert (table["low"] <= table["pearson"] + 1e-9).all()
    assert (table["pearson"] <= table["high"] + 1e-9).all()
    deletion = pl.read_csv(tmp_path / "c" / "tables" / "deletion.csv")
    assert {"cross-attention", "chance", "chance in full", "spectrogram in full", *kinds} <= set(
        deletion["map"]
    )
    assert deletion["area"].is_between(0, 100).all()
    findings = json.loads((tmp_path / "c" / "recordings" / "generated-001.json").read_text())
    curves = findings["deletion"]
    assert all(curve[0] == 0 and len(curve) == 21 for curve in curves.values())
    assert len({curve[-1] for curve in curves.values()}) == 1  # all is blank, whatever the map
    page = (tmp_path / "c" / "report.html").read_text()
    assert page.count("<img") == 2
    # The same folder elsewhere is the same data.
    moved = tmp_path / "moved"
    os.rename(three, moved)
    before = (tmp_path / "c" / "recordings" / "generated-001.json").stat().st_mtime_ns
    assert (
        headwise(
            "speech", "compare", "--run", run, "--data", moved, "--output", tmp_path / "c", *FEW
        )[0]
        == 0
    )
    assert (tmp_path / "c" / "recordings" / "generated-001.json").stat().st_mtime_ns == before


def test_known_times_show_what_a_warning_is_worth():
    from headwise.data.speech.transcripts import Word
    from headwise.pipelines.speech.verbs.compare import times_table

    known = (Word("one", 0.1, 0.3), Word("two", 0.4, 0.6), Word("six", 0.7, 0.8))
    words = [
        {"word": "One", "start": 0.12, "near": True},
        {"word": "too", "start": 0.4, "near": True},
        {"word": "six.", "start": 0.9, "near": False},
    ]
    table = times_table([(known, words)])
    assert table.rows() == [
        ("at the word", 1, pytest.approx(20), 1.0),
        ("elsewhere", 1, pytest.approx(200), 0.0),
    ]
    assert times_table([((), words)]) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hidden", 1), "between 0 and 1"),
        (("--segments", 1), "sizes of 2 or more"),
        (("--margin", -1), "seconds"),
        (("--masks", 0, "--input-masks", 0, "--no-gradients"), "nothing is left to do"),
        (("--masks", 1), "take 2 or more"),
        (("--chunk", 0), "at least 1"),
        (("--run", "nowhere"), "no such run"),
    ],
)
def test_mistakes_get_one_line(headwise, run, three, tmp_path, options, message):
    words = ("--run", run, "--input", three, "--output", tmp_path / "o", *options)
    code, lines = headwise("speech", "explain", *words)
    assert code == 2
    assert message in lines[-1]
    assert not (tmp_path / "o").exists()


def test_attention_without_weights_cannot_be_compared(headwise, home, tmp_path):
    from headwise import pipelines

    pipelines.speech.train(
        run=tmp_path / "r",
        data=str(home),
        max_steps=1,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        cross_attention="induced",
    )
    code, lines = headwise(
        "speech", "explain", "--run", tmp_path / "r", "--input", home, "--output", tmp_path / "o"
    )
    assert code == 2
    assert "no weights to compare" in lines[-1]
