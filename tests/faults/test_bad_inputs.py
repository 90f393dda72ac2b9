"""Bad inputs through the whole command line: one line that says what, where and what to do; exit
code 2.

Each case runs in a folder of its own. Nothing is left there that the case did not bring, and no
case may make the folder `unpickled`, which is what the pickles and YAML tags among them would do if
anything executed them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headwise.data.series.generate import many_series
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse, run_verb
from headwise.tests.faults.bad_data import DATA, wide, write
from headwise.tests.faults.bad_options import OPTIONS, YAML
from headwise.tests.faults.bad_runs import RUNS
from headwise.tests.hostile import Bomb

SMALL = (
    "--horizon 4 --lookback 8 --width 8 --core 4 --feedforward 8 --layers 1 "
    "--max-steps 2 --epochs 1"
)


@pytest.fixture
def refused(headwise, tmp_path, monkeypatch):
    """Run a command in `tmp_path` and check what every refusal must be; returns the message."""
    monkeypatch.chdir(tmp_path)

    def check(command: str, words: str, code: int = 2) -> str:
        before = everything(tmp_path)
        exit_code, lines = headwise(*command.split())
        output = "\n".join(lines)
        assert exit_code == code, output
        assert "Traceback" not in output
        assert not (tmp_path / "unpickled").exists()
        if code == 2:
            assert len(lines) == 1, output
            assert lines[0].startswith("headwise: ")
            assert everything(tmp_path) == before, "something was left behind"
        message = lines[-1].removeprefix("headwise: ").strip()
        assert len(message) < 400
        assert re.search(words, message), message
        typed = [word.split("=")[0] for word in command.split() if len(word) > 1]
        assert any(word in message or word.split("/")[0] in message for word in typed) or re.search(
            "--[a-z]", message
        ), f"names nothing: {message}"
        print(message)  # pytest -rP lists them all
        return message

    return check


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name not in (".lock", "__pycache__")}


@pytest.mark.parametrize("case", DATA)
def test_data_is_refused(case, refused, tmp_path, monkeypatch):
    file, content, options, words = DATA[case]
    monkeypatch.setattr("headwise.data.formats.tables_packed.UNPACKED_CAP", 2 << 20)
    monkeypatch.setattr("headwise.data.series.cells.UNPACKED_CAP", 2 << 20)
    write(tmp_path / file, content)
    refused(f"forecast train --data {file} --run run {SMALL} {options}", words)


@pytest.mark.parametrize("case", OPTIONS)
def test_options_are_refused(case, refused):
    refused(*OPTIONS[case])


@pytest.mark.parametrize("case", YAML)
def test_yaml_is_refused(case, refused, tmp_path):
    content, words = YAML[case]
    write(tmp_path / "c.yaml", content)
    refused("forecast train c.yaml --run run", words)


def test_what_only_looks_bad_is_taken(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-3\nclip: null\nbatch: {size: 4}\n")
    options = parse(load_task("forecast"), "train", [], config=tmp_path / "c.yaml")
    assert (options.lr, options.clip, options.batch_size) == (1e-3, None, 4)
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert parse(load_task("forecast"), "train", [], config=tmp_path / "c.yaml").epochs == 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(kind)`: a finished run of a wide table, of one with a known column, or of a long
    one.
    """
    folder, runs = tmp_path_factory.mktemp("trained"), {}

    def get(kind: str) -> Path:
        if kind not in runs:
            runs[kind], data = folder / kind, folder / f"{kind}.csv"
            data.write_text(wide(known=4) if kind == "known" else wide())
            if kind == "long":
                many_series(2, 60, data, broken=0)
            words = ["--known", "b"] if kind == "known" else []
            task = load_task("forecast")
            options = parse(
                task,
                "train",
                ["--data", str(data), "--run", str(runs[kind]), *words, *SMALL.split()],
            )
            run_verb(task, "train", options)
        return runs[kind]

    return get


@pytest.mark.parametrize("case", RUNS)
def test_runs_inputs_and_outputs_are_refused(case, refused, trained, tmp_path):
    if "cuda" in case and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    make, command, words, code = RUNS[case]
    shutil.copytree(trained("wide"), tmp_path / "run")
    make(tmp_path)
    refused(command, words, code)


@pytest.mark.filterwarnings("ignore:.*falling back to the one before")
def test_resume_where_all_checkpoints_are_damaged(headwise, trained, tmp_path):
    run = shutil.copytree(trained("wide"), tmp_path / "run")
    for path in (run / "checkpoints").rglob("state.json"):
        path.write_text("{")
    code, lines = headwise("forecast", "train", "--run", run, "--resume")
    assert (code, "Traceback" in str(lines)) == (2, False)
    assert re.search(r"run/checkpoints: no checkpoint can be read; newest: ", lines[-1])


def test_known_columns_that_end_too_early(refused, trained, tmp_path):
    (tmp_path / "x.csv").write_text(wide(known=3))
    refused(
        f"forecast predict --run {trained('known')} --input x.csv --output o.parquet",
        r"known columns b go on for 3 rows past the end of the targets, but the horizon is 4",
        code=3,
    )


def test_backtest_of_a_long_table(refused, trained):
    refused(
        f"forecast backtest --run {trained('long')}",
        r"^backtest: goes through one table at a time; give a wide",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["forecast", "trian"], r"no verb"),
        (
            ["forecast", "train", "c.yaml"],
            r"c\.yaml: not readable as YAML: line 1: could not determine a constructor",
        ),
        (
            ["forecast", "train", "--data", "x.csv", "--run", "run"],
            r"x\.csv: column 'a', row 4 .* not a number",
        ),
        (
            ["forecast", "evaluate", "--run", "old"],
            r"old/model\.safetensors: not a readable safetensors file",
        ),
        (
            [
                "forecast",
                "predict",
                "--run",
                "old",
                "--input",
                "x.csv",
                "--output",
                "o.parquet",
                "--processes",
                "2",
            ],
            r"old/model\.safetensors: not a readable safetensors file",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[1:3]),
)
def test_a_process_says_one_line_and_nothing_else(words, message, trained, tmp_path):
    (tmp_path / "x.csv").write_text(wide(a3="oops"))
    (tmp_path / "c.yaml").write_text("data: !!python/object/apply:os.mkdir [unpickled]\n")
    if "old" in words:
        shutil.copytree(trained("wide"), tmp_path / "old")
        torch.save({"weights": Bomb("unpickled")}, tmp_path / "old" / "model.safetensors")
    before = everything(tmp_path)
    command = [sys.executable, "-m", "headwise.pipelines.engine", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"headwise: .*{message}.*\n", done.stderr), done.stderr
    assert everything(tmp_path) == before


def test_a_refused_run_can_be_given_again(headwise, tmp_path):
    command = f"forecast train --data {tmp_path}/x.csv --run {tmp_path}/runs/new {SMALL}".split()
    (tmp_path / "x.csv").write_text(wide(a3="oops"))
    assert headwise(*command)[0] == 2
    assert not (tmp_path / "runs" / "new").exists()
    (tmp_path / "runs" / "new").mkdir()
    assert headwise(*command)[0] == 2
    assert list((tmp_path / "runs" / "new").iterdir()) == [], (
        "a folder that stood before stays, empty as it was"
    )
    (tmp_path / "x.csv").write_text(wide())
    code, lines = headwise(*command)
    assert code == 0, lines


def test_there_are_enough_cases():
    assert len(DATA) + len(OPTIONS) + len(YAML) + len(RUNS) >= 150
