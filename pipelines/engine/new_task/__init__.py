"""`headwise new-task NAME`: a working task in the form of all others, to be filled.

The skeleton predicts the last column of a table from the others. It trains, evaluates, predicts and
exports as it is, and passes the contract of all tasks.
"""

from __future__ import annotations

import dataclasses
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ....base.errors import InputError
from ..command_line import PLAIN
from ..compare_options import ComparisonOptions
from ..options import EvaluateOptions, ExportOptions, LadderOptions, PredictOptions
from ..tune_options import TuneOptions

SKELETON = Path(__file__).parent / "skeleton"


def new_task(name: str, root: Path) -> list[Path]:
    """Write the files of a new task into a source checkout; returns them.

    name: lower-case letters, digits and underscores. root: the folder of the checkout. Raises
    `InputError` for a name that cannot be used, and where no checkout is.
    """
    reserved = (*PLAIN, "engine", "metrics", "figures")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or name in reserved:
        raise InputError(
            f"new-task {name}: is no name for a task; use lower-case letters, such as `grading`"
        )
    library, tests = root / "pipelines" / name, root / "tests" / "pipelines" / name
    if not (root / "tests" / "contract").is_dir() or not SKELETON.is_dir():
        raise InputError("new-task: works in a source checkout; clone the repository first")
    for folder in (library, tests):
        if folder.exists():
            raise InputError(f"{folder}: exists already; choose another name")
    written = [_write(template, library, name) for template in sorted(SKELETON.glob("*.txt"))]
    written += [_write(template, tests, name) for template in SKELETON.glob("tests/*.txt")]
    pinned = tests / "options.json"
    pinned.write_text(pinned_options(_options()), encoding="utf-8")
    return [*written, pinned]


def _write(template: Path, folder: Path, name: str) -> Path:
    title = "".join(part.title() for part in name.split("_"))
    text = template.read_text(encoding="utf-8")
    for word, value in {"Skeleton": title, "skeleton": name}.items():
        text = text.replace(word, value)
    path = folder / template.name.removesuffix(".txt").replace("skeleton", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def pinned_options(options: Mapping[str, Sequence[str]]) -> str:
    """The text of tests/pipelines/TASK/options.json: the options of each verb, a line for each."""
    lines = [f" {json.dumps(verb)}: {json.dumps(list(names))}" for verb, names in options.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _options() -> dict[str, list[str]]:
    """The options of the skeleton's verbs."""

    def names(options: type) -> list[str]:
        return [field.name for field in dataclasses.fields(options)]

    train = [*names(LadderOptions), "hidden", "validation_share", "test_share"]
    return {
        "train": train,
        "evaluate": names(EvaluateOptions),
        "predict": names(PredictOptions),
        "export": names(ExportOptions),
        "tune": [*train, *names(TuneOptions)],
        "compare": [*train, *names(ComparisonOptions)],
    }
