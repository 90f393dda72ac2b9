"""The command line: quick answers, near names, YAML as options, options pinned."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task, summary_of
from headwise.pipelines.engine import command_line as cli
from headwise.pipelines.engine.runs.run_directory import dump_options

TASK = load_task("forecast")
PIPELINES = Path(__file__).parents[1]


def surface():
    return {
        f"{name} {verb}": [
            f.name for f in dataclasses.fields(cli.options_class(load_task(name), verb))
        ]
        for name in TASKS
        for verb in [*cli.COMMON, *load_task(name).verbs]
    }


def test_the_list_of_options_is_the_one_that_was_agreed():
    """A change here is a change for everyone's scripts: if it is meant, write the new list to
    tests/pipelines/TASK/options.json.
    """
    pinned = {
        f"{name} {verb}": options
        for name in TASKS
        for verb, options in json.loads((PIPELINES / name / "options.json").read_text()).items()
    }
    assert surface() == pinned


HEAVY = ("torch", "lightning_fabric", "matplotlib", "sklearn", "polars")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["forecast"],
        ["forecast", "train", "--help"],
        ["forecat"],
        ["forecast", "trian"],
        ["forecast", "train", "--horizn", "4"],
        ["forecast", "train", "--horizon", "four"],
        ["forecast", "train", "--split", "rato"],
        ["forecast", "train", "no-such.yaml"],
        ["forecast", "train", "--preset", "etth"],
        ["forecast", "predict"],
        ["forecast", "train", "--attention", "sta"],
        ["list", "attention"],
        ["list", "attention", "--where"],
        ["list", "ffn", "--where"],
        ["list", "ffn", "glu"],
        ["completion", "bash"],
        ["completion"],
        ["serve"],
        ["serve", "--port", "0", "--run", "run"],
        ["train", "forecast"],
        ["data"],
        ["data", "get", "--help"],
        ["data", "get", "ETTh1", "--help"],
        ["doctor", "all"],
        ["forecast", "train", "--epochs", "0"],
        ["text", "topics"],
        ["text", "topics", "--help"],
        ["text", "topics", "fit", "--help"],
        ["text", "topics", "fitt"],
        ["text", "topics", "fit", "--colum", "x"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_answer_without_torch(words):
    code = (
        "import sys\nfrom headwise.pipelines.engine.command_line import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as stop:\n    code = stop.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('HEAVY', heavy, 'CODE', code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    lines = [line for line in done.stderr.splitlines() if line]
    if "CODE 2" in done.stdout:
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("headwise: ")
    else:
        assert "CODE 0" in done.stdout
        assert not lines


def test_the_list_of_tasks_says_what_their_cards_say(capsys) -> None:
    """It is read from their files: to import all tasks takes a third of a second."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in TASKS:
        assert summary_of(name) == load_task(name).summary
        assert f"  {name:<14}{load_task(name).summary}" in lines


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["list", "--help"], "usage: headwise list attention|ffn|moe|kernels"),
        (["list", "attention", "-h"], "usage: headwise list attention|ffn|moe|kernels"),
        (["data", "--help"], "usage: headwise data list"),
        (["data", "get", "--help"], "usage: headwise data list"),
        (["data", "get", "ETTh1", "-h"], "usage: headwise data get ETTh1"),
        (["data", "get", "debian-tags", "-h"], "usage: headwise data get debian-tags [--options]"),
        (["doctor", "--help"], "usage: headwise doctor"),
        (["serve", "--help"], "usage: headwise serve [--options]"),
        (["completion", "--help"], "usage: headwise completion bash|zsh|fish"),
        (["new-task", "--help"], "usage: headwise new-task NAME"),
        (["wsi", "train", "-h"], "usage: headwise wsi train [config.yaml] [--options]"),
    ],
)
def test_every_word_has_help_by_either_name(words, line, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines()[0] == line


def test_verb_and_task_in_the_wrong_order_are_put_right(headwise) -> None:
    assert headwise("train", "forecast") == (
        2,
        ["headwise: no task 'train'; did you mean `headwise forecast train`?"],
    )
    assert headwise("crossval", "wsi", "--data", "x")[1][0].endswith("`headwise wsi crossval`?")


def test_verbs_that_begin_with_the_same_word_are_listed_by_it(capsys) -> None:
    for words in (["text", "topics"], ["text", "topics", "--help"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        listed = [line.strip().split("  ")[0] for line in lines if line.startswith("  ")]
        assert listed == ["topics fit", "topics evaluate", "topics tasks", "topics agreement"]


def test_verbs_of_two_words_are_matched_and_put_right(headwise) -> None:
    assert headwise("text", "topics", "agrement") == (
        2,
        ["headwise: no verb of text topics 'agrement'; did you mean agreement?"],
    )
    assert headwise("text", "topcs") == (
        2,
        ["headwise: no verb of text 'topcs'; did you mean topics?"],
    )
    assert headwise("text", "topics", "fit") == (
        2,
        ["headwise: text topics fit: needs --data; --help says what it is"],
    )
    # The verb of one word is not the last word of the one of two.
    assert "--run" in headwise("text", "evaluate")[1][0]
    assert "--topics" in headwise("text", "topics", "evaluate")[1][0]


def test_every_option_misspelt_by_one_letter_is_met_with_its_name():
    met = tried = 0
    for key, names in surface().items():
        task, verb = key.split(" ", 1)
        for name in names:
            for spot in range(len(name)):
                wrong = name[:spot] + name[spot + 1 :]
                if len(wrong) < 2 or wrong in names or wrong.removeprefix("no_") in names:
                    continue
                tried += 1
                with pytest.raises(InputError) as caught:
                    cli.parse(load_task(task), verb, [f"--{wrong.replace('_', '-')}", "1"])
                met += f"--{name.replace('_', '-')}?" in str(caught.value)
    print(f"near names: {met}/{tried}")
    assert met / tried > 0.95


def test_yaml_numbers_lists_null_and_nesting(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "lr: 1e-3\nlevels: [0.5, 0.9]\nclip: null\nresume: false\nbatch: {size: 8}\nmarks: false\n"
    )
    options = cli.parse(TASK, "train", ["--batch-size", "16"], config=config)
    assert (options.lr, options.levels, options.clip, options.marks) == (
        1e-3,
        (0.5, 0.9),
        None,
        False,
    )
    assert options.batch_size == 16, "the person's own options win"


def test_python_and_command_line_are_one():
    values = {
        "horizon": 12,
        "data": Path("a.csv"),
        "targets": ["a", "b"],
        "marks": False,
        "clip": 0.5,
    }
    words = [
        "--horizon",
        "12",
        "--data",
        "a.csv",
        "--targets",
        "a",
        "b",
        "--no-marks",
        "--clip",
        "0.5",
    ]
    assert cli.parse(TASK, "train", [], values=values) == cli.parse(TASK, "train", words)


@pytest.mark.parametrize("preset", cli.presets(TASK))
@pytest.mark.parametrize("horizon", [12, 48, 96, 336, 720])
def test_options_come_back_from_their_file(tmp_path_factory, preset, horizon):
    options = cli.parse(TASK, "train", [], values={"preset": preset, "horizon": horizon})
    assert options.horizon == horizon
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_options(options))
    assert cli.parse(TASK, "train", [], config=path) == options


def test_without_data_a_task_may_have_a_preset_of_its_sample(tmp_path):
    task = load_task("saliency")
    default_epochs = task.options().epochs
    sample = cli.parse(task, "train", [])
    assert (sample.preset, sample.epochs) == ("sample", 8)
    assert cli.parse(task, "train", ["--epochs", "3"]).epochs == 3, "the person's own options win"
    for words in (["--data", "scenes"], ["--preset", next(iter(cli.presets(task)))]):
        assert cli.parse(task, "train", words).preset != "sample"
    assert cli.parse(task, "train", ["--data", "scenes"]).epochs == default_epochs
    path = tmp_path / "config.yaml"
    path.write_text(dump_options(sample))
    assert cli.parse(task, "train", [], config=path) == sample
    path.write_text("epochs: 5\ndata: scenes\n")
    assert cli.parse(task, "train", [], config=path).preset is None
    path.write_text("epochs: 5\n")
    assert cli.parse(task, "train", [], config=path).epochs == 5
    assert cli.parse(TASK, "train", []) == TASK.options(), "forecast has none"


def test_presets_are_the_published_scripts():
    read = {
        name: cli.parse(TASK, "train", [], values={"preset": name}) for name in cli.presets(TASK)
    }
    fields = ("layers", "width", "core", "feedforward", "batch_size", "epochs", "patience")
    assert {n: tuple(getattr(o, field) for field in fields) for n, o in read.items()} == {
        "etth1": (1, 256, 256, 256, 32, 20, 3),
        "etth2": (2, 128, 64, 128, 32, 20, 3),
        "ettm1": (2, 128, 64, 128, 16, 50, 3),
        "ettm2": (2, 256, 256, 128, 32, 20, 3),
        "weather": (3, 512, 128, 512, 16, 10, 10),
        "ecl": (3, 512, 128, 512, 16, 30, 30),
        "traffic": (3, 512, 128, 512, 16, 50, 50),
        "solar": (2, 512, 128, 512, 32, 10, 10),
        "pems03": (4, 512, 512, 512, 32, 30, 3),
        "pems04": (4, 512, 512, 1024, 32, 30, 3),
        "pems07": (2, 512, 512, 512, 32, 30, 3),
        "pems08": (2, 512, 512, 512, 32, 30, 3),
    }
    assert {n: o.split for n, o in read.items()} == {
        n: "ett" if n.startswith("ett") else "pems" if n.startswith("pems") else "ratio"
        for n in read
    }
    assert not read["pems03"].normalise
    assert read["pems08"].normalise
    longer = {
        (n, h): cli.parse(TASK, "train", [], values={"preset": n, "horizon": h})
        for n, h in [("etth1", 336), ("etth1", 720), ("pems07", 48), ("pems08", 96)]
    }
    assert [o.feedforward for o in longer.values()] == [512, 512, 512, 512]
    assert [
        longer["pems07", 48].layers,
        longer["pems08", 96].layers,
        longer["pems08", 96].normalise,
    ] == [4, 4, False]


numbers = st.floats(1e-8, 1e3) | st.integers(1, 10**6)


@given(
    lr=numbers,
    clip=st.none() | numbers,
    levels=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3, unique_by="{:.4g}".format),
    data=st.none() | st.text("abc:'\"#é -{}", min_size=1).filter(lambda t: not t.startswith("-")),
)
def test_any_options_come_back_from_their_file(tmp_path_factory, lr, clip, levels, data):
    options = dataclasses.replace(
        TASK.options(),
        lr=float(lr),
        clip=None if clip is None else float(clip),
        levels=tuple(levels),
        data=data,
    )
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_options(options))
    assert cli.parse(TASK, "train", [], config=path) == options


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_large_tensors_lie_in_huge_pages_unless_the_user_says_no(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, torch would show it only by its speed."""
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    if before is not None:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", before)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == after
