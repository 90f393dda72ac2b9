"""Scoring a large table of generated rows, parquet to parquet: `headwise ranking predict` compared
with FuxiCTR.

    python benchmarks/pipelines/ranking_scoring.py --fuxictr fuxictr/bin/python \\
        [--rows 5000000] [--folder DIR]

--fuxictr: the interpreter of an environment with FuxiCTR (see fuxictr_scoring.py). Both sides get
the same table, score two tasks with a shared-bottom network of the same sizes (embeddings of 16,
256 and 128, towers of 64), and are timed from the start of their process to the written file. Ours
takes numbers as buckets, FuxiCTR's as weighted embeddings. The two run in turn, --repeats times;
the fastest of each counts. Peak memory is that of the process; FuxiCTR's runs inside its one
process with --workers 0.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from headwise.benchmarks.measure import Case, LeftOut, Size, parser_of, print_header, print_row

HERE = Path(__file__).parent
HEADWISE = [sys.executable, "-m", "headwise.pipelines.engine", "ranking"]
SCHEMA = {
    "user": "user_id",
    "item": "item_id",
    "time": {"column": "time", "unit": "s"},
    "categorical": {name: {} for name in ("user_id", "item_id", *(f"c{i}" for i in range(12)))},
    "numeric": {f"n{i}": {"buckets": 20} for i in range(6)},
    "tasks": {"click": "click", "like": "like"},
    "split": {"by": "random"},
}
OPTIONS = shlex.split("--model shared-bottom --width 16 --hidden 256 128 --towers 64 --dropout 0")


def timed(words: list[str]) -> tuple[float, float, str]:
    """Seconds, peak MiB of the process, and its output."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr, sep='\\n')\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
        "sys.exit(done.returncode)\n"
    )
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    lines = finished.stdout.strip().splitlines()
    if finished.returncode:
        raise SystemExit("\n".join([" ".join(words), *lines[-15:], finished.stderr]))
    return seconds, float(lines[-1]), "\n".join(lines[:-1])


def prepare(folder: Path, rows: int, rival: list[str], with_rival: bool) -> None:
    """Generate the tables and train the models that do not exist yet."""
    train = str(folder / "train.parquet")
    for name, count, seed in (("train", 200_000, 1), ("rows", rows, 2)):
        path = folder / f"{name}.parquet"
        if not path.exists():
            timed([*rival, "generate", str(path), "--rows", str(count), "--seed", str(seed)])
    (folder / "train.yaml").write_text(json.dumps(SCHEMA))  # JSON is YAML
    if not (folder / "run" / "report.html").exists():
        run = ["--run", str(folder / "run"), "--max-steps", "20"]
        timed([*HEADWISE, "train", "--data", train, *run, *OPTIONS])
    if with_rival and not (folder / "home").exists():
        timed([*rival, "prepare", train, str(folder / "home")])


def scoring_commands(folder: Path, rival: list[str], with_rival: bool) -> dict[str, list[str]]:
    """The command of each way to score the table."""
    table, ours = str(folder / "rows.parquet"), str(folder / "ours.parquet")
    run = ["--run", str(folder / "run"), "--input", table]
    ways = {"headwise": [*HEADWISE, "predict", *run, "--overwrite", "--output", ours]}
    for way in ("direct", "blocks") if with_rival else ():
        files = [table, str(folder / "home"), str(folder / f"{way}.parquet")]
        options = ["--way", way, "--batch", "50000", "--workers", "0"]
        ways[f"FuxiCTR {way}"] = [*rival, "score", *files, *options]
    return ways


def cases(size: Size) -> Iterator[Case | LeftOut]:
    """Scoring of a smaller table; FUXICTR names the interpreter in `make bench`."""
    python = os.environ.get("FUXICTR")
    if python is None or size == "tiny":
        yield LeftOut("scoring", "FUXICTR names no interpreter with FuxiCTR, or --quick")
        return
    rows = 200_000 if size == "short" else 5_000_000
    with TemporaryDirectory() as name:
        folder, rival = Path(name), [python, str(HERE / "fuxictr_scoring.py")]
        prepare(folder, rows, rival, True)
        commands = scoring_commands(folder, rival, True)
        if size == "short":
            del commands["FuxiCTR blocks"]  # the slower of its ways
        ways = {name: partial(scored, folder, words) for name, words in commands.items()}

        def peaks() -> list[int]:
            return [int(2**20 * call()[1]) for call in ways.values()]

        others = {name: call for name, call in ways.items() if name != "headwise"}
        yield Case(f"{rows:,} rows", ways["headwise"], others, peaks)


def scored(folder: Path, words: list[str]) -> tuple[float, float, str]:
    """What `timed` gives, of a table that is not scored yet."""
    (folder / "ours.parquet").unlink(missing_ok=True)
    return timed(words)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--fuxictr", help="interpreter of an environment with FuxiCTR; without it ours runs alone"
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=Path("ranking-scoring"))
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    folder, with_rival = arguments.folder, arguments.fuxictr is not None
    rival = [arguments.fuxictr or sys.executable, str(HERE / "fuxictr_scoring.py")]
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, arguments.rows, rival, with_rival)
    ways = scoring_commands(folder, rival, with_rival)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, words in ways.items():
            seconds, memory, _ = scored(folder, words)
            runs[name].append((seconds, memory))
            print(f"{name}: {seconds:.1f} s", flush=True)
    base = min(runs["headwise"])[0]
    print()
    print_header("", "seconds", "rows/s", "against ours", "peak MiB of a process")
    for name, measured in runs.items():
        seconds = min(measured)[0]
        rate = f"{arguments.rows / seconds:,.0f}"
        peak = max(memory for _, memory in measured)
        print_row(name, f"{seconds:.1f}", rate, f"{seconds / base:.2f}x", f"{peak:,.0f}")


if __name__ == "__main__":
    main()
