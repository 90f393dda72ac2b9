"""A folder of many tiny files: time of listing, memory of predicting, exact counts in the account.

    python benchmarks/pipelines/many_files.py --files 100000

Of each hundred files one is broken, one is a link that leads out, and one is of another kind. The
models are trained for two steps on the generated samples. Prints a table; exits with 1 where a
count of the account is not exact.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TASKS = {"forecast": ".csv", "medical": ".png"}


def write_series(sample: Path, rows: int) -> bytes:
    """The last rows of a sample, as one tiny file."""
    lines = sample.read_text().splitlines()
    content = "\n".join([lines[0], *lines[-rows:]]) + "\n"
    return content.encode()


def write_picture(sample: Path) -> bytes:
    """A tiny picture."""
    import io

    from PIL import Image

    picture = next(sample.rglob("pictures/*.png"))
    small = io.BytesIO()
    Image.open(picture).convert("L").resize((32, 32)).save(small, "PNG")
    return small.getvalue()


def fill(folder: Path, content: bytes, ending: str, files: int) -> dict[str, int]:
    """Write the files; returns how many there are of each kind."""
    folder.mkdir()
    outside = folder.parent / f"outside{ending}"
    outside.write_bytes(content)
    counts = dict.fromkeys(("good", "broken", "links", "other"), 0)
    kinds = {1: "broken", 2: "links", 3: "other"}
    for k in range(files):
        kind = kinds.get(k % 100, "good")
        counts[kind] += 1
        path = folder / f"{k // 1000:03d}" if ending == ".png" else folder
        path.mkdir(exist_ok=True)
        if kind == "links":
            (path / f"f{k:06d}{ending}").symlink_to(outside)
        elif kind == "other":
            (path / f"f{k:06d}.docx").write_bytes(content)
        else:
            (path / f"f{k:06d}{ending}").write_bytes(content if kind == "good" else b"broken")
    return counts


LISTING = """
import resource, sys, time
from headwise.base.account import opened
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.inference.plan import make_plan
from headwise.pipelines import load_task
task = load_task(sys.argv[1])
pipeline = task.load()
options = parse(task, "predict", sys.argv[2:])
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
with opened():
    count = len(make_plan(pipeline, options).items)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(count, time.perf_counter() - started, (peak - before) / 1024)
"""


def counted(output: Path, what: str) -> int:
    """How many things the account of an output has under a statement that begins so."""
    entries = json.loads(Path(f"{output}.account.json").read_text())["account"]
    return sum(entry["count"] for entry in entries if entry["what"].startswith(what))


def measure(task: str, ending: str, files: int, home: Path) -> bool:
    """Measure a task; whether all counts are exact."""
    import polars as pl

    run, output, folder = home / "run", home / "out.parquet", home / "in"
    words = [sys.executable, "-m", "headwise.pipelines.engine", task]
    subprocess.run([*words, "train", "--run", run, "--max-steps", "2"], check=True)
    sample = run / "sample"
    if task == "forecast":
        config = json.loads((run / "spec.json").read_text())
        content = write_series(next(sample.glob("*.csv")), config["input"]["rows_needed"])
    else:
        content = write_picture(sample)
    counts = fill(folder, content, ending, files)
    asked = ["--run", run, "--input", folder, "--output", output]
    asked += ["--no-explain"] if task == "medical" else []
    listed = subprocess.run(
        [sys.executable, "-c", LISTING, task, *map(str, asked)],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    started = time.perf_counter()
    code = subprocess.run([*words, "predict", *map(str, asked)]).returncode
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rows = pl.scan_parquet(output).select("item", "status").unique().collect()
    failed = rows.filter(pl.col("status") == "error").height
    exact = {
        "items": (int(listed[0]), counts["good"] + counts["broken"]),
        "failed": (failed, counts["broken"]),
        "other kinds": (counted(output, "files of other kinds"), counts["other"]),
        "links": (counted(output, "links that lead out"), counts["links"]),
        "exit code": (code, 3),
    }
    print(
        f"{task}: {files:,} files, listed in {float(listed[1]):.1f} s with "
        f"{float(listed[2]):.0f} MiB more; predicted in {seconds:.0f} s, peak {peak:.0f} MiB"
    )
    for what, (number, expected) in exact.items():
        print(f"  {what}: {number:,} of {expected:,}{'' if number == expected else '  WRONG'}")
    return all(number == expected for number, expected in exact.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    arguments = parser.parse_args()
    right = True
    for task in arguments.tasks:
        with tempfile.TemporaryDirectory(prefix="many-files-") as folder:
            right &= measure(task, TASKS[task], arguments.files, Path(folder))
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
