"""The verbs as a person types them: mistakes, missing partners, polarity, prediction,
cross-validation, resuming.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.files import checksum
from headwise.data.scenes.generate import draw_scene

Image = pytest.importorskip("PIL.Image", reason="the extra `vision` is not installed")
pytest.importorskip("timm", reason="the extra `vision` is not installed")
SMALL = ("--size", "32", "32", "--accelerator", "cpu")


@pytest.fixture
def scenes(tmp_path):
    """Ten small scenes without parts."""
    home = tmp_path / "scenes"
    for name in ("RGB", "depth", "GT"):
        (home / name).mkdir(parents=True)
    for k in range(10):
        for name, values in zip(("RGB", "depth", "GT"), draw_scene(k)):
            Image.fromarray(values).save(home / name / f"s{k}.png")
    return home


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    pipelines.saliency.train(run=path, max_steps=2, size=(32, 32))
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "100", "100"), "multiples of 32"),
        (("--zoom", "1.5"), "--zoom 1.5"),
        (("--blank", "2"), "--blank 2"),
        (("--frozen-encoder", "40", "--frozen-transformer", "40"), "more than --epochs"),
        (("--transformer", "none", "--frozen-transformer", "1"), "no transformer to hold"),
        (("--attention", "star-wars"), "--attention star-wars"),
        (("--turn", "200"), "--turn"),
        (("--encoder-share", "0"), "--encoder-share"),
        (("--position", "nothing"), "nothing"),
        (("--backbone", "resnet5O"), "unknown to timm"),
    ],
)
def test_mistakes_get_one_line(headwise, scenes, tmp_path, words, message):
    code, lines = headwise("saliency", "train", "--data", scenes, "--run", tmp_path / "r", *words)
    assert code == 2
    assert message in lines[-1]
    assert not (tmp_path / "r").exists()


def test_missing_depth_is_named_or_left_out(headwise, scenes, tmp_path):
    (scenes / "depth" / "s3.png").unlink()
    words = ("saliency", "train", "--data", scenes, *SMALL, "--max-steps", 1)
    code, lines = headwise(*words, "--run", tmp_path / "a")
    assert (code, len(lines)) == (2, 1)
    assert "1 without depth (RGB/s3.png)" in lines[0]
    code, lines = headwise(*words, "--run", tmp_path / "b", "--unmatched", "skip")
    assert code == 0
    assert any("left out 1 without depth" in line for line in lines)
    assert json.loads((tmp_path / "b" / "spec.json").read_text())["input"]["scenes"] == 9


def test_depth_the_wrong_way_round_is_said(headwise, scenes, tmp_path):
    for path in (scenes / "depth").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    words = ("saliency", "train", "--data", scenes, *SMALL, "--max-steps", 1, "--run")
    _, lines = headwise(*words, tmp_path / "a")
    assert any("depth looks inverted" in line and "--near dark" in line for line in lines)
    _, lines = headwise(*words, tmp_path / "b", "--near", "dark")
    assert not any("inverted" in line for line in lines)


def test_groups_are_never_in_two_parts(scenes, tmp_path):
    from headwise.pipelines.engine.command_line import parse
    from headwise.pipelines.saliency import TASK

    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"s{k},g{k // 2}\n" for k in range(10)))
    options = parse(
        TASK, "train", [], values={"data": str(scenes), "groups": str(table), "size": (32, 32)}
    )
    splits = TASK.load().open_data(options)
    groups = [set(splits.part(name).of("groups")) for name in ("train", "validation", "test")]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_three_bad_files_of_fifty_are_listed_and_the_rest_is_done(headwise, run, tmp_path):
    home = tmp_path / "in"
    for name in ("RGB", "depth"):
        (home / name).mkdir(parents=True)
    for k in range(50):
        colour, depth, _ = draw_scene(k)
        Image.fromarray(colour).save(home / "RGB" / f"s{k:02d}.jpg")
        Image.fromarray(depth).save(home / "depth" / f"s{k:02d}.png")
    content = (home / "RGB" / "s03.jpg").read_bytes()
    (home / "RGB" / "s03.jpg").write_bytes(content[: len(content) // 2])
    (home / "RGB" / "s17.jpg").write_bytes(b"no picture")
    (home / "depth" / "s31.png").write_bytes(b"")
    (home / "depth" / "s40.png").unlink()
    output = tmp_path / "out.parquet"
    code, lines = headwise("saliency", "predict", "--run", run, "--input", home, "--output", output)
    table = pl.read_parquet(output)
    assert code == 3
    assert table.filter(pl.col("status") == "ok").height == 47
    failed = table.filter(pl.col("status") == "error")["item"].to_list()
    assert failed == ["RGB/s03.jpg", "RGB/s17.jpg", "RGB/s31.jpg"]
    assert sum(any(name in line for line in lines) for name in failed) == 3
    assert table.filter(~pl.col("depth"))["item"].to_list() == ["RGB/s40.jpg"]
    maps = sorted(path.name for path in Path(f"{output}.maps").rglob("*.png"))
    assert len(maps) == 47
    saliency = Image.open(Path(f"{output}.maps") / "RGB" / "s00.png")
    assert (saliency.mode, saliency.size) == ("L", (128, 96))


def test_without_depth_is_an_error_where_it_is_asked(headwise, run, tmp_path):
    Image.fromarray(draw_scene(1)[0]).save(tmp_path / "a.png")
    code, _ = headwise(
        "saliency",
        "predict",
        "--run",
        run,
        "--input",
        tmp_path / "a.png",
        "--output",
        tmp_path / "o.parquet",
        "--missing",
        "error",
    )
    assert code == 3
    assert "no depth map" in pl.read_parquet(tmp_path / "o.parquet")["error"][0]


def test_tables_for_papers(run):
    table = pl.read_csv(run / "tables" / "scores.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    ours = table.filter(pl.col("map") == "GL-DMNet")
    assert ours["S-measure"][0] == pytest.approx(metrics["S-measure"])
    assert {
        "max E-measure",
        "mean E-measure",
        "adaptive E-measure",
        "max F-measure",
        "mean F-measure",
        "adaptive F-measure",
        "weighted F-measure",
        "MAE",
    } <= set(table.columns)
    assert (run / "tables" / "scores.md").read_text().count("\n") == table.height + 2
    text = (run / "tables" / "scores.tex").read_text()
    assert "\\toprule" in text
    assert f"{metrics['MAE']:.3f}" in text
    assert metrics["model"]["multiply-accumulates"] > 1e6


def test_resume_in_a_frozen_stage_ends_with_the_same_weights(headwise, scenes, tmp_path):
    stages = ("--frozen-encoder", 1, "--frozen-transformer", 1, "--epochs", 3)
    words = ("saliency", "train", "--data", scenes, *SMALL, *stages, "--batch-size", 4, "--keep", 9)
    assert headwise(*words, "--run", tmp_path / "a")[0] == 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    steps = sorted(
        path.name for path in (tmp_path / "b" / "checkpoints").iterdir() if path.is_dir()
    )
    for name in steps[1:]:
        shutil.rmtree(tmp_path / "b" / "checkpoints" / name)
    (tmp_path / "b" / "model.safetensors").unlink()
    assert headwise(*words, "--run", tmp_path / "b", "--resume")[0] == 0
    assert checksum(tmp_path / "a" / "model.safetensors") == checksum(
        tmp_path / "b" / "model.safetensors"
    )


def test_one_group_is_left_out_in_turn(headwise, scenes, tmp_path):
    for k in range(4, 10):
        (scenes / "RGB" / f"s{k}.png").unlink()
        (scenes / "depth" / f"s{k}.png").unlink()
        (scenes / "GT" / f"s{k}.png").unlink()
    table = tmp_path / "groups.csv"
    table.write_text("image,group\ns0,g\ns1,g\n")
    words = (
        "saliency",
        "crossval",
        "--data",
        scenes,
        "--groups",
        table,
        *SMALL,
        "--epochs",
        1,
        "--output",
    )
    assert headwise(*words, tmp_path / "o")[0] == 0
    report = json.loads((tmp_path / "o" / "crossval.json").read_text())
    assert report["groups"] == 3
    assert {row["map"] for row in report["scores"]} == {"GL-DMNet", "depth alone", "middle"}
    assert len(report["scenes"]) == 4
    assert (tmp_path / "o" / "tables" / "scores.tex").is_file()
    first = (tmp_path / "o" / "trainings" / "group0000.json").stat().st_mtime_ns
    assert headwise(*words, tmp_path / "o")[0] == 0
    assert (tmp_path / "o" / "trainings" / "group0000.json").stat().st_mtime_ns == first
    code, lines = headwise(*words, tmp_path / "o", "--lr", "0.5")
    assert code == 2
    assert "other options or data" in lines[-1]
