"""Checks every operator on a GPU: values, what PyTorch does with them, times, a step of every
pipeline.

    make gpu [ARGS="--output runs/gpu --seed 1"]
    python tests/gpu/check.py [--dry-run] [--only stats maps]

One process; kernels are compiled by several before it starts. Ends with 1 where a value or a check
is wrong; times decide nothing. `OUTPUT/DATE.json` holds all figures, and the next run shows what
changed since. Without a card it is a dry run: Triton's interpreter, tiny sizes, no times."""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

MINUTES = 8.0  # of the command
# Kept free for the steps of the pipelines, and for those that are not compiled.
STEP_SECONDS, BARE_SECONDS = 200.0, 60.0
FOR_VALUES = 0.6  # share of the time after which no more values are compared
LEAST = (8, 0)
OPERATORS_OF = {  # cases whose operators have other names
    "stats": ("attention_stats",),
    "fused_stats": ("attention_stats",),
    "maps": ("attention_maps",),
    "gathered": ("gathered_heads",),
    "pairs": ("pair_attention",),
    "third_order": ("tensor_attention",),
    "windows": ("neighbourhood_attention",),
    "signed_root": ("signed_root_attention",),
    "ragged": ("ragged_attention",),
    "partial": ("attend_with_lse",),
    "moments": ("cosine_moments",),
    "differential": ("differential_combine",),
    "pooled": ("softmax_pool",),
    "draws": ("softmax_draw",),
    "gelu": ("gelu_linear",),
    "gates": ("gated_scores",),
    "star": ("star_core",),
    "choice": ("expert_gate",),
    "experts": ("grouped_linear", "expert_combine"),
    "warping": ("time_warp", "median_filter"),
    "labels": ("label_attention",),
    "decoded": ("decode_attention",),
}


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="as on a machine without a card")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/gpu"), help="folder of JSON files"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzed sizes")
    parser.add_argument("--shapes", type=int, default=12, help="fuzzed sizes of each operator")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which times stop")
    parser.add_argument(
        "--only", nargs="+", choices=OPERATORS_OF, default=list(OPERATORS_OF), metavar="CASE",
        help=", ".join(OPERATORS_OF),
    )  # fmt: skip
    parser.add_argument("--pipelines", nargs="*", default=None, help="whose step is made")
    parser.add_argument("--compile-share", nargs=2, type=int, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def triton_here() -> bool:
    """Whether the kernels can be run at all, by a card or by the interpreter."""
    return find_spec("triton") is not None


def machine(dry: bool) -> tuple[list[str], str]:
    """Lines about it, and why the check cannot run on it, "" where it can."""
    import torch

    from headwise.pipelines.engine.command_line.machine import doctor

    lines = [line for line in doctor() if not line.startswith(("[", " "))]
    if dry:
        return lines, ""
    major, minor = torch.cuda.get_device_capability(0)
    lines.append(f"cuda {torch.version.cuda}, compute capability {major}.{minor}")
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm", "--format=csv"]
    try:
        output = subprocess.run(
            query, capture_output=True, text=True, check=True, timeout=20
        ).stdout
        lines += output.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        lines.append("nvidia-smi does not answer: driver and clocks are unknown")
    if (major, minor) < LEAST and not torch.version.hip:
        return lines, f"cuda:0 has compute capability {major}.{minor}, the kernels need 8.0"
    return lines, ""


def trials(options: argparse.Namespace, tiny: bool) -> list:
    """The comparisons of this run."""
    import torch

    from headwise.tests.gpu import values

    types = (torch.float32, torch.float16)
    if not tiny:  # the interpreter computes bfloat16 wrongly
        types += (torch.bfloat16,)
    shapes = min(options.shapes, 1) if tiny else options.shapes
    some = values.trials(options.seed, shapes, types, tiny)
    return [trial for trial in some if trial.case.__name__ in options.only]


def compile_share(options: argparse.Namespace) -> None:
    """Run every n-th comparison's kernels once, which leaves them compiled on the disk."""
    import torch

    from headwise.tests.gpu import values

    place, count = options.compile_share
    for trial in trials(options, tiny=False)[place::count]:
        try:
            values.run(trial, torch.device("cuda"))
        except Exception:
            continue  # the check itself says what is wrong


def compile_all(words: list[str]) -> str:
    """Compile in several processes; a line that says how long it took."""
    start, count = time.perf_counter(), max(1, min(16, os.cpu_count() or 1))
    command = [sys.executable, __file__, *words, "--compile-share"]
    workers = [
        subprocess.Popen(
            [*command, str(place), str(count)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for place in range(count)
    ]
    failed = sum(worker.wait() != 0 for worker in workers)
    about = f", {failed} of them failed" if failed else ""
    return f"kernels compiled in {time.perf_counter() - start:.0f} s by {count} processes{about}"


def check_values(
    options: argparse.Namespace, tiny: bool, device: object, late: Callable[[float], bool]
) -> tuple[list[dict], int]:
    """A row for each comparison, and how many there was no time for."""
    from headwise.tests.gpu import values

    rows: list[dict] = []
    planned = trials(options, tiny)
    random.Random(options.seed).shuffle(planned)  # what is cut off is some of every operator
    for trial in planned:
        if late(FOR_VALUES):
            break
        try:
            faults = values.wrong(trial, device)
        except Exception as error:
            faults = [f"{type(error).__name__}: {str(error).strip()[-200:]}"]
        rows.append({"trial": str(trial), "case": trial.case.__name__, "faults": faults})
    return rows, len(planned) - len(rows)


def last_report(folder: Path) -> dict:
    """The newest JSON of the folder from a card; empty where there is none."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        report = json.loads(path.read_text())
        if not report["dry"]:
            return report
    return {}


def all_checks(
    options: argparse.Namespace,
    dry: bool,
    write: Callable[[str], object],
    late: Callable[..., bool],
) -> dict:
    """The report: rows of each part."""
    import torch

    from headwise.tests.gpu import modes, speed, training

    device = torch.device("cpu" if dry else "cuda:0")
    compared, cut = check_values(options, dry, device, late)
    report: dict = {"dry": dry, "values": compared, "not_compared": cut}
    wrong = [row for row in report["values"] if row["faults"]]
    about = f", {cut} not compared: no time (--minutes)" if cut else ""
    write(f"values: {len(compared) - len(wrong)} of {len(compared)} right{about}")
    for row in wrong:
        write(f"  {row['trial']}: {'; '.join(row['faults'])}")
    report["modes"] = modes.results(device, dry, set(options.only))
    for name in dict.fromkeys(row["check"] for row in report["modes"]):
        rows = [row for row in report["modes"] if row["check"] == name]
        bad = [row for row in rows if row["result"] != "right"]
        write(f"{name}: {len(rows) - len(bad)} of {len(rows)} right")
        for row in bad:
            write(f"  {row['operator']}: {row['result']}")
    operators = {name for case in options.only for name in OPERATORS_OF[case]}
    report["times"] = speed.rows(device, dry, operators, lambda: late(1.0))
    if not dry:
        before = last_report(options.output).get("times", [])
        for line in speed.lines(report["times"], before):
            write(line)
    else:
        for row in report["times"]:
            if "fault" in row:
                write(f"  {row['operator']}: {row['fault']}")
        write(f"calls that would be timed: {len(report['times'])}")
    names = options.pipelines
    if names is None:
        names = ["forecast"] if dry else list(training.TASKS)
    report["pipelines"] = training.steps(
        "cpu" if dry else "cuda", tuple(names), lambda: late(1.0, BARE_SECONDS)
    )
    for row in report["pipelines"]:
        losses = f"loss {row['loss']:.4g}, {row['loss_of_cpu']:.4g}, " if "loss" in row else ""
        losses += "not compiled: no time (--minutes), " * row.get("bare", False)
        write(f"step of {row['pipeline']}: {losses}{row['result']}, {row['seconds']:.1f} s")
    return report


def faults(report: dict) -> int:
    """How many checks are wrong. Times decide nothing, a call that cannot be timed does."""
    return (
        sum(bool(row["faults"]) for row in report["values"])
        + sum(row["result"] != "right" for row in [*report["modes"], *report["pipelines"]])
        + sum("fault" in row for row in report["times"])
    )


def main(words: list[str] | None = None) -> int:
    """0 where all is right, 1 where something is wrong, 2 where the card cannot run the kernels."""
    options, begun = options_of(words), time.perf_counter()
    import torch

    if options.compile_share:
        compile_share(options)
        return 0
    if not triton_here():
        print("gpu: Triton is not installed; the kernels need it (pip install triton)")
        return 2
    dry = options.dry_run or not torch.cuda.is_available()
    lines, refused = machine(dry)
    print("\n".join(lines), flush=True)
    if refused:
        print(f"gpu: {refused}")
        return 2
    if dry:
        from headwise.tests.gpu import dry as without_card

        without_card.interpret()
        why = "asked for" if options.dry_run else "PyTorch sees no card"
        print(
            f"dry run ({why}): Triton's interpreter on the CPU, tiny sizes, no bfloat16, no times"
        )
    else:
        print(compile_all(sys.argv[1:] if words is None else words), flush=True)

    def late(share: float, free: float = STEP_SECONDS) -> bool:
        return time.perf_counter() - begun > share * (60 * options.minutes - free)

    report = all_checks(options, dry, lambda line: print(line, flush=True), late)
    report |= {"machine": lines, "seconds": time.perf_counter() - begun, "seed": options.seed}
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{time.strftime('%Y%m%d-%H%M%S')}{'-dry' * dry}.json"
    path.write_text(json.dumps(report, indent=1))
    print(f"written to {path}")
    wrong = faults(report)
    print(f"{'all right' if not wrong else f'{wrong} wrong'}, {report['seconds']:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
