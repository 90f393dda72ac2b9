"""SOFTS here compared with a direct PyTorch form of the published algorithm, in one run on this
machine.

    python benchmarks/models/softs.py [--quick] [--seconds 10] [--output runs/benchmarks/softs]

The published form is written below from the formulas: softmax, multinomial, gather, repeat,
concatenation. Training steps (forward, backward, Adam) and inference steps of both are timed in
turn and the fastest of each is taken; bytes kept for the backward pass are counted by hooks, peak
memory by a process of its own for each form. No figure is printed before both forms agree. The last
part draws time against channels for both and for full attention. Other work on the machine spoils
the figures: the load is printed before and after, and --seconds lengthens the measurement.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.benchmarks.measure import (
    Case,
    Size,
    fastest,
    kept_bytes,
    machine_load,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.star_core import star_core
from headwise.models import SOFTS
from headwise.models.attention.star import STAR

LOOKBACK = HORIZON = 96
Batch = tuple[Tensor, Tensor | None, Tensor]  # past, marks, future
# channels: (batch, marks, layers, width, core, feed-forward): ETTh1's and Weather's sizes, then the
# issue's.
SIZES = {
    7: (32, 4, 1, 256, 256, 256), 21: (16, 4, 3, 512, 128, 512), 207: (16, 0, 2, 512, 512, 512),
    862: (16, 0, 2, 512, 512, 512), 5000: (4, 0, 2, 512, 512, 512),
}  # fmt: skip


class Published(nn.Module):
    """STAR as its formulas say (arXiv 2404.14197, algorithm 1)."""

    def __init__(self, width: int, core: int) -> None:
        super().__init__()
        self.hidden, self.core = nn.Linear(width, width), nn.Linear(width, core)
        self.fuse, self.out = nn.Linear(width + core, width), nn.Linear(width, width)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        batch, channels, _ = x.shape
        z = self.core(F.gelu(self.hidden(x)))
        share = F.softmax(z, dim=1)
        if self.training:
            if index is None:
                flat = share.permute(0, 2, 1).reshape(-1, channels)
                index = torch.multinomial(flat, 1).view(batch, -1)
            core = torch.gather(z, 1, index[:, None])
        else:
            core = (z * share).sum(1, keepdim=True)
        return self.out(F.gelu(self.fuse(torch.cat([x, core.repeat(1, channels, 1)], -1))))


class PublishedLayer(nn.Module):
    """Post-norm encoder layer."""

    def __init__(self, width: int, core: int, feedforward: int) -> None:
        super().__init__()
        self.mixer = Published(width, core)
        self.feedforward = nn.ModuleDict(
            {"up": nn.Linear(width, feedforward), "down": nn.Linear(feedforward, width)}
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.mixer(x))
        return self.norm2(x + self.feedforward["down"](F.gelu(self.feedforward["up"](x))))


class PublishedSOFTS(nn.Module):
    """The forecaster; parameters are named as ours, so that weights can be copied."""

    def __init__(self, layers: int, width: int, core: int, feedforward: int) -> None:
        super().__init__()
        self.embed = nn.Linear(LOOKBACK, width)
        self.layers = nn.ModuleList(PublishedLayer(width, core, feedforward) for _ in range(layers))
        self.head = nn.Linear(width, HORIZON)

    def forward(self, past: Tensor, marks: Tensor | None = None) -> Tensor:
        channels = past.shape[2]
        mean = past.mean(1, keepdim=True).detach()
        past = past - mean
        deviation = torch.sqrt(torch.var(past, dim=1, keepdim=True, unbiased=False) + 1e-5)
        past = past / deviation
        x = self.embed((past if marks is None else torch.cat([past, marks], 2)).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(x).transpose(1, 2)[:, :, :channels] * deviation + mean


def pair(channels: int) -> tuple[SOFTS, PublishedSOFTS, Batch]:
    """Both forms with the same weights, and a batch (past, marks, future)."""
    batch, marks, layers, width, core, feedforward = SIZES[channels]
    torch.manual_seed(0)
    ours = SOFTS(
        lookback=LOOKBACK,
        horizon=HORIZON,
        width=width,
        core=core,
        feedforward=feedforward,
        layers=layers,
    )
    plain = PublishedSOFTS(layers, width, core, feedforward)
    plain.load_state_dict(ours.state_dict())
    data = (
        torch.randn(batch, LOOKBACK, channels),
        torch.rand(batch, LOOKBACK, marks) - 0.5 if marks else None,
        torch.randn(batch, HORIZON, channels),
    )
    return ours, plain, data


def check(ours: SOFTS, plain: PublishedSOFTS, data: Batch) -> None:
    """Inference must agree, and so must the training step of a layer with the same draws and all
    its gradients.
    """
    past, marks, _ = data
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(past, marks), plain.eval()(past, marks), atol=2e-5, rtol=1e-4
        )
    mine = next(part for part in ours.modules() if isinstance(part, STAR))
    theirs = next(part for part in plain.modules() if isinstance(part, Published)).train()
    x = torch.randn(2, past.shape[2], mine.width)
    weights = [mine.hidden.weight, mine.hidden.bias, mine.core.weight, mine.core.bias]
    grads = []
    for form in ("ours", "plain"):
        mine.zero_grad(), theirs.zero_grad()
        tokens = x.clone().requires_grad_()
        core, index = star_core(tokens, *weights, seed=1)
        if form == "plain":
            theirs(tokens, index).square().sum().backward()
            grads.append([tokens.grad, *(p.grad for p in theirs.parameters())])
        else:
            shared = F.linear(core, mine.fuse.weight[:, mine.width :], mine.fuse.bias)
            fused = F.linear(tokens, mine.fuse.weight[:, : mine.width]) + shared[:, None]
            mine.out(F.gelu(fused)).square().sum().backward()
            grads.append([tokens.grad, *(p.grad for p in mine.parameters())])
    for actual, expected in zip(*grads, strict=True):
        tolerance = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-3)


def cases(size: Size) -> Iterator[Case]:
    """Steps of both forms, checked."""
    for channels in {"tiny": (7,), "short": (7, 21, 207, 5000), "full": tuple(SIZES)}[size]:
        ours, plain, data = pair(channels)
        check(ours, plain, data)
        steps = [trainer(form, data) for form in (ours, plain)]
        kept = partial(all_kept, ours, plain, data)
        other = {"published form": steps[1]}
        yield Case(f"{channels:,} channels, training", steps[0], other, kept)
        steps = [inference(form, data) for form in (ours, plain)]
        other = {"published form": steps[1]}
        yield Case(f"{channels:,} channels, inference", steps[0], other, memory=False)


def trainer(model: nn.Module, data: Batch) -> Callable[[], None]:
    """One training step."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(model(*data[:2]), data[2]).backward()
        optimizer.step()

    return step


def inference(model: nn.Module, data: Batch) -> Callable[[], None]:
    """One inference step."""

    def step() -> None:
        model.eval()
        with torch.no_grad():
            model(*data[:2])

    return step


def graph_bytes(model: nn.Module, data: Batch) -> int:
    """Bytes kept between forward and backward, without parameters and input."""
    model.train()
    excluded = [*model.parameters(), *(part for part in data if part is not None)]
    return kept_bytes(lambda: F.mse_loss(model(*data[:2]), data[2]), excluded)


def all_kept(ours: SOFTS, plain: PublishedSOFTS, data: Batch) -> list[int]:
    """Bytes kept by both forms."""
    return [graph_bytes(form, data) for form in (ours, plain)]


def step_peak(form: str, channels: int) -> int:
    """Peak memory of one training step beyond model and data, in a process of its own with torch's
    number of threads; -1 if it fails.
    """
    try:
        return peak_of(__file__, form, channels, settings={})
    except subprocess.CalledProcessError:
        return -1


def report_peak(form: str, channels: int) -> None:
    """Print the peak memory of a step, after a step on one sample."""
    ours, plain, data = pair(channels)
    model = ours if form == "ours" else plain
    past, marks, future = data
    sample = (past[:1], None if marks is None else marks[:1], future[:1])
    print(peak_bytes(trainer(model, data), trainer(model, sample)))


def table(quick: bool, seconds: float) -> list[dict[str, float]]:
    """Print the table of all sizes; its rows by name."""
    rows = []
    print_header(
        "channels", "batch", "training", "inference", "kept for backward", "peak of a step"
    )
    for channels in [7, 21, 207] if quick else SIZES:
        ours, plain, data = pair(channels)
        check(ours, plain, data)
        forms = (ours, plain)
        train = fastest([trainer(form, data) for form in forms], seconds / 2, least=4)
        infer = fastest([inference(form, data) for form in forms], seconds / 4, least=4)
        graph = all_kept(ours, plain, data)
        peak = [step_peak(form, channels) for form in ("ours", "plain")]
        row: dict[str, float] = {"channels": channels}
        for name, (mine, theirs) in {
            "train_s": train,
            "infer_s": infer,
            "kept_bytes": graph,
            "peak_bytes": peak,
        }.items():
            row |= {f"{name}_ours": mine, f"{name}_plain": theirs}
        rows.append(row)
        cells = [
            f"{p[1] / p[0]:.2f}x ({p[0] * 1e3:.1f} ms against {p[1] * 1e3:.1f})"
            for p in (train, infer)
        ]
        cells += [f"{p[0] / p[1]:.2f} of {p[1] / 2**20:.0f} MiB" for p in (graph, peak)]
        print_row(channels, SIZES[channels][0], *cells)
    return rows


def curve(output: Path, quick: bool, seconds: float) -> dict[str, list[float]]:
    """Training step of one layer of width 512, batch 1, against channels."""
    counts = [200, 500, 1000] if quick else [200, 500, 1000, 2000, 3000, 4000, 5000]
    make = partial(SOFTS, lookback=LOOKBACK, horizon=HORIZON, layers=1, width=512, feedforward=512)
    times: dict[str, list[float]] = {"SOFTS here": [], "published form": [], "full attention": []}
    for channels in counts:
        forms = [make(core=512), PublishedSOFTS(1, 512, 512, 512), make(attention="softmax")]
        data = (torch.randn(1, LOOKBACK, channels), None, torch.randn(1, HORIZON, channels))
        steps = [trainer(form, data) for form in forms]
        for values, value in zip(times.values(), fastest(steps, seconds / 9, least=4), strict=True):
            values.append(value)
    print()
    print_header("channels", *counts, "growth")
    for name, values in times.items():
        # t = a n^p: the slope in double logarithms over the upper half, where fixed costs no longer
        # count.
        half = len(counts) // 2
        power = np.polyfit(np.log(counts[half:]), np.log(values[half:]), 1)[0]
        print_row(f"{name} (ms)", *(f"{v * 1e3:.1f}" for v in values), f"n^{power:.2f}")
    draw(counts, times, output / "channels.png")
    return {"channels": [float(n) for n in counts], **times}


def draw(counts: list[int], times: dict[str, list[float]], path: Path) -> None:
    """Draw the time of a training step against channels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    for (name, values), colour in zip(
        times.items(), ("#3b6fb6", "#7b8794", "#d9822b"), strict=True
    ):
        axis.plot(counts, np.array(values) * 1e3, "o-", label=name, color=colour)
    axis.set(
        xlabel="channels",
        ylabel="ms per training step",
        title="One layer, width 512, batch 1, this CPU",
    )
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, less time")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="time spent on each pair of training steps"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/softs"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        report_peak(arguments.peak[0], int(arguments.peak[1]))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    seconds = 2.0 if arguments.quick else arguments.seconds
    with machine_load("both forms with the same weights"):
        rows = table(arguments.quick, seconds)
        curves = curve(arguments.output, arguments.quick, seconds)
        print(f"\nfigure {arguments.output / 'channels.png'}")
    (arguments.output / "softs.json").write_text(
        json.dumps({"rows": rows, "curve": curves}, indent=1)
    )


if __name__ == "__main__":
    main()
