"""SOFTS here beside a straight PyTorch form of the published algorithm, in one run on this machine.

    python benchmarks/models/softs.py [--quick] [--seconds 10] [--output runs/benchmarks/softs]

The published form is written below from the formulas: softmax, multinomial, gather, repeat,
concatenation. Training steps (forward, backward, Adam) and inference steps of both are timed in
turn and the fastest of each is taken; bytes kept for the backward pass are counted by hooks, peak
memory by a process of its own for each form. No figure is printed before both forms agree. The last
part draws time against channels for both and for full attention. Other work on the machine spoils
the figures: the load is printed before and after, and --seconds lengthens the measurement."""

import argparse
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.kernels.star_core import star_core
from headwise.models import SOFTS

LOOKBACK = HORIZON = 96
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
    """The whole forecaster; parameters are named as ours, so that weights can be copied."""

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


def pair(channels: int) -> tuple[SOFTS, PublishedSOFTS, tuple[Tensor, Tensor | None, Tensor]]:
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


def check(ours: SOFTS, plain: PublishedSOFTS, data: tuple[Tensor, Tensor | None, Tensor]) -> None:
    """Inference must agree, and the training step of a layer, drawn alike, with all its
    gradients.
    """
    past, marks, _ = data
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(past, marks), plain.eval()(past, marks), atol=2e-5, rtol=1e-4
        )
    mine, theirs = ours.layers[0].mixer, plain.layers[0].mixer.train()
    x = torch.randn(2, past.shape[2], mine.width)
    weights = [mine.hidden.weight, mine.hidden.bias, mine.core.weight, mine.core.bias]
    grads = []
    for form in ("ours", "plain"):
        mine.zero_grad(), theirs.zero_grad()
        given = x.clone().requires_grad_()
        core, index = star_core(given, *weights, seed=1)
        if form == "plain":
            theirs(given, index).square().sum().backward()
            grads.append([given.grad, *(p.grad for p in theirs.parameters())])
        else:
            shared = F.linear(core, mine.fuse.weight[:, mine.width :], mine.fuse.bias)
            fused = F.linear(given, mine.fuse.weight[:, : mine.width]) + shared[:, None]
            mine.out(F.gelu(fused)).square().sum().backward()
            grads.append([given.grad, *(p.grad for p in mine.parameters())])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


def trainer(model: nn.Module, data: tuple[Tensor, Tensor | None, Tensor]) -> Callable[[], None]:
    """One training step."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(model(*data[:2]), data[2]).backward()
        optimizer.step()

    return step


def inference(model: nn.Module, data: tuple[Tensor, Tensor | None, Tensor]) -> Callable[[], None]:
    """One inference step."""

    def step() -> None:
        model.eval()
        with torch.no_grad():
            model(*data[:2])

    return step


def fastest(steps: list[Callable[[], None]], seconds: float) -> list[float]:
    """Seconds of the fastest call of each, called in turn for about `seconds` in all, at least four
    times.
    """
    best = [float("inf")] * len(steps)
    started, rounds = time.perf_counter(), 0
    while rounds < 4 or time.perf_counter() - started < seconds:
        for i, step in enumerate(steps):
            begun = time.perf_counter()
            step()
            best[i] = min(best[i], time.perf_counter() - begun)
        rounds += 1
    return best


class Held:
    """A tensor that the graph keeps; it dies with the graph's node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # a tensor that knows its node would keep the node alive


def kept_bytes(model: nn.Module, data: tuple[Tensor, Tensor | None, Tensor]) -> int:
    """Bytes kept between forward and backward, each storage once, without parameters and input.

    Operators of our own save through the same hooks. What a node saved that is gone before the
    backward pass (the softmax that only the published draw uses) is not counted."""
    model.train()
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    known |= {t.untyped_storage().data_ptr() for t in data if t is not None}
    alive: weakref.WeakSet[Held] = weakref.WeakSet()

    def pack(tensor: Tensor) -> Held:
        held = Held(tensor)
        alive.add(held)
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        loss = F.mse_loss(model(*data[:2]), data[2])
    kept = {s.data_ptr(): s.nbytes() for s in (held.tensor.untyped_storage() for held in alive)}
    loss.backward()
    return sum(size for address, size in kept.items() if address not in known)


def peak_bytes(form: str, channels: int) -> int:
    """Peak memory of one training step beyond model and data, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", form, str(channels)], capture_output=True, text=True
    )
    return int(done.stdout) if done.returncode == 0 else -1


def report_peak(form: str, channels: int) -> None:
    ours, plain, data = pair(channels)
    model = ours if form == "ours" else plain
    trainer(model, tuple(t[:1] if t is not None else None for t in data))()  # type: ignore[arg-type]

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    before = status("VmRSS")
    trainer(model, data)()
    print(status("VmHWM") - before)


def table(quick: bool, seconds: float) -> list[dict[str, float]]:
    rows = []
    print_header(
        "channels", "batch", "training", "inference", "kept for backward", "peak of a step"
    )
    for channels in [7, 21, 207] if quick else SIZES:
        ours, plain, data = pair(channels)
        check(ours, plain, data)
        train = fastest([trainer(ours, data), trainer(plain, data)], seconds)
        infer = fastest([inference(ours, data), inference(plain, data)], seconds / 2)
        kept = [kept_bytes(ours, data), kept_bytes(plain, data)]
        peak = [peak_bytes("ours", channels), peak_bytes("plain", channels)]
        row = {"channels": channels}
        for name, (mine, theirs) in {
            "train_s": train,
            "infer_s": infer,
            "kept_bytes": kept,
            "peak_bytes": peak,
        }.items():
            row |= {f"{name}_ours": mine, f"{name}_plain": theirs}
        rows.append(row)
        cells = [
            f"{p[1] / p[0]:.2f}x ({p[0] * 1e3:.1f} ms against {p[1] * 1e3:.1f})"
            for p in (train, infer)
        ]
        cells += [f"{p[0] / p[1]:.2f} of {p[1] / 2**20:.0f} MiB" for p in (kept, peak)]
        print_row(channels, SIZES[channels][0], " | ".join(cells))
    return rows


def curve(output: Path, quick: bool, seconds: float) -> dict[str, list[float]]:
    """Training step of one layer of width 512, batch 1, against channels; full attention up to
    where it is patient.
    """
    counts = [200, 500, 1000] if quick else [200, 500, 1000, 2000, 3000, 4000, 5000]
    options = {
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "layers": 1,
        "width": 512,
        "feedforward": 512,
    }
    times: dict[str, list[float]] = {"SOFTS here": [], "published form": [], "full attention": []}
    for channels in counts:
        forms = [
            SOFTS(**options, core=512),
            PublishedSOFTS(1, 512, 512, 512),
            SOFTS(**options, attention="softmax"),
        ]
        data = (torch.randn(1, LOOKBACK, channels), None, torch.randn(1, HORIZON, channels))
        for name, value in zip(
            times, fastest([trainer(m, data) for m in forms], seconds / 3), strict=True
        ):
            times[name].append(value)
    print(
        "\n| channels | "
        + " | ".join(map(str, counts))
        + " | growth |\n|---"
        + "|---" * (len(counts) + 1)
        + "|"
    )
    for name, values in times.items():
        # t = a n^p: the slope in double logarithms over the upper half, where fixed costs no longer
        # count.
        half = len(counts) // 2
        power = np.polyfit(np.log(counts[half:]), np.log(values[half:]), 1)[0]
        print(
            f"| {name} (ms) | "
            + " | ".join(f"{v * 1e3:.1f}" for v in values)
            + f" | n^{power:.2f} |"
        )
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
    figure.savefig(output / "channels.png", dpi=120)
    return {"channels": [float(n) for n in counts], **times}


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
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    rows = table(arguments.quick, seconds)
    curves = curve(arguments.output, arguments.quick, seconds)
    (arguments.output / "softs.json").write_text(
        json.dumps({"rows": rows, "curve": curves}, indent=1)
    )
    print(f"\nfigure {arguments.output / 'channels.png'}")
    print(
        f"load of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (this benchmark alone is about 2)"
    )


if __name__ == "__main__":
    main()
