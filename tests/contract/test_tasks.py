"""One contract for all tasks. A new pipeline is held to it by being in the table of tasks."""

import html.parser
import inspect
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file

import headwise
from headwise import pipelines
from headwise.base.files import checksum
from headwise.pipelines.engine.command_line import options_class, parse
from headwise.pipelines.engine.command_line.option_help import option_groups, option_texts
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.task import COMMON_COLUMNS
from headwise.tests.contract.conftest import STEPS, TELLING, UNTRAINED, sample_of

FILES = [
    "config.yaml",
    "metrics.json",
    "history.csv",
    "model.safetensors",
    "spec.json",
    "card.json",
    "environment.json",
    "report.html",
    "predictions.parquet",
]


def copied(sample: Path, place: Path) -> Path:
    """The sample, a file or a folder, under another name."""
    place.parent.mkdir(exist_ok=True)
    if sample.is_dir():
        return Path(shutil.copytree(sample, place, ignore=shutil.ignore_patterns("features-*")))
    return Path(shutil.copy(sample, place.with_suffix(sample.suffix)))


def rows(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).drop("file")


def test_the_sample_is_the_same_each_time(trained, tmp_path):
    task, path = trained
    again = task.load().write_sample(tmp_path)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert again.relative_to(tmp_path) == sample_of(path).relative_to(path / "sample")
    for file in files:
        assert (tmp_path / file).read_bytes() == (path / "sample" / file).read_bytes()


def test_a_run_holds_what_it_promises(trained):
    task, path = trained
    missing = [name for name in FILES if not (path / name).is_file()]
    assert missing == (["history.csv"] if task.name in UNTRAINED else [])
    assert not list(path.rglob(".aside-*"))
    card = json.loads((path / "card.json").read_text())
    assert {"task", "data", "headline", "intended_use", "input"} <= card.keys()
    assert card["task"] == task.name
    assert "generated" in card["data"]
    environment = json.loads((path / "environment.json").read_text())
    assert (
        environment["packages"]["torch"] == torch.__version__.split("+")[0]
        or environment["packages"]["torch"]
    )
    if task.name not in UNTRAINED:
        assert (path / "history.csv").read_text().count("\n") == 2
    assert list((path / "figures").glob("*.png"))


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.outside, self.open = 0, [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                self.images += value.startswith("data:image/png;base64,")
                self.outside += [] if value.startswith("data:") else [value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_needs_nothing_else(trained):
    _, path = trained
    text = (path / "report.html").read_text()
    links = Links()
    links.feed(text)
    assert links.images >= 2
    assert not links.outside
    assert not links.open
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert len(text) < 4_000_000


def test_the_config_runs_the_run_again(trained, headwise, tmp_path):
    task, path = trained
    options, telling = (
        parse(task, "train", [], config=path / "config.yaml"),
        TELLING.get(task.name, {}),
    )
    assert (
        parse(task, "train", [], values={"run": str(path), "max_steps": STEPS, **telling})
        == options
    )
    code, _ = headwise(task.name, "train", path / "config.yaml", "--run", tmp_path / "again")
    assert code == 0
    assert checksum(tmp_path / "again" / "model.safetensors") == checksum(
        path / "model.safetensors"
    )
    assert_frame_equal(
        rows(tmp_path / "again" / "predictions.parquet"), rows(path / "predictions.parquet")
    )


def test_a_run_is_never_overwritten(trained, headwise):
    task, path = trained
    before = checksum(path / "model.safetensors")
    code, lines = headwise(task.name, "train", "--run", path, "--max-steps", STEPS)
    assert (code, len(lines)) == (2, 1)
    assert "already holds a run" in lines[0]
    assert checksum(path / "model.safetensors") == before


# Tasks whose report has a picture of what the user came for here.
SHOWN = ("finetune", "forecast", "reasoning", "reid", "saliency", "speech", "text", "wsi")


def test_the_report_shows_what_the_user_came_for_before_any_table(trained):
    task, path = trained
    text = (path / "report.html").read_text()
    assert text.startswith("<!doctype html>")
    headline, table = text.index('class="headline"'), text.index("<table>")
    assert headline < table
    assert (text.index("<figure>") < table) == (task.name in SHOWN)


# Files whose content the mark of a prediction is made of.
PREDICTS = ("spec.json", "model.safetensors", "calibration.safetensors", "ladder.json")


def test_resume_of_a_finished_run_gives_the_same(trained, headwise, tmp_path):
    task, path = trained
    copy = shutil.copytree(path, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    code, _ = headwise(task.name, "train", "--run", copy, "--resume")
    assert code == 0
    for name in (file for file in PREDICTS if (path / file).exists()):
        assert checksum(copy / name) == checksum(path / name), name


def test_resume_with_other_options_is_refused_with_their_names(trained, headwise):
    task, path = trained
    code, lines = headwise(
        task.name, "train", "--run", path, "--resume", "--lr", "0.5", "--seed", "9"
    )
    assert (code, len(lines)) == (2, 1)
    assert "seed was 2021, now 9" in lines[0]
    assert "lr was" in lines[0]


def test_evaluate_gives_the_figures_of_the_training(trained, headwise):
    task, path = trained
    code, _ = headwise(task.name, "evaluate", "--run", path)
    assert code == 0
    again, first = (
        json.loads((path / name).read_text()) for name in ("evaluation-test.json", "metrics.json")
    )
    assert {key: again[key] for key in first} == first


def test_the_pictures_of_the_report_are_drawn(run_of_task):
    assert run_of_task.contrasts
    assert min(run_of_task.contrasts) > 1


def test_a_run_opened_from_python_predicts_as_the_verb_does(trained):
    task, path = trained
    run = headwise.open(path)
    assert run.task is task
    table, expected = run.predict(sample_of(path)), pl.read_parquet(path / "predictions.parquet")
    assert_frame_equal(table.select(expected.columns), expected)


@pytest.fixture(scope="module")
def once(trained, tmp_path_factory):
    """A folder with the sample, twice if it is a single file, and what the plain engine predicts
    for it.
    """
    task, path = trained
    home = tmp_path_factory.mktemp("once")
    for name in ("a", "b") if sample_of(path).is_file() else ("a",):
        copied(sample_of(path), home / "in" / name)
    getattr(pipelines, task.name).predict(run=path, input=home / "in", output=home / "once.parquet")
    return home / "in", home / "once.parquet"


# Of rows, slides, recordings and texts.
WITH_RAY = ("forecast", "wsi", "speech", "text")


@pytest.mark.timeout(900)  # Ray starts processes by the dozen: minutes on a busy machine
@pytest.mark.parametrize(
    "how", [["--processes", "2"], ["--shard-size", "1"], ["--engine", "ray"]], ids=" ".join
)
def test_every_engine_gives_the_same_rows(trained, once, headwise, tmp_path, request, how):
    task, path = trained
    if "ray" in how:
        if task.name not in WITH_RAY:
            pytest.skip("Ray's workers are sent and do what those of --processes are and do")
        request.getfixturevalue("ray_cluster")
    (folder, once), output = once, tmp_path / "other.parquet"
    words = ("predict", "--run", path, "--input", folder, "--output", output, *how)
    assert headwise(task.name, *words)[0] == 0
    # Another shard size makes other batches, and with them other last digits; all else gives the
    # same bits.
    assert_frame_equal(
        pl.read_parquet(once),
        pl.read_parquet(output),
        check_exact="--shard-size" not in how,
        abs_tol=1e-4,
    )
    of_folder = (
        pl.read_parquet(once).filter(pl.col("item").str.starts_with("a")).drop("file", "item")
    )
    assert_frame_equal(of_folder, rows(path / "predictions.parquet").drop("item"), abs_tol=1e-4)
    assert not Path(f"{output}.parts").exists()


def test_a_broken_item_is_a_row_and_code_3(trained, headwise, tmp_path):
    task, path = trained
    sample = sample_of(path)
    copied(sample, tmp_path / "good")
    suffix = Path(pl.read_parquet(path / "predictions.parquet")["file"][0]).suffix
    (tmp_path / f"broken{suffix}").write_bytes(b"\x00\xff this is nothing \xfe" * 5)
    output = tmp_path / "out" / "o.parquet"
    code, lines = headwise(
        task.name, "predict", "--run", path, "--input", tmp_path, "--output", output
    )
    table = pl.read_parquet(output)
    assert code == 3
    assert any("broken" in line for line in lines)
    failed = table.filter(pl.col("status") == "error")
    assert failed["item"].to_list() == [f"broken{suffix}"]
    assert "\n" not in failed["error"][0]
    assert (
        table.filter(pl.col("status") == "ok").height
        == pl.read_parquet(path / "predictions.parquet").height
    )


def test_a_done_output_is_left_alone_and_another_is_not_mixed_in(trained, headwise, tmp_path):
    task, path = trained
    output, command = (
        tmp_path / "o.parquet",
        (task.name, "predict", "--run", path, "--input", sample_of(path)),
    )
    assert headwise(*command, "--output", output)[0] == 0
    stamp = output.stat().st_mtime_ns
    code, lines = headwise(*command, "--output", output)
    assert (code, output.stat().st_mtime_ns) == (0, stamp)
    assert "already done" in lines[-1]
    other_run = shutil.copytree(path, tmp_path / "other")
    weights = {
        name: value + 1 for name, value in load_file(other_run / "model.safetensors").items()
    }
    save_file(weights, other_run / "model.safetensors")
    code, lines = headwise(
        task.name, "predict", "--run", other_run, "--input", sample_of(path), "--output", output
    )
    assert (code, len(lines)) == (2, 1)
    assert "another model" in lines[0]


def test_a_run_of_another_task_or_model_is_refused(trained, headwise, tmp_path):
    task, path = trained
    copy = shutil.copytree(path, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.zeros(3, 3)}, copy / "model.safetensors")
    code, lines = headwise(task.name, "evaluate", "--run", copy)
    assert (code, len(lines)) == (2, 1)
    assert "weights of another model" in lines[0]
    facts = json.loads((copy / "environment.json").read_text())
    (copy / "environment.json").write_text(json.dumps({**facts, "task": "cooking"}))
    code, lines = headwise(
        task.name,
        "predict",
        "--run",
        copy,
        "--input",
        sample_of(path),
        "--output",
        tmp_path / "o.csv",
    )
    assert (code, len(lines)) == (2, 1)
    assert "a run of the task 'cooking'" in lines[0]


def test_the_export_gives_the_same(trained, headwise, tmp_path):
    task, path = trained
    code, lines = headwise(task.name, "export", "--run", path, "--output", tmp_path / "model.pt2")
    assert code == 0, lines
    program = torch.export.load(tmp_path / "model.pt2")
    assert "headwise" not in str(program.graph), "it must open where Headwise is not installed"
    loaded = load_run(task.load(), str(path))
    splits = task.load().open_data(replace(loaded.options, data=str(sample_of(path))), loaded.spec)
    arguments, _ = task.load().export_example(loaded.model, splits)
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(*arguments), loaded.model(*arguments), atol=1e-5, rtol=0
        )


def test_the_onnx_export_gives_the_same(trained, headwise, tmp_path):
    session = pytest.importorskip(
        "onnxruntime", reason="the extra `onnx` is not installed"
    ).InferenceSession
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    task, path = trained
    code, lines = headwise(task.name, "export", "--run", path, "--output", tmp_path / "model.onnx")
    assert code == 0, lines
    assert len(lines) == 1, "the exporter's chatter is not ours"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    graph = session(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    loaded = load_run(task.load(), str(path))
    splits = task.load().open_data(replace(loaded.options, data=str(sample_of(path))), loaded.spec)
    arguments, shapes = task.load().export_example(loaded.model, splits)
    other_arguments = task.load().other_export_example(splits, arguments, shapes)
    if shapes is not None:
        assert [x.shape for x in other_arguments if x is not None] != [
            x.shape for x in arguments if x is not None
        ]
    names = list(inspect.signature(loaded.model.forward).parameters)
    for inputs in [arguments] + ([] if other_arguments is None else [other_arguments]):
        named = {name: x.numpy() for name, x in zip(names, inputs) if x is not None}
        assert {value.name for value in graph.get_inputs()} == named.keys()
        (output,) = graph.run(["output"], named)
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(output), loaded.model(*inputs), atol=5e-5, rtol=5e-5
            )


def test_the_options_are_documented(trained, capsys):
    task, path = trained
    for verb in ("train", "predict", *task.verbs):
        options = options_class(task, verb)
        assert [name for name, text in option_texts(options).items() if not text] == []
        grouped = [name for names in option_groups(options).values() for name in names]
        assert sorted(grouped) == sorted(f.name for f in fields(options))
    with pytest.raises(SystemExit):
        parse(task, "train", ["--help"])
    page = capsys.readouterr().out
    for name in yaml.safe_load((path / "config.yaml").read_text()):
        assert f"--{name.replace('_', '-')}" in page


def test_the_columns_of_predictions_are_documented(trained):
    task, path = trained
    names = pl.read_parquet_schema(path / "predictions.parquet")
    documented = {**COMMON_COLUMNS, **task.columns}
    patterns = [re.sub(r"[A-Z]{2,}", ".+", re.escape(name)) for name in documented]
    assert [n for n in names if not any(re.fullmatch(p, n) for p in patterns)] == []
