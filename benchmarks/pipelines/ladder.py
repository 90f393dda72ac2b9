"""Train a task with several seeds and print what each rung of its ladder scores on the test part.

    python benchmarks/pipelines/ladder.py forecast --seeds 3 --vary horizon=96,192,336,720 \\
        --output runs/benchmarks/ladder-etth1 -- --data DATA/ETTh1.csv.gz --preset etth1

What follows `--` are options of `headwise TASK train`. Each run is an ordinary one; finished runs
are kept, so that the command goes on where it stopped. The table is printed and written to
OUTPUT/table.md: means over seeds, and what was chosen in each run; the seconds of the rungs and of
the training go to the terminal.
"""

import argparse
import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from headwise.benchmarks.measure import table_header, table_row
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.training.jobs import train

RUNGS = ("naive", "simple", "model", "blend")
SPENT = ("rungs", "training")


def finished(task_name: str, path: Path, words: Sequence[str]) -> dict[str, dict]:
    """The metrics and the ladder of a run, trained only if it is not finished."""
    if not (path / "report.html").exists():
        task = load_task(task_name)
        resume = ["--resume"] if (path / "config.yaml").exists() else []
        train(task.load(), parse(task, "train", [*words, "--run", str(path), *resume]))
    with (path / "history.csv").open() as file:
        rows = [(int(row["step"]), float(row["steps_per_second"])) for row in csv.DictReader(file)]
    steps = np.diff([0, *(step for step, _ in rows)])
    return {
        "metrics": json.loads((path / "metrics.json").read_text())["ladder"],
        "seconds": {
            "training": float((steps / [rate for _, rate in rows]).sum()),
            "rungs": sum(json.loads((path / "ladder" / "seconds.json").read_text()).values()),
        },
    }


def row_of(runs: Sequence[dict[str, dict]], score: str) -> list[str]:
    """Means over seeds of a score of each rung and of what was chosen, and what that was."""
    values = {
        rung: [
            run["metrics"]["rungs"][rung][score] for run in runs if rung in run["metrics"]["rungs"]
        ]
        for rung in RUNGS
    }
    chosen = [run["metrics"]["rungs"][run["metrics"]["chosen"]][score] for run in runs]
    names = [run["metrics"]["chosen"] for run in runs]
    cells = [f"{np.mean(values[rung]):.3f}" if values[rung] else "–" for rung in RUNGS]
    deviation = f" ± {np.std(chosen):.3f}" if len(runs) > 1 else ""
    choices = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return [*cells, f"**{np.mean(chosen):.3f}**{deviation}", choices]


def main() -> None:
    before, _, further = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--vary", help="an option and its values, such as horizon=96,192")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(before.split())
    option, _, values = (arguments.vary or "").partition("=")
    lines, home = [], Path(os.path.abspath(arguments.output))
    for value in values.split(","):
        words = [*further.split(), *([f"--{option}", value] if option else [])]
        runs = []
        for seed in range(2021, 2021 + arguments.seeds):
            path = home / f"{value or 'run'}-seed{seed}"
            runs.append(finished(arguments.task, path, [*words, "--seed", str(seed)]))
        first = runs[0]["metrics"]["rungs"]["model"]
        scores = [name for name in first if isinstance(first[name], float)]
        scores = [name for name in scores if not name.startswith("gain")]
        if not lines:
            lines.append(table_header(option or "score", "score", *RUNGS, "chosen", "what it is"))
        for score in scores:
            lines.append(table_row(value or arguments.task, score, *row_of(runs, score)))
        spent = {part: np.mean([run["seconds"][part] for run in runs]) for part in SPENT}
        print(
            f"{value}: fitting the rungs took {spent['rungs']:.0f} s, "
            f"the training {spent['training']:.0f} s",
            file=sys.stderr,
        )
    (home / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
