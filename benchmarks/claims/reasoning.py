"""Claims of gCOG (arXiv 2401.15030): what generalises to more objects, new pairs and deeper rules.

    python benchmarks/claims/reasoning.py PART --output DIR [--seeds 3] [--parameters 150000]
        [--steps N] [--rules official]

PART: `models` (five ways in which rule and scene meet, of one size, with 40 distractors),
`mechanisms` (every mechanism that the task takes, alike), `operators` (objects that operators were
not trained with, clean and leaky), `subtrees` (conditions with other endings, depth 3) or `depth`
(trained on depth 1 and 3, asked depth 5), the last two with and without the mask of the tree.

A row for each training: accuracy on each level of the test part with its 95 % interval by trial,
the best constant for each form of question (blind), weights and seconds. Trainings are runs below
DIR: the same command goes on where it stopped. DIR/PART.csv has the rows, DIR/curves.csv the
validation of each epoch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from headwise import pipelines
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line.where import answer, values_of

TRIALS = 40_000
BATCH = 128
STEPS = {"models": 3130, "mechanisms": 3130, "operators": 3130, "subtrees": 20_000, "depth": 20_000}
DEEP = {"layers": 3, "test_trials": 1000}
MASKS = {mask: {**DEEP, "mask": mask} for mask in ("all", "tree")}
Settings = Mapping[str, Mapping[str, object]]


def mechanisms() -> Settings:
    """The mechanisms that the task takes, in the cross network where they take a context."""
    task, settings = load_task("reasoning"), {}
    for name in values_of("attention"):
        taken = answer(task, "attention", name)
        if taken.taken:
            model = "single" if taken.further else "cross"
            settings[f"{name} ({model})"] = {"attention": name, "model": model}
    return settings


def settings_of(part: str) -> Settings:
    """Options of each training of a part, by name."""
    if part == "models":
        names = ("cross", "single", "double", "perceiver", "recurrent")
        return {name: {"model": name} for name in names}
    if part == "mechanisms":
        return mechanisms()
    if part == "operators":
        return {split: {"split": split} for split in ("operators", "operators-leaky")}
    return {f"mask {mask}": {**options, "split": part} for mask, options in MASKS.items()}


def trained(path: Path, options: Mapping[str, object]) -> float:
    """Train, or go on with a training that was stopped; seconds that it took here."""
    started = time.perf_counter()
    if not (path / "metrics.json").exists():
        resume = (path / "config.yaml").exists()
        pipelines.reasoning.train(run=path, resume=resume, choose="model", **options)
    return time.perf_counter() - started


def row_of(name: str, seed: int, path: Path, seconds: float) -> dict[str, object]:
    """The row of a training."""
    metrics = json.loads((path / "metrics.json").read_text())
    card = json.loads((path / "card.json").read_text())
    row: dict[str, object] = {"training": name, "seed": seed, "weights": card["parameters"]}
    for level, share in metrics["levels"].items():
        low, high = share["interval_95"]
        row[level] = (
            f"{share['accuracy']:.3f} ({low:.3f} to {high:.3f}; blind {share['blind']:.3f})"
        )
    looked = metrics["looked"]
    row["attention on asked"] = max((look["mass"] for look in looked.values()), default=None)
    return {**row, "seconds": round(seconds)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("part", choices=STEPS)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parameters", type=int, default=150_000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rules", default="repaired")
    parser.add_argument("--only", nargs="*", help="names of trainings; by default all of the part")
    arguments = parser.parse_args()
    home, steps = Path(arguments.output), arguments.steps or STEPS[arguments.part]
    home.mkdir(parents=True, exist_ok=True)
    epochs = max(1, round(steps * BATCH / TRIALS))
    common = {
        "parameters": arguments.parameters, "trials": min(TRIALS, steps * BATCH),
        "epochs": epochs, "patience": epochs, "batch_size": BATCH, "rules": arguments.rules,
        "warmup": min(1, epochs - 1),
    }  # fmt: skip
    rows, curves = [], []
    for name, options in settings_of(arguments.part).items():
        if arguments.only and name not in arguments.only:
            continue
        for seed in range(1, arguments.seeds + 1):
            path = home / f"{arguments.part}-{name.replace(' ', '-')}-{seed}"
            seconds = trained(path, {**common, **options, "seed": seed})
            rows.append(row_of(name, seed, path, seconds))
            history = pl.read_csv(path / "history.csv")
            curves.append(history.with_columns(training=pl.lit(name), seed=pl.lit(seed)))
            if len(rows) == 1:
                print_header(*rows[0])
            print_row(*rows[-1].values())
            pl.DataFrame(rows, infer_schema_length=None).write_csv(home / f"{arguments.part}.csv")
            pl.concat(curves, how="diagonal").write_csv(home / "curves.csv")


if __name__ == "__main__":
    main()
