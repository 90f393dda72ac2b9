"""The verbs as a person types them: mistakes, missing partners, polarity, prediction,
cross-validation, resuming.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from headwise.base.files import checksum
from headwise.data.scenes.generate import draw_scene
from headwise.data.scenes.reading import Reading
from headwise.pipelines import load_task
from headwise.pipelines.engine.ladder import Ladder
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.saliency.data import check_polarity

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
    pipelines.saliency.train(run=path, max_steps=2, size=(32, 32), choose="model")
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
        (("--position", "nothing"), "--position nothing: unknown; did you mean no-mixing?"),
        (("--recall", "squeze"), "--recall squeze: unknown; did you mean squeeze?"),
        (("--backbone", "resnet5O"), "unknown to timm"),
        (("--transformer", "none", "--attention", "moh"), "--attention: is read by a transformer"),
        (("--fusion", "channel", "--position", "coordinate"), "--position: is read by --fusion"),
        (("--invalid", "black"), "--invalid black: give numbers"),
        (("--columns", "image=photo"), "--columns is read with a table"),
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


@pytest.mark.parametrize("near", ["bright", "dark"])
def test_masks_of_the_background_are_told_from_inverted_depth(capsys, near) -> None:
    mask = np.ones((12, 12), bool)
    mask[4:9, 3:8] = False
    depth = np.where(mask, 0.1, 0.9)[None] if near == "bright" else np.full((1, 12, 12), 0.5)
    scene = {"depth": depth.astype(np.float32), "mask": mask}
    source = SimpleNamespace(scene=lambda row: scene, reading=Reading("bright"))
    share = check_polarity(source, np.arange(3))  # type: ignore[arg-type]
    lines = capsys.readouterr().err
    assert "masks look inverted: they cover most of the picture" in lines
    assert ("what is salient is farther" in lines) == (share == 1) == (near == "bright")
    assert "depth looks inverted" not in lines


def test_groups_are_never_in_two_parts(scenes, tmp_path):
    from headwise.pipelines.engine.command_line import parse
    from headwise.pipelines.saliency import TASK

    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"s{k},g{k // 2}\n" for k in range(10)))
    options = parse(
        TASK, "train", [], values={"data": str(scenes), "groups": str(table), "size": (32, 32)}
    )
    splits = TASK.load().open_data(options)
    groups = [set(splits.part(name).column("groups")) for name in ("train", "validation", "test")]
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


def test_copies_of_a_scene_share_a_part_or_are_refused(scenes, tmp_path):
    from headwise.base.account import opened
    from headwise.base.errors import InputError
    from headwise.pipelines.saliency import TASK
    from headwise.pipelines.saliency.options import SaliencyOptions

    # The same pixels in another kind of file.
    Image.open(scenes / "RGB" / "s7.png").save(scenes / "RGB" / "t7.bmp")
    for name in ("depth", "GT"):
        shutil.copyfile(scenes / name / "s7.png", scenes / name / "t7.png")
    everything = sorted(f"RGB/{file.name}" for file in (scenes / "RGB").iterdir())
    for seed in range(6):
        options = SaliencyOptions(data=str(scenes), size=(32, 32), seed=seed)
        with opened() as account:
            splits = TASK.load().open_data(options)
        parts = [splits.part(name).column("names") for name in ("train", "validation", "test")]
        assert sorted(name for names in parts for name in names) == everything
        assert sum({"RGB/s7.png", "RGB/t7.bmp"} <= set(names) for names in parts) == 1
        assert any("exact copies" in line and "RGB/t7.bmp" in line for line in account.lines())
        assert [len(splits.members[name]) for name in ("train", "validation", "test")] == [
            len(names) for names in parts
        ]
    row = "RGB/s{0}.png,depth/s{0}.png,GT/s{0}.png,{1}"
    rows = [row.format(k, "test" if k > 6 else "train") for k in range(10)]
    rows.append("RGB/t7.bmp,depth/t7.png,GT/t7.png,train")
    (scenes / "t.csv").write_text("image,depth,mask,part\n" + "\n".join(rows))
    options = SaliencyOptions(data=str(scenes / "t.csv"), size=(32, 32))
    with pytest.raises(InputError, match=r"exact copies in test and in train.*--accept copies"):
        TASK.load().open_data(options)
    with opened(["copies"]):
        assert len(TASK.load().open_data(options).test) == 3


def test_the_answer_says_where_the_map_is_and_overlays_darken_the_rest(headwise, run, tmp_path):
    from headwise.pipelines.saliency.prediction import overlay

    picture = draw_scene(1)[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    words = ("saliency", "predict", "--run", run, "--input", tmp_path / "a.png", "--overlays")
    code, lines = headwise(*words, "--output", tmp_path / "o.parquet")
    assert code == 0, lines
    rows = pl.read_parquet(tmp_path / "o.parquet")
    levels = np.asarray(Image.open(tmp_path / "o.parquet.maps" / "a.png"))
    over = np.asarray(Image.open(tmp_path / "o.parquet.overlays" / "a.png"))
    np.testing.assert_array_equal(over, overlay(picture.transpose(2, 0, 1), levels))
    ends = overlay(np.full((3, 1, 2), 200, np.uint8), np.array([[0, 255]], np.uint8))
    assert ends[0, :, 0].tolist() == [50, 200]
    first, second = load_task("saliency").load().answer_lines(rows, None)
    assert "of the picture" in first
    assert "from colour alone" in first
    assert second == "map: a.png in OUTPUT.maps/"


def test_old_runs_are_read_by_the_defaults(run, tmp_path):
    from headwise.data.scenes.reading import Reading
    from headwise.pipelines.saliency.data import SaliencySpec, reading_of

    spec = json.loads((run / "spec.json").read_text())
    for name in ("invalid", "turn", "stretch"):
        del spec["input"][name]
    old = SaliencySpec.from_json(spec, tmp_path / "spec.json")
    assert reading_of(old.input) == Reading("bright")


def test_a_run_with_an_option_that_nothing_reads_is_opened(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    config = (copy / "config.yaml").read_text()
    spatial = "attention: spatial-reduction"
    assert spatial in config
    # The weights still have a transformer: what matters is that the options are not the obstacle.
    config = config.replace("transformer: small", "transformer: none")
    (copy / "config.yaml").write_text(config.replace(spatial, "attention: moh"))
    with pytest.raises(ValueError, match=r"weights of another model"):
        load_run(load_task("saliency").load(), str(copy), "cpu")


def test_a_link_to_nothing_and_odd_names_stop_nothing(headwise, run, tmp_path):
    home = tmp_path / "in"
    home.mkdir()
    Image.fromarray(draw_scene(1)[0]).save(home / "ok.png")
    content = (home / "ok.png").read_bytes()
    names = [b"caf\xe9.png", b"x" * 251 + b".png", b"a[1].png"]
    for name in names:
        with open(os.path.join(os.fsencode(home), name), "wb") as file:
            file.write(content)
    (home / "gone.png").symlink_to("nowhere.png")
    (home / "self.png").symlink_to("self.png")
    words = ("saliency", "predict", "--run", run, "--input", home)
    code, lines = headwise(*words, "--output", tmp_path / "o.parquet")
    assert code == 3, lines
    rows = pl.read_parquet(tmp_path / "o.parquet")
    failed = rows.filter(pl.col("status") == "error")
    assert failed["item"].to_list() == ["gone.png", "self.png"]
    assert rows.filter(pl.col("item") == "caf\\xe9.png")["status"].to_list() == ["ok"]
    assert any("6 of 6 pictures without a depth map" in line for line in lines)
    maps = {os.fsencode(path.name) for path in (tmp_path / "o.parquet.maps").iterdir()}
    assert maps == {b"ok.png", b"caf\\xe9.png", *names[1:]}


def test_a_map_without_finite_numbers_is_an_error(headwise, run, scenes, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = load_file(broken / "model.safetensors")
    for value in weights.values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    save_file(weights, broken / "model.safetensors")
    code, _ = headwise(
        *("saliency", "predict", "--run", broken, "--input", scenes / "RGB"),
        *("--output", tmp_path / "o.parquet"),
    )
    table = pl.read_parquet(tmp_path / "o.parquet")
    assert code == 3
    assert set(table["error"]) == {"the model gives no finite number (map)"}


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
    assert {row["map"] for row in report["scores"]} >= {"GL-DMNet", "depth alone", "middle"}
    assert len(report["scenes"]) == 4
    assert (tmp_path / "o" / "tables" / "scores.tex").is_file()
    first = (tmp_path / "o" / "trainings" / "group0000.json").stat().st_mtime_ns
    assert headwise(*words, tmp_path / "o")[0] == 0
    assert (tmp_path / "o" / "trainings" / "group0000.json").stat().st_mtime_ns == first
    code, lines = headwise(*words, tmp_path / "o", "--lr", "0.5")
    assert code == 2
    assert "other options or data" in lines[-1]


def test_a_group_is_left_out_of_the_training_that_gives_its_maps(scenes, tmp_path, monkeypatch):
    from headwise import pipelines
    from headwise.pipelines.saliency.verbs import crossval as folds

    trained, ladders, mapped = [], [], []

    def fit_ladder(task, model, splits, context):
        parts = (splits.train, splits.validation, splits.test)
        ladders.append([set(part.column("names")) for part in parts])
        return Ladder({"model": torch.nn.Identity()}, {"chosen": "model"})

    def fit(task, options, dataset, spec, device, *, validation):
        trained.append((set(dataset.column("names")), set(validation.column("names"))))
        return None, {}

    def maps_of(model, part, options, device):
        mapped.append(set(part.column("names")))
        return [np.full((96, 128), 60 * len(mapped), np.uint8) for _ in range(len(part))]

    monkeypatch.setattr(folds, "fit", fit)
    monkeypatch.setattr(folds, "fit_ladder", fit_ladder)
    monkeypatch.setattr(folds, "maps_of", maps_of)
    table = tmp_path / "groups.csv"
    names = [f"s{k}" for k in range(10)]
    table.write_text(
        "image,group\n" + "".join(f"{name},g{k // 4}\n" for k, name in enumerate(names))
    )
    options = {
        "groups": str(table),
        "size": (32, 32),
        "validation_share": 0.5,
        "output": tmp_path / "o",
    }
    pipelines.saliency.crossval(data=str(scenes), **options)
    assert [len(names) for names in mapped] == [4, 4, 2]
    assert ladders == [[*parts, test] for parts, test in zip(trained, mapped)]
    for (train, validation), test in zip(trained, mapped):
        assert train
        assert validation
        assert not train & validation
        assert not test & (train | validation)
        assert len(test | train | validation) == 10
    for number, rows in enumerate(((0, 1, 2, 3), (4, 5, 6, 7), (8, 9)), 1):
        for row in rows:
            stored = Image.open(tmp_path / "o" / "trainings" / f"map{row:06d}-model.png")
            assert np.unique(np.asarray(stored)).tolist() == [60 * number]


@pytest.mark.parametrize(
    ("trained", "option", "near"),
    [("dark", "trained", "dark"), ("bright", "trained", "bright"), ("bright", "dark", "dark")],
)
def test_depth_is_read_the_way_round_that_it_was_trained_on(
    run, scenes, tmp_path, monkeypatch, trained, option, near
):
    from headwise import pipelines
    from headwise.pipelines.saliency import prediction as infer

    copy = shutil.copytree(
        run, tmp_path / "run", ignore=shutil.ignore_patterns("sample", "checkpoints")
    )
    spec = json.loads((copy / "spec.json").read_text())
    spec["input"]["near"] = trained
    (copy / "spec.json").write_text(json.dumps(spec))
    read, used = infer.read_scene, []

    def watched(file, depth, size, reading):
        used.append(reading.near)
        return read(file, depth, size, reading)

    monkeypatch.setattr(infer, "read_scene", watched)
    pipelines.saliency.predict(run=copy, input=scenes, output=tmp_path / "o.parquet", near=option)
    assert used == [near] * 10


def test_maps_of_predictions_give_the_metrics(run, tmp_path):
    """By a head so steep that the maps of a model that is hardly trained differ from place to
    place.
    """
    from headwise import pipelines
    from headwise.tests.contract.conftest import sample_of
    from headwise.tests.contract.from_predictions import saliency

    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    task = load_task("saliency")
    loaded = load_run(task.load(), str(copy), "cpu")
    sample = sample_of(copy)
    parts = task.load().open_data(replace(loaded.options, data=str(sample)), loaded.spec)
    arguments, _ = task.load().export_example(loaded.model, parts)
    with torch.no_grad():
        middle = torch.logit(loaded.model(*arguments)).mean()
    weights = load_file(copy / "model.safetensors")
    weights["heads.0.1.weight"] *= 300
    weights["heads.0.1.bias"] = 300 * (weights["heads.0.1.bias"] - middle)
    save_file(weights, copy / "model.safetensors")
    metrics = pipelines.saliency.evaluate(run=copy)
    (tmp_path / "in").mkdir()
    shutil.copytree(sample / "test", tmp_path / "in" / "test")
    options = {
        "input": tmp_path / "in",
        "output": tmp_path / "predictions.parquet",
        "overwrite": True,
    }
    rows = pipelines.saliency.predict(run=copy, **options).table()
    assert rows["salient"].n_unique() > len(rows) / 2
    scores = saliency(rows, None, tmp_path / "in")
    assert scores == pytest.approx({name: metrics[name] for name in scores}, abs=1e-6)
