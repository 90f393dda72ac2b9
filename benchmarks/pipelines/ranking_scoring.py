"""Scoring a large table of generated rows, parquet to parquet: `headwise ranking predict` beside
FuxiCTR.

    python benchmarks/pipelines/ranking_scoring.py --fuxictr fuxictr/bin/python [--rows 5000000] [--folder
    DIR]

--fuxictr: the interpreter of an environment that holds FuxiCTR (see benchmarks/pipelines/fuxictr_scoring.py).
Both sides get the same table, score two tasks with a shared-bottom network of the same sizes
(embeddings of 16, 256 and 128, towers of 64), and are timed from the start of their process to the
written file. Ours takes numbers as buckets, FuxiCTR's as weighted embeddings. The two run in turn,
--repeats times; the fastest of each counts. Peak memory is that of the process; FuxiCTR's runs
inside its one process with --workers 0."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from headwise.benchmarks.measure import print_row

HERE = Path(__file__).parent
SCHEMA = {
    "user": "user_id",
    "item": "item_id",
    "time": {"column": "time", "unit": "s"},
    "categorical": {name: {} for name in ("user_id", "item_id", *(f"c{i}" for i in range(12)))},
    "numeric": {f"n{i}": {"buckets": 20} for i in range(6)},
    "tasks": {"click": "click", "like": "like"},
    "split": {"by": "random"},
}
OPTIONS = [
    "--model",
    "shared-bottom",
    "--width",
    "16",
    "--hidden",
    "256",
    "128",
    "--towers",
    "64",
    "--dropout",
    "0",
]


def timed(words: list[str]) -> tuple[float, float, str]:
    """Seconds, peak MiB of the process, and what it said."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr, sep='\\n')\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
        "sys.exit(done.returncode)\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        raise SystemExit("\n".join([" ".join(words), *lines[-15:], done.stderr]))
    return seconds, float(lines[-1]), "\n".join(lines[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--fuxictr", help="interpreter of an environment with FuxiCTR; without it ours runs alone"
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=Path("ranking-scoring"))
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    folder, rival = (
        asked.folder,
        [asked.fuxictr or sys.executable, str(HERE / "fuxictr_scoring.py")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, seed in (("train", 200_000, 1), ("rows", asked.rows, 2)):
        if not (folder / f"{name}.parquet").exists():
            timed(
                [
                    *rival,
                    "generate",
                    str(folder / f"{name}.parquet"),
                    "--rows",
                    str(rows),
                    "--seed",
                    str(seed),
                ]
            )
    headwise = [sys.executable, "-m", "headwise.pipelines.engine", "ranking"]
    (folder / "train.yaml").write_text(json.dumps(SCHEMA))  # JSON is YAML
    if not (folder / "run" / "report.html").exists():
        timed(
            [
                *headwise,
                "train",
                "--data",
                str(folder / "train.parquet"),
                "--run",
                str(folder / "run"),
                "--max-steps",
                "20",
                *OPTIONS,
            ]
        )
    if asked.fuxictr and not (folder / "home").exists():
        timed([*rival, "prepare", str(folder / "train.parquet"), str(folder / "home")])
    table = str(folder / "rows.parquet")
    ways = {
        "headwise": [
            *headwise,
            "predict",
            "--run",
            str(folder / "run"),
            "--input",
            table,
            "--overwrite",
            "--output",
            str(folder / "ours.parquet"),
        ]
    }
    if asked.fuxictr:
        for way in ("direct", "blocks"):
            ways[f"FuxiCTR {way}"] = [
                *rival,
                "score",
                table,
                str(folder / "home"),
                str(folder / f"{way}.parquet"),
                "--way",
                way,
                "--batch",
                "50000",
                "--workers",
                "0",
            ]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(asked.repeats):
        for name, words in ways.items():
            (folder / "ours.parquet").unlink(missing_ok=True)
            found[name].append(timed(words)[:2])
            print(f"{name}: {found[name][-1][0]:.1f} s", flush=True)
    base = min(found["headwise"])[0]
    print("\n| | seconds | rows/s | against ours | peak MiB of a process |\n|---|---|---|---|---|")
    for name, runs in found.items():
        seconds = min(runs)[0]
        print_row(
            name,
            f"{seconds:.1f}",
            f"{asked.rows / seconds:,.0f}",
            f"{seconds / base:.2f}x",
            f"{max((memory for _, memory in runs)):,.0f}",
        )


if __name__ == "__main__":
    main()
