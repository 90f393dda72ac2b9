"""Recordings end to end. The contract of all tasks (tests/contract) holds the task to the rest."""

import csv
import json
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import torch

import headwise
from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.runs.loaded import load_run

RATE = 16_000


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())


def tone(hertz: float, seed: int, seconds: float = 0.2) -> np.ndarray:
    generator = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * hertz * t) + 0.01 * generator.standard_normal(len(t))


@pytest.fixture
def voices(tmp_path) -> Path:
    """Low and high tones of nine speakers, LABEL_SPEAKER_TAKE.wav."""
    folder = tmp_path / "voices"
    for speaker in range(9):
        for take in range(2):
            for number, label in enumerate(("low", "high")):
                name = f"{label}_s{speaker}_{take}.wav"
                hertz = 300 * 3**number * (1 + 0.02 * speaker)
                write(folder / name, tone(hertz, 100 * speaker + 10 * take + number))
    return folder


PATTERN = "{label}_{speaker}_*"


def read(folder: Path, **options):
    card = load_task("recordings")
    values = {"data": str(folder), "pattern": PATTERN, **options}
    with opened() as account:
        splits = card.load().open_data(parse(card, "train", [], values=values))
    return splits, " | ".join(account.lines())


def test_tones_are_learnt_predicted_and_explained(voices, tmp_path) -> None:
    run = pipelines.recordings.train(
        data=voices, pattern=PATTERN, run=tmp_path / "run", epochs=8, lr=1e-2, width=16
    )
    assert run.metrics()["accuracy"] == 1
    rows = pl.read_parquet(run.path / "predictions.parquet")
    assert rows["prediction"].to_list() == [name.split("_")[0] for name in rows["item"]]
    assert {row["speaker"] for row in run.metrics()["by_speaker"]} <= {f"s{k}" for k in range(9)}
    table = pipelines.recordings.explain(run=run.path, output=tmp_path / "why", draws=2)
    facts = json.loads((tmp_path / "why" / "explain.json").read_text())
    assert table.height == facts["recordings"] == run.metrics()["recordings"]
    assert (tmp_path / "why" / "importance.png").exists()
    assert min(facts["importance_factor"]) == 0
    assert max(facts["importance_factor"]) == 1
    assert "when the tokens of the highest importance are deleted" in facts["sentence"]


def test_a_speaker_is_in_one_part_and_a_group_comes_before_a_speaker(voices) -> None:
    splits, account = read(voices)
    parts = [set(splits.part(name).speakers) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 9
    assert "36 recordings of 9 speakers, which stay together" in account
    by_group, account = read(voices, pattern="{label}_{speaker:1}{group}_*")
    assert "36 recordings of 9 groups" in account
    assert set(by_group.test.speakers) == set(by_group.train.speakers) == {"s"}
    assert not set(by_group.test.groups) & set(by_group.train.groups)


def test_each_recording_is_its_own_group_where_no_speaker_is_known(voices) -> None:
    _, account = read(voices, pattern="{label}_*")
    assert "36 recordings of no known speaker" in account


def of_table(home: Path, rows: list[str], **options):
    """The parts of stretches of files with tones, and the account."""
    for name in {row.split(",")[0] for row in rows[1:]}:
        rng = np.random.default_rng(int(name.strip("f.wav")))
        write(home / name, rng.normal(0, 0.1, 16_000).astype(np.float32))
    (home / "labels.csv").write_text("\n".join(rows))
    return read(home, pattern=None, **options)


STRETCHES = [f"f{f}.wav,{'ab'[f % 2]},{k / 10},{k / 10 + 0.4}" for f in range(8) for k in range(4)]


def test_stretches_of_one_file_are_in_one_part(tmp_path) -> None:
    splits, account = of_table(tmp_path, ["audio,label,start,end", *STRETCHES])
    files = [
        {splits.part(name).source.utterances[row].file for row in splits.part(name).rows}
        for name in ("train", "validation", "test")
    ]
    assert sum(map(len, files)) == len(set().union(*files)) == 8
    assert "32 recordings are stretches of 8 files; those of a file stay together" in account
    assert "32 recordings of no known speaker: each file counts as its own group" in account


def test_a_speaker_counts_before_the_file_and_a_stretch_without_one_is_of_its_file(
    tmp_path,
) -> None:
    rows = [f"{row},{'unknown' if k % 4 else f's{k // 8}'}" for k, row in enumerate(STRETCHES)]
    rows.append("f0.wav,a,0.5,0.9,other")
    splits, account = of_table(tmp_path, ["audio,label,start,end,speaker", *rows])
    groups = dict(zip(splits.train.source.names, splits.train.source.groups))
    assert set(groups.values()) > {"other", "s0", "s1", "s2", "s3"}
    assert groups["f2.wav@0.30"] == groups["f3.wav@0.00"] == "s1"
    assert "'unknown'" in account
    what = "1 files with stretches of several speakers or groups, which may be in different parts"
    assert f"{what} (f0.wav)" in account


def test_a_stretch_that_ends_behind_its_recording_is_said(tmp_path) -> None:
    rows = ["audio,label,start,end", *STRETCHES, "f0.wav,a,0.75,1.05", "f1.wav,b,0.65,1.15"]
    _, account = of_table(tmp_path, rows)
    said = "1 recordings: a stretch that ends behind its recording (f1.wav@0.65)"
    assert said in account


def test_a_training_ends_with_predictions_of_the_stretches_that_it_read(tmp_path) -> None:
    splits, _ = of_table(tmp_path, ["audio,label,start,end", *STRETCHES])
    pipeline, card = load_task("recordings").load(), load_task("recordings")
    options = parse(card, "train", [], values={"data": str(tmp_path)})
    values = {"run": "r", "input": str(tmp_path), "output": "o.csv"}
    values |= pipeline.prediction_options(options, splits.spec)
    items = pipeline.list_items(parse(card, "predict", [], values=values), splits.spec)
    members = {member for part in splits.members.values() for member in part}
    assert {pipeline.member(item) for item in items} == members
    by_name = parse(card, "train", [], values={"data": str(tmp_path), "pattern": "{label:1}*"})
    assert not pipeline.prediction_options(by_name, splits.spec)


def test_a_file_in_two_parts_is_refused(tmp_path) -> None:
    rows = [f"{row},{'train' if k % 4 else 'test'}" for k, row in enumerate(STRETCHES)]
    with pytest.raises(InputError, match=r"group or file 'f\d.wav' is in the training and in"):
        of_table(tmp_path, ["audio,label,start,end,part", *rows])


def test_what_cannot_be_used_is_left_out_and_named(voices) -> None:
    write(voices / "low_s0_8.wav", np.zeros(3200))
    write(voices / "low_s1_8.wav", tone(300, 1, 0.01))
    (voices / "low_s2_8.wav").write_bytes(b"RIFF nothing")
    splits, account = read(voices)
    assert sum(len(splits.part(name)) for name in ("train", "validation", "test")) == 36
    for reason in ("is silent", "10 ms long", "low_s2_8.wav"):
        assert reason in account


def test_more_than_a_tenth_that_cannot_be_read_is_an_error(voices) -> None:
    for take in range(5):
        (voices / f"low_s2_{take + 2}.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(InputError, match="5 of 41 recordings cannot be read"):
        read(voices)


def test_clipped_long_stereo_and_other_rates_are_used_and_said(voices) -> None:
    write(voices / "low_s0_5.wav", np.sign(tone(300, 3)))
    write(voices / "low_s1_5.wav", tone(300, 4, 0.5))
    write(voices / "low_s2_5.wav", np.stack([tone(300, 5), tone(300, 6)], 1))
    write(voices / "low_s3_5.wav", tone(300, 7)[::2], rate=8_000)
    splits, account = read(voices, seconds=0.4)
    assert "clipped" in account
    assert "cut to its middle 0.4 s" in account
    assert "several channels" in account
    assert "8,000 samples a second" in account
    source = splits.train.source
    assert len(source.clip(source.names.index("low_s1_5.wav")).tokens) == 40


def test_copies_with_two_labels_are_refused_and_others_share_a_part(voices) -> None:
    content = (voices / "low_s0_0.wav").read_bytes()
    (voices / "low_s5_7.wav").write_bytes(content)
    splits, account = read(voices)
    assert "exact copies" in account
    groups = dict(zip(splits.train.source.speakers, splits.train.source.groups))
    assert groups["s0"] == groups["s5"]
    (voices / "high_s0_7.wav").write_bytes(content)
    with pytest.raises(InputError, match="exact copies with the labels 'high' and 'low'"):
        read(voices)


def test_moments_are_those_of_the_training_part(voices) -> None:
    splits, _ = read(voices)
    frames = np.concatenate([splits.train.clip(k).tokens.numpy() for k in range(len(splits.train))])
    moments = splits.spec.moments
    np.testing.assert_allclose(moments["mean"][0], frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(moments["deviation"][0], frames.std(0), atol=1e-3)


def test_standardised_by_speaker_a_voice_that_is_louder_is_the_same(voices, tmp_path) -> None:
    """Half as loud, coefficient 0 of each frame is shifted, which the speaker's mean takes off."""
    splits, _ = read(voices, standardise="speaker")
    source = splits.train.source
    rows = [k for k, name in enumerate(source.speakers) if name == "s3"]
    plain = torch.cat([source.clip(k).tokens for k in rows]).double()
    prior = torch.tensor(splits.spec.prior["mean"]).double()
    weight = len(rows) / (len(rows) + 2)
    mean = weight * plain.mean(0) + (1 - weight) * prior[0]
    prior_square = torch.tensor(splits.spec.prior["deviation"]).double()[0] ** 2 + prior[0] ** 2
    square = weight * plain.square().mean(0) + (1 - weight) * prior_square
    expected = (source.clip(rows[0]).tokens - mean) / (square - mean**2).sqrt()
    torch.testing.assert_close(
        source.model_clip(rows[0]).tokens, expected.float(), rtol=1e-3, atol=1e-3
    )


def test_a_prediction_standardises_by_the_speakers_of_its_input(voices, tmp_path) -> None:
    options = {"pattern": PATTERN, "standardise": "speaker", "epochs": 2, "width": 16}
    run = pipelines.recordings.train(data=voices, run=tmp_path / "run", **options)
    table = headwise.open(run.path).predict(voices)
    spec = load_run(load_task("recordings").load(), str(run.path)).spec
    card = load_task("recordings")
    listed = parse(
        card, "predict", [], values={"run": run.path, "input": voices, "output": tmp_path / "o.csv"}
    )
    items = card.load().list_items(listed, spec)
    of_s3 = [item for item in items if item["speaker"] == "s3"]
    assert {len(item["companions"]) for item in of_s3} == {4}
    assert {len(item["further_files"]) for item in of_s3} == {3}
    write(voices / "unknown.wav", tone(300, 5))
    with opened() as account:
        items = card.load().list_items(listed, spec)
    assert [item["speaker"] for item in items if "companions" not in item] == [""]
    assert "no known speaker, standardised as the training part" in " | ".join(account.lines())
    stored = pl.read_parquet(run.path / "predictions.parquet")
    assert table["p_low"].to_list() == stored["p_low"].to_list()
    assert set(table["speaker"]) == {f"s{k}" for k in range(9)}
    with pytest.raises(InputError, match="not all speakers are known"):
        read(voices, pattern="{label}_*", standardise="speaker")


def test_crossval_leaves_each_speaker_out_and_goes_on_where_it_stopped(voices, tmp_path) -> None:
    options = {"data": voices, "pattern": PATTERN, "output": tmp_path / "cv", "epochs": 1}
    small = {"width": 8, "heads": 2, "compared": ("mean",)}
    table = pipelines.recordings.crossval(**options, **small)
    assert table["model"].to_list() == ["mean", "simple", "naive"]
    rows = pl.read_parquet(tmp_path / "cv" / "predictions.parquet")
    by_fold = rows.group_by("fold").agg(pl.col("speaker").n_unique())
    assert by_fold["speaker"].to_list() == [1] * 9
    assert rows.filter(pl.col("model") == "simple").height == 36
    assert table.filter(pl.col("model") == "simple")["accuracy"].item() == 1
    assert "stop its training" in (tmp_path / "cv" / "account.json").read_text()
    pairs = pl.read_csv(tmp_path / "cv" / "pairs.csv")
    assert pairs.height == 3
    file = next((tmp_path / "cv" / "folds").glob("mean-*fold3.json"))
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cv" / "folds").glob("*.json")}
    file.unlink()
    again = pipelines.recordings.crossval(**options, **small)
    changed = [p for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert changed == [file]
    assert again.equals(table)


@pytest.mark.parametrize("imbalance", ["pos-weight", "focal", "logit-adjust", "diverse"])
def test_each_way_to_help_rare_classes_trains(voices, tmp_path, imbalance) -> None:
    run = pipelines.recordings.train(
        data=voices, pattern=PATTERN, run=tmp_path / "run", epochs=1, width=8, imbalance=imbalance
    )
    (history,) = csv.DictReader((run.path / "history.csv").read_text().splitlines())
    assert np.isfinite(float(history["train_loss"]))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--head", "gaam", "--attention", "taylor"), "is read by --head attention"),
        (("--weights", "x"), "is read by --features whisper"),
        (("--width", "30", "--heads", "4"), "must divide --width"),
        (("--head", "grouped-gaam", "--heads", "6", "--width", "60"), "grouped-gaam takes"),
        (("--seconds", "0"), "must be 0.1 to 60"),
    ],
)
def test_options_that_no_data_can_make_right_are_refused(words, reason) -> None:
    with pytest.raises(InputError, match=reason):
        parse(load_task("recordings"), "train", [*words])


def test_a_class_without_a_recording_to_train_on_is_refused(voices) -> None:
    rows = ["audio,label,part"]
    for k in range(9):
        part = ("train", "validation", "test")[k % 3]
        rows.append(f"low_s{k}_0.wav,{'rare' if k == 2 else 'low'},{part}")
        rows.append(f"high_s{k}_0.wav,high,{part}")
    (voices / "labels.csv").write_text("\n".join(rows))
    rows[-1] = "high_s8_0.wav,high,"
    with pytest.raises(InputError, match="class 'rare' has no recording in the training part"):
        read(voices, pattern=None)
    rows = [row.replace("rare", "low") for row in rows]
    (voices / "labels.csv").write_text("\n".join(rows))
    assert "1 recordings of no part" in read(voices, pattern=None)[1]


def test_an_explanation_needs_a_head_with_weights(voices, tmp_path) -> None:
    run = pipelines.recordings.train(
        data=voices, pattern=PATTERN, run=tmp_path / "run", epochs=1, width=8, head="mean"
    )
    with pytest.raises(InputError, match=r"its head \(mean\) has no weights of tokens"):
        pipelines.recordings.explain(run=run.path, output=tmp_path / "why")
