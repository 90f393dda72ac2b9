"""Time and peak memory of every mechanism against the number of tokens, in one picture and one
table.

    python benchmarks/models/attention.py [--names softmax star] [--longest 16384]
    python benchmarks/models/attention.py --rivals

Batch 1, width 64, 4 heads, float32, one thread. Each mechanism is measured in a process of its own,
from 128 tokens up, until a training step takes more than --patience seconds. Written to --output:
curves.json, curves.png, table.md. `--rivals` is `rivals.py`.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import (
    fastest,
    growth,
    memory_environment,
    parser_of,
    peak_bytes,
    table_header,
    table_row,
    training_step,
)
from headwise.models.attention import ATTENTION, build_attention
from headwise.models.attention.base import Attention

WIDTH, HEADS = 64, 4


def size_of(tokens: int) -> tuple[int, int]:
    """Height and width of the grid: 2^k cells."""
    height = 2 ** ((tokens.bit_length() - 1) // 2)
    return height, tokens // height


def caller(module: Attention, x: Tensor) -> Callable[[], Tensor]:
    """The mechanism on x, with what else it needs."""
    extras: dict[str, tuple[int, int] | Tensor] = {}
    if "size" in module.extras:
        extras["size"] = size_of(x.shape[1])
    if "static" in module.extras:
        extras["static"] = x
    return lambda: module(x, **extras)


def curve(name: str, longest: int, patience: float) -> list[dict]:
    """Rows {tokens, forward, training, memory} of one mechanism."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {"tokens": longest} if name in ("random", "fixed-sequence", "position-only") else {}
    module, rows, tokens = build_attention(name, WIDTH, HEADS, **options), [], 128
    while tokens <= longest:
        x = torch.randn(1, tokens, WIDTH)
        call = caller(module.eval(), x)
        with torch.no_grad():
            forward = fastest([call], 0.3)[0]
            memory = peak_bytes(call)
        step = training_step(module.train(), call)
        training = fastest([step], 0.3)[0]
        row = {"tokens": tokens, "forward": forward, "training": training, "memory": memory}
        rows.append(row | {"training_memory": peak_bytes(step)})
        # The next size may take eight times as long (third order) and more memory than there is.
        worst = 8 if name == "tensor" else 4
        if worst * training > patience or worst * rows[-1]["training_memory"] > 8e9:
            break
        tokens *= 2
    return rows


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """One picture: time of a training step and its peak memory against tokens."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5))
    axes = figure.subplots(1, 2, sharex=True)
    colours = [colormaps["tab20"](i) for i in range(20)]
    for i, (name, rows) in enumerate(curves.items()):
        style = {
            "color": colours[i % 20],
            "linestyle": "-" if i < 20 else "--",
            "marker": ".",
            "label": name,
        }
        tokens = [row["tokens"] for row in rows]
        axes[0].plot(tokens, [1000 * row["training"] for row in rows], **style)
        axes[1].plot(tokens, [row["training_memory"] / 2**20 for row in rows], **style)
    for ax, label in zip(axes, ("training step, ms", "peak memory of a training step, MiB")):
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        ax.set_xscale("log", base=2)
        ax.grid(alpha=0.3)
    axes[1].set_ylim(bottom=0.5)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def table(curves: dict[str, list[dict]]) -> str:
    """Milliseconds of a training step and peak MiB by tokens; growth of time over the last four
    sizes.
    """
    sizes = sorted({row["tokens"] for rows in curves.values() for row in rows})
    shown = [size for size in sizes if size in (128, 512, 1024, 4096, 16384)]
    sizes_head = [f"{n:,} tokens: ms, MiB" for n in shown]
    lines = [table_header("mechanism", *sizes_head, "time grows as")]
    for name, rows in curves.items():
        by_tokens = {row["tokens"]: row for row in rows}
        cells = [
            f"{1e3 * by_tokens[n]['training']:.1f}, {by_tokens[n]['training_memory'] / 2**20:.0f}"
            if n in by_tokens
            else "–"
            for n in shown
        ]
        last = rows[-4:]
        power = (
            growth([row["tokens"] for row in last], [row["training"] for row in last])
            if len(last) > 1
            else 0
        )
        lines.append(table_row(name, *cells, f"n^{power:.2f}"))
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--names", nargs="+", default=list(ATTENTION))
    parser.add_argument("--longest", type=int, default=16_384)
    parser.add_argument(
        "--patience", type=float, default=12.0, help="seconds of the longest training step"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/attention"))
    parser.add_argument("--rivals", action="store_true", help="compare with public forms instead")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one mechanism, in this process
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(curve(arguments.only, arguments.longest, arguments.patience)))
        return
    if arguments.rivals:
        ratios.main(__doc__, ["models/rivals"], [])
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves_file = arguments.output / "curves.json"
    curves = json.loads(curves_file.read_text()) if curves_file.exists() else {}
    options = ["--longest", str(arguments.longest), "--patience", str(arguments.patience)]
    environment = os.environ | memory_environment()
    for name in tqdm(arguments.names, unit="mechanism"):
        command = [sys.executable, __file__, "--only", name, *options]
        finished = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False
        )
        if finished.returncode:
            raise SystemExit(f"{name}: {finished.stderr}")
        curves[name] = json.loads(finished.stdout)
        curves_file.write_text(json.dumps(curves))
    curves = {name: curves[name] for name in ATTENTION if name in curves}
    draw(curves, arguments.output / "curves.png")
    (arguments.output / "table.md").write_text(table(curves))
    print(table(curves))


if __name__ == "__main__":
    main()
