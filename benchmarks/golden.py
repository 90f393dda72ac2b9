"""What every pipeline gives, to the last digit: recorded, recorded again, and compared.

    python benchmarks/golden.py record FOLDER           # ten minutes of one core; resumable
    python benchmarks/golden.py record FOLDER --only forecast wsi
    python benchmarks/golden.py compare BEFORE AFTER    # exit code 1 where anything differs
    python benchmarks/golden.py reopen BEFORE           # earlier runs by the present code

Everything goes through the command line, so that the same script serves before and after a change
of structure. FOLDER/runs holds what the commands wrote, FOLDER/records a JSON file for each:
options and metrics by value, tables by column, weights by tensor. Times, reports, cards,
environments and pictures that matplotlib draws are not compared.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from golden_files import Json, files_record, read_table
from golden_steps import INPUTS, REOPENED, STEPS, write_inputs


def output_files(folder: Path) -> dict[Path, int]:
    """The files that count below a folder, with the times of their last change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path: path.stat().st_mtime_ns
        for path in files
        if not {"checkpoints", "inputs"} & set(path.relative_to(folder).parts)
        and not path.name.startswith(".")
    }


def headwise(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line beside this Python, run in a folder on one thread."""
    command = [str(Path(sys.executable).with_name("headwise")), *words]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "100",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def option_record(help_text: str) -> Json:
    """Names and defaults of the options in a help text, whatever boxes and groups it has."""
    entries: list[str] = []
    for line in help_text.splitlines():
        text = line.strip("│ ")
        if re.match(r"[│ ]{1,4}(-\w, )?--\w", line):
            entries.append(text)
        elif entries and line.startswith(("│", " ")):
            entries[-1] += " " + text
    options: dict[str, Json] = {}
    for entry in entries:
        flag = re.match(r"(?:-\w, )?(--[\w-]+)", entry)
        default = re.search(r"\((?:default: ([^()]*)|(required))\)$", entry.strip())
        if flag and flag[1] != "--help":
            options[flag[1]] = "None" if default is None else (default[2] or default[1]).strip()
    return options


# How a default is shown in a box of the parser, and how in a page of plain text.
SAME_DEFAULT = {"True": "on", "False": "off", "None": "none", "": "none"}


def same_defaults(record: Json) -> Json:
    """A record of options with each default in one spelling."""
    if isinstance(record, dict):
        return {name: same_defaults(value) for name, value in record.items()}
    return SAME_DEFAULT.get(record, record) if isinstance(record, str) else record


def record_options(task: str, folder: Path) -> Json:
    """The verbs of a task, and the options of each with their defaults."""
    verbs = re.findall(r"^  ([a-z-]+)  ", headwise([task, "--help"], folder).stdout, re.MULTILINE)
    return {verb: option_record(headwise([task, verb, "--help"], folder).stdout) for verb in verbs}


def record_command(task: str, step: str, command: str, folder: Path) -> Json | None:
    """Run one command: its exit code and all files that it wrote or changed; None if it failed."""
    shutil.rmtree(folder / step, ignore_errors=True)  # what an interrupted recording left
    before = output_files(folder)
    finished = headwise([*([] if task == "core" else [task]), *shlex.split(command)], folder)
    if finished.returncode not in (0, 3):
        last_lines = finished.stderr.strip().splitlines()[-1:]
        print(f"{task} {step}: exit code {finished.returncode}: {last_lines}")
        return None
    if task == "core":
        lines = [" ".join(line.split()) for line in finished.stdout.splitlines()]
        return {"lines": dict.fromkeys(lines, "listed")}
    after = output_files(folder)
    written = [path for path, changed in after.items() if before.get(path) != changed]
    return {"exit code": finished.returncode, "files": files_record(written, folder)}


def record(home: Path, tasks: Sequence[str], steps: Sequence[str] = ()) -> bool:
    """Record every step that has no record yet; whether all of them worked."""
    complete = True
    for task in tasks:
        folder, records = home / "runs" / task, home / "records" / task
        for place in (folder, records):
            place.mkdir(parents=True, exist_ok=True)
        options = {} if task == "core" else {"options": ""}
        for step, command in (options | STEPS[task]).items():
            if (records / f"{step}.json").exists() or (steps and step not in steps):
                continue
            if INPUTS.get(task) == step:
                write_inputs(task, folder)
            begun = time.perf_counter()
            if step == "options":
                content = record_options(task, folder)
            else:
                content = record_command(task, step, command, folder)
            if content is None:
                complete = False
                continue
            text = json.dumps(content, indent=1, default=str).replace(str(folder), ".")
            (records / f"{step}.json").write_text(text + "\n")
            print(f"{task} {step}: recorded in {time.perf_counter() - begun:.0f} s", flush=True)
    return complete


def leaves(content: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value of a record with the path that leads to it, as exact text."""
    if isinstance(content, dict | list) and content:
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from leaves(value, f"{path} > {key}" if path else str(key))
    else:
        yield path, json.dumps(content)


def column_difference(before: Path, after: Path, column: str) -> str:
    """How many rows of a column differ, and by how much at most where it holds numbers."""
    old, new = read_table(before)[column].to_list(), read_table(after)[column].to_list()
    if len(old) != len(new):
        return f"{len(old)} rows -> {len(new)} rows"
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if repr(a) != repr(b)]
    try:
        gaps = np.array([np.abs(np.subtract(np.float64(a), np.float64(b))).max() for a, b in pairs])
        return f"{len(pairs)} of {len(old)} rows differ, by {gaps.max():.3g} at most"
    except (TypeError, ValueError):
        return f"{len(pairs)} of {len(old)} rows differ, first {pairs[:1]}"


def differences(before: Path, after: Path, task: str, step: str) -> list[str]:
    """The lines that say how two records of a step differ; no lines: they are equal."""
    paths = [home / "records" / task / f"{step}.json" for home in (before, after)]
    if missing := [str(path) for path in paths if not path.exists()]:
        return [f"not recorded: {' '.join(missing)}"]
    records = [json.loads(path.read_text()) for path in paths]
    if step == "options":
        records = [same_defaults(entry) for entry in records]
    old, new = (dict(leaves(entry)) for entry in records)
    lines = []
    for path in [key for key in old | new if old.get(key) != new.get(key)]:
        lines.append(f"{path}: {old.get(path, 'missing')} -> {new.get(path, 'missing')}")
        if path in old and path in new and " > columns > " in path:
            file, column = path.removeprefix("files > ").split(" > columns > ")
            tables = [home / "runs" / task / file for home in (before, after)]
            lines[-1] = (
                f"{file}, column {column}: {column_difference(tables[0], tables[1], column)}"
            )
    return lines


def compare(before: Path, after: Path, tasks: Sequence[str], steps: Sequence[str] = ()) -> bool:
    """Print for each step whether it is equal, and every difference; whether all are equal."""
    equal = True
    for task in tasks:
        for step in [*([] if task == "core" else ["options"]), *STEPS[task]]:
            if steps and step not in steps:
                continue
            lines = differences(before, after, task, step)
            print(f"{task} {step}: {'equal' if not lines else f'{len(lines)} differences'}")
            print("".join(f"  {line}\n" for line in lines), end="")
            equal = equal and not lines
    return equal


def reopen(before: Path, tasks: Sequence[str]) -> bool:
    """Score and use copies of earlier runs by the present code; whether all is as recorded."""
    home = before / "reopened"
    for task in tasks:
        shutil.rmtree(home / "runs" / task, ignore_errors=True)
        shutil.rmtree(home / "records" / task, ignore_errors=True)
        shutil.copytree(before / "runs" / task / "train", home / "runs" / task / "train")
    worked = record(home, tasks, REOPENED)
    return compare(before, home, tasks, REOPENED) and worked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("record", "compare", "reopen"))
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(STEPS), default=tuple(STEPS), help="tasks"
    )
    arguments = parser.parse_args()
    folders = [folder.resolve() for folder in arguments.folders]
    if len(folders) != (2 if arguments.what == "compare" else 1):
        parser.error("compare takes two folders, record and reopen take one")
    if arguments.what == "record":
        succeeded = record(folders[0], arguments.only)
    elif arguments.what == "compare":
        succeeded = compare(folders[0], folders[1], arguments.only)
    else:
        succeeded = reopen(folders[0], [task for task in arguments.only if task != "core"])
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
