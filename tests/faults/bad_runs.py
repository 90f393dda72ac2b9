"""Bad runs, inputs and outputs for evaluate, predict, backtest, export and --resume.

Each case: a maker that spoils the folder, in which stands `run`, a finished run of the columns a
and b; the command; the words of the message; the exit code (3: done, and the broken item is a row
of the output)."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from headwise.tests.faults.bad_data import table, wide, without
from headwise.tests.hostile import HEADERS, Bomb

EVALUATE, BACKTEST = "forecast evaluate --run run", "forecast backtest --run run"
EXPORT, RESUME = "forecast export --run run --output m.pt2", "forecast train --run run --resume"
PREDICT = "forecast predict --run run --input x.csv --output o.parquet"
Maker = Callable[[Path], object]


def nothing(folder: Path) -> None:
    pass


def put(name: str, content: str | bytes = "") -> Maker:
    """A maker that writes a file."""
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def x(content: str) -> Maker:
    return put("x.csv", content)


def gone(name: str) -> Maker:
    return lambda folder: (folder / name).unlink()


def no_run(folder: Path) -> None:
    shutil.rmtree(folder / "run")


def emptied_run(folder: Path) -> None:
    no_run(folder)
    (folder / "run").mkdir()


def run_is_a_file(folder: Path) -> None:
    no_run(folder)
    (folder / "run").write_text("a file")


def edit(name: str, **values: Any) -> Maker:
    """A maker that changes values of a JSON file; None takes one out."""

    def make(folder: Path) -> None:
        content = {**json.loads((folder / name).read_text()), **values}
        removed = {key for key, value in values.items() if value is None}
        present = {key: value for key, value in content.items() if key not in removed}
        (folder / name).write_text(json.dumps(present))
        x(wide())(folder)

    return make


def replaced(name: str, old: str, new: str) -> Maker:
    def make(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
        x(wide())(folder)

    return make


def weights(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], name: str = "model"
) -> Maker:
    def make(folder: Path) -> None:
        path = folder / "run" / f"{name}.safetensors"
        save_file(change(load_file(path)), path)
        x(wide())(folder)

    return make


def pickled(folder: Path) -> None:
    """What torch.load would execute."""
    torch.save({"weights": Bomb("unpickled")}, folder / "run" / "model.safetensors")
    x(wide())(folder)


def hostile(what: str) -> Maker:
    def make(folder: Path) -> None:
        (folder / "run" / "model.safetensors").write_bytes(HEADERS[what])
        x(wide())(folder)

    return make


def columns(*names: str) -> str:
    """A sound table with other names in place of a and b."""
    return "\n".join(
        [
            ",".join(("date", *names)),
            *(",".join(row[:1] + ["1.5"] * len(names)) for row in table(60)[1:]),
        ]
    )


def pipe(name: str) -> Maker:
    """A maker that puts a pipe, which never ends, in the place of a file."""

    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)
        x(wide())(folder)

    return make


def option(name: str, value: object) -> Maker:
    """A maker that changes an option of the run."""

    def make(folder: Path) -> None:
        path = folder / "run" / "config.yaml"
        text, count = re.subn(rf"(?m)^{name}: .*", f"{name}: {value}", path.read_text())
        assert count == 1
        path.write_text(text)
        x(wide())(folder)

    return make


def linked_checkpoints(folder: Path) -> None:
    """A folder of the run that leads to what is not the run's."""
    (folder / "run" / "checkpoints").rename(folder / "mine")
    (folder / "mine" / ".step-000000001.aside").mkdir()
    (folder / "run" / "checkpoints").symlink_to(folder / "mine")


def of_another_run(folder: Path) -> None:
    x(wide())(folder)
    put("o.parquet", "not by this run")(folder)


def parts_of_another_run(folder: Path) -> None:
    x(wide())(folder)
    (folder / "o.parquet.parts").mkdir()
    put("o.parquet.parts/plan.json", '{"fingerprint": "0"}')(folder)


def damaged_plan(folder: Path) -> None:
    parts_of_another_run(folder)
    put("o.parquet.parts/plan.json", "[]")(folder)


def directories(*names: str) -> Maker:
    def make(folder: Path) -> None:
        x(wide())(folder)
        for name in names:
            (folder / name).mkdir()

    return make


RUNS: dict[str, tuple[Maker, str, str, int]] = {
    "no run": (no_run, EVALUATE, r"^run: no such run directory", 2),
    "no run, predict": (no_run, PREDICT, r"^run: no such run directory", 2),
    "a file as run": (run_is_a_file, EVALUATE, r"^run: no such run directory", 2),
    "a file as new run": (
        run_is_a_file,
        "forecast train --run run",
        r"^run: is a file, not a run directory",
        2,
    ),
    "not a run": (emptied_run, EVALUATE, r"^run: not a run \(it has no config\.yaml\)", 2),
    "new run below a file": (
        x(wide()),
        "forecast train --run x.csv/run",
        r"^x\.csv/run: Not a directory",
        2,
    ),
    "not empty": (
        lambda f: (emptied_run(f), put("run/notes.txt", "mine")(f)),
        "forecast train --run run",
        r"^run: is not empty; choose another --run",
        2,
    ),
    "a run already": (
        nothing,
        "forecast train --run run",
        r"^run: already holds a run; continue it with --resume",
        2,
    ),
    "unfinished": (
        gone("run/model.safetensors"),
        EVALUATE,
        r"^run/model\.safetensors: missing; the run has not finished",
        2,
    ),
    "unfinished, predict": (
        lambda f: (gone("run/model.safetensors")(f), x(wide())(f)),
        PREDICT,
        r"^run/model\.safetensors: missing; the run has not finished",
        2,
    ),
    "unfinished, export": (
        gone("run/model.safetensors"),
        EXPORT,
        r"^run/model\.safetensors: missing; the run has not finished",
        2,
    ),
    "unfinished, backtest": (
        gone("run/model.safetensors"),
        BACKTEST,
        r"^run/model\.safetensors: missing; the run has not finished",
        2,
    ),
    "not calibrated": (
        gone("run/calibration.safetensors"),
        EVALUATE,
        r"^run/calibration\.safetensors: missing",
        2,
    ),
    "calibration of another kind": (
        weights(lambda w: {"edges": w["radius"]}, "calibration"),
        PREDICT,
        r"^run: calibration\.safetensors holds intervals of shape None, the run needs \(2, 4, 2\)",
        2,
    ),
    "calibration of other sizes": (
        weights(lambda w: {**w, "radius": w["radius"][:1, :2].clone()}, "calibration"),
        PREDICT,
        r"^run: calibration\.safetensors holds intervals of shape \(1, 2, 2\), "
        r"the run needs \(2, 4, 2\)",
        2,
    ),
    "config.yaml cut": (
        put("run/config.yaml", "data: [x.csv\nhori"),
        EVALUATE,
        r"^run/config\.yaml: not readable as YAML",
        2,
    ),
    "config.yaml empty": (
        put("run/config.yaml", "- 1\n"),
        EVALUATE,
        r"^run/config\.yaml: should hold options",
        2,
    ),
    "config.yaml with an unknown option": (
        replaced("run/config.yaml", "horizon:", "horizont:"),
        EVALUATE,
        r"^run/config\.yaml: no option 'horizont'; did you mean horizon\?",
        2,
    ),
    "config.yaml out of range": (
        replaced("run/config.yaml", "dropout: 0.0", "dropout: 7"),
        PREDICT,
        r"^run/config\.yaml: --dropout 7\.0: must be in",
        2,
    ),
    "config.yaml of another type": (
        replaced("run/config.yaml", "width: 8", "width: wide"),
        PREDICT,
        r"^run/config\.yaml: .*--width needs a whole number, got 'wide'",
        2,
    ),
    "config.yaml of another width": (
        replaced("run/config.yaml", "width: 8", "width: 16"),
        PREDICT,
        r"^run/model\.safetensors: weights of another model",
        2,
    ),
    "spec.json missing": (
        gone("run/spec.json"),
        EVALUATE,
        r"^run/spec\.json: missing; is run a finished run\?",
        2,
    ),
    "spec.json cut": (
        put("run/spec.json", '{"layout": "wi'),
        EVALUATE,
        r"^run/spec\.json: not readable as JSON",
        2,
    ),
    "spec.json of binary": (
        put("run/spec.json", b"\xff\xfe\x00"),
        EVALUATE,
        r"^run/spec\.json: not readable as JSON",
        2,
    ),
    "spec.json deep": (
        put("run/spec.json", "[" * 100_000),
        EVALUATE,
        r"^run/spec\.json: not readable as JSON",
        2,
    ),
    "spec.json a list": (
        put("run/spec.json", "[]"),
        EVALUATE,
        r"^run/spec\.json: should hold named values",
        2,
    ),
    "spec.json without columns": (
        edit("run/spec.json", known=None),
        EVALUATE,
        r"^run/spec\.json: holds no 'known'",
        2,
    ),
    "spec.json without reading": (
        edit("run/spec.json", reading=None),
        PREDICT,
        r"^run/spec\.json: holds no 'reading'",
        2,
    ),
    "spec.json without a scaler": (
        lambda f: (
            x(wide())(f),
            (p := f / "run/spec.json").write_text(p.read_text().replace('"scaler"', '"scalar"')),
        ),
        PREDICT,
        r"^run/spec\.json: holds no 'scaler'",
        2,
    ),
    "spec.json of a damaged scaler": (
        edit("run/spec.json", scaler={"mean": [1, 2], "std": [0, 1]}),
        EVALUATE,
        r"^run: scaler: 'mean' and 'std' must be finite",
        2,
    ),
    "spec.json of another scaler": (
        edit("run/spec.json", scaler={"mean": [1.0], "std": [1.0]}),
        PREDICT,
        r"^run: the scaler in spec\.json is not of 2 channels",
        2,
    ),
    **{
        f"spec.json: {name} {value!r}": (
            edit("run/spec.json", **{name: value}),
            PREDICT,
            rf"^run/spec\.json: {name}(\[\d\])? is .*; the file is damaged",
            2,
        )
        for name, value in {
            "assets": [1],
            "channels": [None],
            "known": "a",
            "lookback": -1,
            "horizon": 10**30,
            "levels": [math.inf],
            "marks": 1,
            "reading": [],
        }.items()
    },
    "spec.json with a number of 5,000 digits": (
        put("run/spec.json", '{"lookback": 1' + "0" * 5000 + "}"),
        EVALUATE,
        r"^run/spec\.json: not readable as JSON",
        2,
    ),
    **{
        f"config.yaml: {name} {value}": (
            option(name, value),
            PREDICT,
            r"^run/model\.safetensors: weights of another model|"
            r"^run: no model can be made of its config\.yaml and spec\.json",
            2,
        )
        for name, value in {"layers": 10**6, "width": 10**6}.items()
    },
    "spec.json: look-back of 10^12 rows": (
        edit("run/spec.json", lookback=10**12),
        PREDICT,
        r"^run/model\.safetensors: weights of another model|"
        r"^run: no model can be made of its config\.yaml and spec\.json",
        2,
    ),
    "config.yaml of merge keys": (
        put("run/config.yaml", "a: &a {<<: *a}\n"),
        EVALUATE,
        r"^run/config\.yaml: not readable as YAML: line 1: merge keys",
        2,
    ),
    **{
        f"a pipe as {name}": (pipe(f"run/{name}"), EVALUATE, message, 2)
        for name, message in {
            "config.yaml": r"^run: not a run",
            "spec.json": r"^run/spec\.json: is not a plain file",
            "model.safetensors": r"^run/model\.safetensors: is not a plain file",
        }.items()
    },
    "a link as folder of checkpoints": (
        linked_checkpoints,
        RESUME,
        r"^run/checkpoints: is a link; put the folder itself there",
        2,
    ),
    "environment.json missing": (
        gone("run/environment.json"),
        EVALUATE,
        r"^run/environment\.json: missing",
        2,
    ),
    "environment.json cut": (
        put("run/environment.json", "{"),
        EVALUATE,
        r"^run/environment\.json: not readable as JSON",
        2,
    ),
    "environment.json a number": (
        put("run/environment.json", "3"),
        EVALUATE,
        r"^run/environment\.json: should hold named values",
        2,
    ),
    "run of another task": (
        edit("run/environment.json", task="segment"),
        EVALUATE,
        r"^run: a run of the task 'segment', not of 'forecast'",
        2,
    ),
    "weights of other shapes": (
        weights(lambda w: {k: v[..., :3].clone() for k, v in w.items()}),
        EVALUATE,
        r"^run/model\.safetensors: weights of another model: .*size mismatch",
        2,
    ),
    "weights missing in part": (
        weights(lambda w: dict(list(w.items())[1:])),
        EXPORT,
        r"^run/model\.safetensors: weights of another model: .*Missing key",
        2,
    ),
    "weights of other names": (
        weights(lambda w: {f"module.{k}": v for k, v in w.items()}),
        PREDICT,
        r"^run/model\.safetensors: weights of another model",
        2,
    ),
    "a pickle by torch.save": (
        pickled,
        EVALUATE,
        r"^run/model\.safetensors: not a readable safetensors file",
        2,
    ),
    "a pickle by torch.save, predict": (
        pickled,
        PREDICT,
        r"^run/model\.safetensors: not a readable safetensors file",
        2,
    ),
    "a pickle by torch.save, two processes": (
        pickled,
        f"{PREDICT} --processes 2",
        r"^run/model\.safetensors: not a readable safetensors file",
        2,
    ),
    "a pickle by torch.save, export": (
        pickled,
        EXPORT,
        r"^run/model\.safetensors: not a readable safetensors file",
        2,
    ),
    **{
        f"weights: {what}": (
            hostile(what),
            PREDICT,
            r"^run/model\.safetensors: not a readable safetensors file",
            2,
        )
        for what in HEADERS
    },
    "cuda where there is none": (
        x(wide()),
        f"{PREDICT} --accelerator cuda",
        r"^--accelerator cuda: this machine has no usable one",
        2,
    ),
    "cuda where there is none, train": (
        nothing,
        "forecast train --run new --accelerator cuda",
        r"^--accelerator cuda, .*: cannot be used here \(",
        2,
    ),
    "mps where there is none": (
        nothing,
        f"{EVALUATE} --accelerator mps",
        r"^--accelerator mps: this machine has no usable one",
        2,
    ),
    "input missing": (nothing, PREDICT, r"^x\.csv: there is no such file", 2),
    "input an empty folder": (
        directories("in"),
        "forecast predict --run run --input in --output o.parquet",
        r"^in: there is no file of a kind that headwise reads",
        2,
    ),
    "pattern without a match": (
        nothing,
        "forecast predict --run run --input in/*.csv --output o.parquet",
        r"^in/\*\.csv: there is no file of a kind",
        2,
    ),
    "input of another kind": (
        put("x.txt.doc", "a"),
        "forecast predict --run run --input x.txt.doc --output o.parquet",
        r"^x\.txt\.doc: unknown kind of file '\.doc'",
        2,
    ),
    "input empty": (x(""), PREDICT, r"^x\.csv: is empty", 2),
    "input of other columns": (
        x(columns("a", "c")),
        PREDICT,
        r"x\.csv: there is no column 'b'; it has 'date', 'a', 'c'",
        3,
    ),
    "input of another frequency": (
        x("\n".join(map(",".join, table(60, "daily")))),
        PREDICT,
        r"x\.csv: .*steps of 1h are missing",
        3,
    ),
    "input of too few rows": (
        x(wide(7)),
        PREDICT,
        r"x\.csv: .*has 7 rows, but the look-back of the model needs 8",
        3,
    ),
    "input with text": (
        x(wide(a3="oops")),
        PREDICT,
        r"x\.csv: .*'a', row 4 .*'oops', not a number",
        3,
    ),
    "input with too large a number": (
        x(wide(a55="1e300")),
        PREDICT,
        r"x\.csv: .*holds 1e\+300 at 2024-01-03 07:00:00, too large",
        3,
    ),
    "output a directory": (
        directories("o.parquet"),
        PREDICT,
        r"^o\.parquet: is a directory; --output names",
        2,
    ),
    "output below a file": (
        lambda f: (x(wide())(f), put("o.parquet", "")(f)),
        PREDICT.replace("o.parquet", "o.parquet/p.parquet"),
        r"^o\.parquet/p\.parquet\S*: cannot be written \(.*(Not a directory|File exists)",
        2,
    ),
    "output of another run": (
        of_another_run,
        PREDICT,
        r"^o\.parquet: already exists, made by another model or input",
        2,
    ),
    "parts of another run": (
        parts_of_another_run,
        PREDICT,
        r"^o\.parquet\.parts: parts made by another model",
        2,
    ),
    "parts with a damaged plan": (
        damaged_plan,
        PREDICT,
        r"^o\.parquet\.parts/plan\.json: should hold named values",
        2,
    ),
    "evaluate: data missing": (
        nothing,
        f"{EVALUATE} --data x.csv",
        r"^x\.csv: there is no such file",
        2,
    ),
    "evaluate: other channels": (
        x(columns("a", "c")),
        f"{EVALUATE} --data x.csv",
        r"^x\.csv: there is no column 'b'",
        2,
    ),
    "evaluate: another frequency": (
        x("\n".join(map(",".join, table(60, "daily")))),
        f"{EVALUATE} --data x.csv",
        r"^x\.csv: a step is 1d, but the run was trained on steps of 1h",
        2,
    ),
    "evaluate: too short": (
        x(wide(11)),
        f"{EVALUATE} --data x.csv",
        r"x\.csv: .*11 rows, but one window needs look-back 8 \+ horizon 4",
        2,
    ),
    "evaluate: missing steps": (
        x(without(wide(), 30)),
        f"{EVALUATE} --data x.csv",
        r"^x\.csv: 1 of 60 steps of 1h are missing",
        2,
    ),
    "evaluate: part of nothing": (
        nothing,
        f"{EVALUATE} --part tets",
        r"invalid choice 'tets' for argument '--part'",
        2,
    ),
    "backtest: data missing": (
        nothing,
        f"{BACKTEST} --data x.csv",
        r"^x\.csv: there is no such file",
        2,
    ),
    "backtest: too short": (
        x(wide(11)),
        f"{BACKTEST} --data x.csv",
        r"x\.csv: .*11 rows, but one window needs",
        2,
    ),
    "export: to a directory": (
        directories("m.pt2"),
        EXPORT,
        r"^m\.pt2: is a directory; --output names",
        2,
    ),
    "export: below a file": (
        put("m.pt2", ""),
        EXPORT.replace("m.pt2", "m.pt2/p.pt2"),
        r"^m\.pt2/p\.pt2: cannot be written \(.*(Not a directory|File exists)",
        2,
    ),
    "export: another suffix": (
        nothing,
        EXPORT.replace("m.pt2", "m.bin"),
        r"^m\.bin: --output must end in \.pt2 .* or \.onnx",
        2,
    ),
    "export: no suffix": (
        nothing,
        EXPORT.replace("m.pt2", "m"),
        r"^m: --output must end in \.pt2 .* or \.onnx",
        2,
    ),
    "export: to a directory, ONNX": (
        directories("m.onnx"),
        EXPORT.replace("m.pt2", "m.onnx"),
        r"^m\.onnx: is a directory; --output names",
        2,
    ),
    "export: below a file, ONNX": (
        put("m.onnx", ""),
        EXPORT.replace("m.pt2", "m.onnx/p.onnx"),
        r"^m\.onnx/p\.onnx: (cannot be written \(.*(Not a directory|File exists)|"
        r"--output \.onnx: .* not installed)",
        2,
    ),
    "resume of no run": (emptied_run, RESUME, r"^run: no run to resume", 2),
    "resume of a run of another task": (
        edit("run/environment.json", task="segment"),
        RESUME,
        r"^run: a run of the task 'segment'",
        2,
    ),
    "resume with other options": (
        nothing,
        f"{RESUME} --lr 0.5",
        r"^run: cannot resume with other options: lr was 0\.0003, now 0\.5",
        2,
    ),
    "resume with a damaged config.yaml": (
        put("run/config.yaml", "{"),
        RESUME,
        r"^run/config\.yaml: not readable as YAML",
        2,
    ),
    "resume with a damaged spec.json": (
        put("run/spec.json", "{"),
        RESUME,
        r"^run/spec\.json: not readable as JSON",
        2,
    ),
}
