"""Operators and models compared with the other ways to compute the same, in one table.

    python benchmarks/ratios.py [--only ops/rollout models/moe] [--seconds 0.5] [--full] [--quick]

`make bench` runs it; a script of the list that has no table of its own is this command with
`--only` and `--full`. Each script runs in processes of its own, one script after the other: first
times, all ways of a case in turn, then peak memory with one thread. Agreement of the ways is
checked before anything is measured.

Times as fast: the median of six turns, each the fastest call of the other way over that of ours; in
brackets the lowest and the highest turn, which hold the true median in 97 of 100 cases. "Docs say"
is what ratios.json has from docs/measured or from the last `--record`. A row is slower where the
highest turn is below that, also when its script is run a second time, and larger where ours takes
over 1 MiB more than the recorded share. Other work on the machine spoils times, not memory.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from headwise.benchmarks.measure import (
    LeftOut,
    Size,
    in_turns,
    machine_load,
    memory_environment,
    parser_of,
    peak_bytes,
    print_header,
    print_row,
)

HERE = Path(__file__).parent
RECORDED = HERE / "ratios.json"
# Threads of each script, as in docs/measured.
SCRIPTS = {
    "models/softs": 2,
    "models/rivals": 1,
    "models/moh": 1,
    "models/moe": 1,
    "models/wsi": 2,
    "ops/attention_stats": 2,
    "ops/neighbourhood": 1,
    "ops/ragged_attention": 1,
    "ops/decode_attention": 1,
    "ops/tensor_attention": 1,
    "ops/rollout": 2,
    "ops/pair_attention": 2,
    "ops/label_attention": 1,
    "ops/signed_root_attention": 2,
    "ops/speech": 2,
    "ops/grouped_auc": 2,
    "ops/retrieval": 2,
    "ops/saliency_metrics": 2,
    "pipelines/ranking_scoring": 2,
}
TURNS, MIB = 6, 2**20
Range = list[float]  # lowest and highest


@dataclass
class Row:
    """A case of a script beside one other way, as far as it is measured."""

    script: str
    case: str
    beside: str = ""
    seconds: list[Range] = field(default_factory=list)  # ours and the other way, turn by turn
    bytes: list[int] = field(default_factory=list)  # ours and the other way
    wants_memory: bool = False
    left_out: str = ""  # why nothing is measured

    @property
    def key(self) -> str:
        """What the row is recorded under."""
        return f"{self.script} | {self.case} | {self.beside}"

    @property
    def faster(self) -> Range:
        """How many times ours is as fast, in each turn."""
        ours, other = self.seconds
        return [theirs / mine for mine, theirs in zip(ours, other, strict=True)]

    @property
    def share(self) -> float | None:
        """Our memory as a share of the other way's; None where that is lost in the allocator's."""
        return self.bytes[0] / self.bytes[1] if self.bytes and self.bytes[1] >= MIB else None


def measured(
    script: str, size: Size, seconds: float, *, memory: bool = False, turns: int = TURNS
) -> Iterator[Row]:
    """Rows of a script, in this process: their times, or their peak memory."""
    try:
        for case in import_module(f"headwise.benchmarks.{script.replace('/', '.')}").cases(size):
            if isinstance(case, LeftOut):
                yield Row(script, case.name, left_out=case.why)
            elif not memory:
                ours, *others = in_turns([case.ours, *case.others.values()], seconds, turns)
                sizes = list(case.memory()) if callable(case.memory) else []
                for at, (beside, other) in enumerate(zip(case.others, others, strict=True), 1):
                    counted = [sizes[0], sizes[at]] if sizes else []
                    yield Row(
                        script, case.name, beside, [ours, other], counted, case.memory is True
                    )
            elif case.memory is True:
                ours = peak_bytes(case.ours)
                for beside, call in case.others.items():
                    yield Row(script, case.name, beside, bytes=[ours, peak_bytes(call)])
    except ImportError as missing:
        if missing.name is None or missing.name.startswith("headwise"):
            raise
        yield Row(script, "all", left_out=f"{missing.name} is not installed")


def in_process(
    script: str, options: argparse.Namespace, bar: tqdm, memory: bool = False
) -> list[Row]:
    """The same in a process of its own. Raises CalledProcessError where it fails."""
    words = ["--process", script, "memory" if memory else "time", "--seconds", options.seconds]
    words += ["--threads", options.threads, "--full" * options.full, "--quick" * options.quick]
    command = [sys.executable, str(Path(__file__)), *filter(None, map(str, words))]
    environment = os.environ | (memory_environment() if memory else {})
    rows = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            rows.append(Row(**json.loads(line)))
            bar.set_postfix_str(f"{script}: {rows[-1].case}{', memory' * memory}")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return rows


def whole_rows(script: str, options: argparse.Namespace, bar: tqdm, recorded: dict) -> list[Row]:
    """Rows of a script with their times, taken twice where one is slower, and memory."""
    rows = {row.key: row for row in in_process(script, options, bar)}
    if not options.quick and any(slower(row, recorded.get(row.key, {})) for row in rows.values()):
        for again in in_process(script, options, bar):
            for turns, more in zip(rows[again.key].seconds, again.seconds, strict=True):
                turns += more
    if any(row.wants_memory for row in rows.values()):
        for row in in_process(script, options, bar, memory=True):
            rows[row.key].bytes = row.bytes
    return list(rows.values())


def all_rows(options: argparse.Namespace, recorded: dict) -> tuple[list[Row], list[str]]:
    """Rows of all scripts, and the scripts that failed."""
    rows, failed = [], []
    with tqdm(list(options.only), unit="script") as bar:
        for script in bar:
            bar.set_postfix_str(script)
            try:
                rows += whole_rows(script, options, bar, recorded)
            except subprocess.CalledProcessError:
                failed.append(script)
    return rows, failed


def slower(row: Row, known: dict[str, Range]) -> bool:
    """Whether ours lost speed by more than noise."""
    return bool(row.seconds) and "time" in known and max(row.faster) < known["time"][0]


def larger(row: Row, known: dict[str, Range]) -> bool:
    """Whether ours takes more memory than recorded; pages of the allocator are about 1 MiB."""
    if row.share is None or "memory" not in known:
        return False
    return row.bytes[0] > known["memory"][1] * row.bytes[1] + MIB


def span(known: Range | None, form: str) -> str:
    """A recorded ratio as text, such as 1.1–1.2."""
    return "–".join(dict.fromkeys(format(bound, form) for bound in known)) if known else ""


def print_table(rows: Sequence[Row], recorded: dict, quick: bool) -> list[Row]:
    """Print all rows; those that are worse than recorded."""
    worse, sources = [], {}
    about = ("what", "case", "beside", "ms, here and there", "times as fast", "docs say")
    print_header(*about, "MiB, here and there", "share", "docs say", "")
    for row in rows:
        if row.left_out:
            print_row(row.script, row.case, *[""] * 7, f"left out: {row.left_out}")
            continue
        known = {} if quick else recorded.get(row.key, {})
        ratios = row.faster
        speed = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        times = " / ".join(f"{1e3 * median(turns):.3g}" for turns in row.seconds)
        memory = " / ".join(f"{size / MIB:.1f}" for size in row.bytes)
        share = "" if row.share is None else f"{row.share:.3f}"
        words = ["slower"] * slower(row, known) + ["larger"] * larger(row, known)
        worse += [row] * bool(words)
        if not words and not known and not quick:
            words = ["not recorded"]
        docs_time = span(known.get("time"), ".2f")
        docs_share = span(known.get("memory"), ".3f")
        print_row(
            row.script, row.case, row.beside, times, speed, docs_time, memory, share, docs_share,
            ", ".join(words),
        )  # fmt: skip
        sources |= {known["from"]: None} if known else {}
    print("\n".join(["", "Docs say: from", *sources]) if sources else "")
    return worse


def machine() -> str:
    """Cores and processor."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores, {name}"


def record(rows: Sequence[Row], recorded: dict) -> None:
    """Write the ratios of these rows, and keep those of others."""
    for row in rows:
        if not row.left_out:
            recorded[row.key] = {"time": [round(bound(row.faster), 3) for bound in (min, max)]}
            if row.share is not None:
                recorded[row.key]["memory"] = [round(row.share, 4)] * 2
            recorded[row.key]["from"] = (
                f"{time.strftime('%Y-%m-%d')}, {machine()}, torch {torch.__version__}"
            )
    lines = [f"{json.dumps(key)}: {json.dumps(known)}" for key, known in recorded.items()]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main(
    description: str | None = __doc__, only: Sequence[str] = (), words: Sequence[str] | None = None
) -> argparse.Namespace:
    """The command, and its options; `only`: that of these scripts alone, in full."""
    parser = parser_of(description)
    if not only:
        parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="NAME", default=SCRIPTS)
        parser.add_argument("--full", action="store_true", help="the long cases, too")
        parser.add_argument("--record", action="store_true", help="write the ratios to ratios.json")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each way of a case")
    parser.add_argument("--threads", type=int, default=0, help="0: as in docs/measured")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/ratios.json"))
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if only:
        options.only, options.full, options.record = only, True, False
    if options.process:
        script, what = options.process
        size = "tiny" if options.quick else "full" if options.full else "short"
        with redirect_stdout(sys.stderr):  # what a library prints is not a row
            gc.freeze()  # collecting before each measurement need not look at what is imported
            torch.set_num_threads(options.threads or SCRIPTS[script] if what == "time" else 1)
            for row in measured(script, size, options.seconds, memory=what == "memory"):
                print(json.dumps(asdict(row)), file=sys.__stdout__, flush=True)
        return options
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    with machine_load(f"{machine()}; each script has its own number of threads"):
        rows, failed = all_rows(options, recorded)
        worse = print_table(rows, recorded, options.quick)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(), "date": time.strftime("%Y-%m-%d %H:%M")}
    report = about | {"rows": [asdict(row) for row in rows]}
    options.output.write_text(json.dumps(report, indent=1))
    counted = len([row for row in rows if not row.left_out])
    verdict = f"{len(worse)} of {counted} worse than docs say by more than noise"
    print(f"{'tiny sizes, nothing compared' if options.quick else verdict}; {options.output}")
    if options.record:
        record(rows, recorded)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    return options


if __name__ == "__main__":
    main()
