"""Faults of text: bad tables through the whole command line, kills while a model is trained and
while texts are predicted for.
"""

import json
import re
from pathlib import Path

import pytest

from headwise.base.files import checksum
from headwise.data.texts.generate import write_sample_texts

pytestmark = pytest.mark.timeout(1200)  # for the long forms
SMALL = ["--weights", "none", "--width", "16", "--terms", "words", "--batch-size", "8"]
KILLS = [2, pytest.param(20, marks=pytest.mark.slow)]
SOUND = "".join(
    f"{k},the {thing} of room {k} is slow,{label},{k}\n"
    for k, (thing, label) in enumerate((("printer", "hardware"), ("wifi", "network")) * 20)
)
HEADER = "id,text,label,size\n"


def changed(row: int, column: str, cell: str) -> str:
    """The sound table with another cell."""
    lines = SOUND.splitlines()
    cells = lines[row].split(",")
    cells[HEADER.strip().split(",").index(column)] = cell
    lines[row] = ",".join(cells)
    return HEADER + "\n".join(lines) + "\n"


TABLES: dict[str, tuple[str | bytes, str, str]] = {
    "no rows": (HEADER, "", r"^t\.csv: has (no rows|column names but no rows)"),
    "empty texts alone": (
        HEADER + "1,,a,1\n2, ,b,2\n",
        "",
        r"^t\.csv: column 'text': all texts are empty",
    ),
    "one class": (
        (HEADER + SOUND).replace("network", "hardware"),
        "",
        r"^t\.csv: the training part has the label 'hardware'; two classes are needed",
    ),
    "a missing label": (changed(4, "label", ""), "", r"column 'label', row 5: is empty.*--accept"),
    "a text with two labels": (
        changed(3, "text", "the printer of room 2 is slow"),
        "",
        r"^t\.csv: the text 'the printer of room 2 is slow' has two classes.*--accept two-labels",
    ),
    "a column named twice": (
        HEADER.replace("size", "text") + SOUND,
        "",
        r"^t\.csv: column 'text' appears more than once",
    ),
    "no column of texts": (
        "id,what,label\n1,a,x\n2,b,y\n",
        "",
        r"^t\.csv: there is no column 'text'.*--columns text=COLUMN",
    ),
    "a column that is not there": (
        HEADER + SOUND,
        "--columns text=body",
        r"^t\.csv: --columns text=body: there is no column 'body'",
    ),
    "no such field": (HEADER + SOUND, "--columns txt=text", r"no field 'txt'; did you mean 'text'"),
    "a misspelt column of the table": (
        HEADER + SOUND,
        "--table sise",
        r"^t\.csv: --table sise: there is no column 'sise'; did you mean 'size'",
    ),
    "the label beside the text": (
        HEADER + SOUND,
        "--table label",
        r"--table label: says the same as the labels.*--accept label-as-feature",
    ),
    "a label column of other words": (
        HEADER + SOUND,
        "--label-columns label",
        r"column 'label', row 1: is 'hardware', not 1 or 0",
    ),
    "words as a number": (
        HEADER + SOUND,
        "--goal number",
        r"column 'label', row 1: 'hardware' is no number",
    ),
    "two encodings": (
        (HEADER + SOUND).replace("room", "café").encode() + "99,naïve,network,9\n".encode("cp1252"),
        "",
        r"^t\.csv: is neither UTF-8 nor cp1252 text",
    ),
    "zero bytes": ((HEADER + SOUND).encode().replace(b"room", b"ro\0m"), "", r"^t\.csv: is binary"),
    "random bytes": (bytes(range(256)) * 9, "", r"^t\.csv: "),
    "a part of no name": (
        HEADER.replace("size", "part") + SOUND,
        "",
        r"column 'part', row 1: '0' is none of train, validation, test",
    ),
    "no sources": (HEADER + SOUND, "--model sources", r"^t\.csv: has no column of sources"),
    "descriptions without weights": (
        HEADER + SOUND,
        "--label-texts t.csv",
        r"--label-texts: needs an encoder with --weights|two descriptions",
    ),
    "too few texts": (HEADER + "".join(SOUND.splitlines(True)[:4]), "", r"two classes are needed"),
}


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables_are_refused_in_one_line(case, headwise, tmp_path, monkeypatch):
    content, options, words = TABLES[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    command = ["text", "train", "--data", "t.csv", "--run", "run", *SMALL, *options.split()]
    code, lines = headwise(*command)
    assert code == 2, lines
    assert len(lines) == 1, lines
    message = lines[0].removeprefix("headwise: ")
    assert len(message) < 400
    assert re.search(words, message), message
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"], "something was left behind"


@pytest.fixture(scope="module")
def home(launch, tmp_path_factory):
    """(texts, run): generated messages, and a model that was trained on them without a break."""
    folder = tmp_path_factory.mktemp("text")
    texts = write_sample_texts(folder, texts=160)
    code, command = launch.run(*training(texts, folder / "run"))
    assert code == 0, command.text()
    return texts, folder / "run"


def training(texts: Path, run: Path) -> list:
    steps = ["--epochs", "3", "--checkpoint-every", "2"]
    return ["text", "train", "--data", texts, "--run", run, *SMALL, *steps]


@pytest.mark.parametrize("kills", KILLS)
def test_f16_kill_while_training_on_texts(tally, launch, home, tmp_path, dice, tries):
    texts, reference = home
    for attempt in tries:
        run = tmp_path / str(attempt)
        words = training(texts, run)
        if not launch.kill_when(words, (run / "history.csv").exists, dice.uniform(0, 0.2)):
            continue
        tries.done += 1
        code, command = launch.run(*words, "--resume")
        names = (
            "model.safetensors", "calibration.safetensors", "spec.json", "assets/terms.parquet",
            "assets/tokenizer.json",
        )  # fmt: skip
        same = code == 0 and all(
            checksum(run / name) == checksum(reference / name) for name in names
        )
        tally("F16 SIGKILL while trained on texts", same, command.text())


@pytest.mark.parametrize("kills", KILLS)
def test_f16_kill_while_predicting_for_texts(survives_kills, home, tmp_path):
    texts, run = home
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    (tmp_path / "in").mkdir()
    for k in range(400):
        (tmp_path / "in" / f"{k:03d}.txt").write_text(rows[k % len(rows)]["text"])
    words = ["text", "predict", "--run", run, "--input", tmp_path / "in", "--all-labels"]
    words += ["--batch-size", "2"]
    survives_kills("F16 SIGKILL while predicting for texts", words, 400, 40)


def topics_verbs(folder: Path) -> dict[str, tuple[list[object], set[str]]]:
    """The verbs of topics that write: their words, and what a finished folder holds."""
    texts = folder / "texts.txt"
    lines = (
        f"{w} printer paper {w}\n{w} wifi network signal\ninvoice payment {w}\n" for w in "xyz"
    )
    texts.write_text("".join(lines) * 8)
    topics = folder / "topics.json"
    groups = ("printer paper ink", "wifi network vpn", "invoice bill price", "screen light pixel")
    topics.write_text(
        json.dumps([[f"{word}{k}" for k in range(4) for word in group.split()] for group in groups])
    )
    summary = {"account.json", "summary.md", "summary.html"}
    fit = ["text", "topics", "fit", "--data", texts, "--count", "3", "--least-texts", "1"]
    evaluate = ["text", "topics", "evaluate", "--topics", topics, "--data", texts]
    tasks = ["text", "topics", "tasks", "--topics", topics, "--raters", "2"]
    return {
        "fit": (fit, {"topics.json", "documents.parquet", "topics.png", *summary}),
        "evaluate": (evaluate, summary),
        "tasks": (tasks, {"key.csv", "sheets", "instructions.md", "account.json"}),
    }


@pytest.mark.parametrize(
    "verb", ["fit", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("evaluate", "tasks"))]
)
def test_f16_kills_before_each_rename_of_topics_leave_all_or_nothing(tally, launch, tmp_path, verb):
    """Each try goes on where the one before was killed, over the results of an earlier job."""
    words, names = topics_verbs(tmp_path)[verb]
    output = tmp_path / "out"
    words = [*words, "--output", output, "--overwrite"]
    code, command = launch.run(*words)
    assert code == 0, command.text()
    before = {path.name for path in tmp_path.iterdir()}
    # os.replace gives each file and at last the folder its name; then only the lock is removed.
    points = [("os", "replace", call) for call in range(1, 99)]
    for point in points:
        code, command = launch.run(*words, die_at=point)
        held = {path.name for path in output.iterdir()} - {".lock"} if output.exists() else names
        assert code in (0, -9), command.text()
        tally("F16 SIGKILL while topics are written", names <= held, f"{point}: {held}")
        if code == 0:
            break
    assert {path.name for path in tmp_path.iterdir()} == before
    assert names <= {path.name for path in output.iterdir()}


def test_the_lock_of_a_killed_job_of_topics_does_not_stand_in_the_way(launch, tmp_path):
    words, names = topics_verbs(tmp_path)["fit"]
    words = [*words, "--output", tmp_path / "out"]
    code, command = launch.run(*words)
    assert code == 0, command.text()
    (tmp_path / "out" / ".lock").touch()
    code, command = launch.run(*words, "--overwrite")
    assert code == 0, command.text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
