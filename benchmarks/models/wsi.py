"""Slides and bags compared with the plain way, in one run: memory and time of a step of ACMIL,
ragged batches, tiles per second.

    python benchmarks/models/wsi.py     # all three; tiles need the real slides (HEADWISE_DATA)
    python benchmarks/models/wsi.py --only step

The plain form of ACMIL is the published one (arXiv 2311.07125) written straight in PyTorch, one bag
a step; before any timing both must give the same logits. The plain form of reading is a loop over
openslide's read_region.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.benchmarks.cells import DATA
from headwise.benchmarks.measure import fastest, kept_bytes, parser_of
from headwise.data.slides.slides import Slide
from headwise.data.slides.tiles import TileReader, tile_grid
from headwise.models import ACMIL
from headwise.models.bags.acmil import diversity_loss

BRANCHES = 5


class Published(nn.Module):
    """ACMIL, gated, for one bag (N, D): logits of the branches, of the slide, and raw attention (K,
    N).
    """

    def __init__(self, features: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(features, inner, bias=False)
        self.v, self.u = nn.Linear(inner, 128), nn.Linear(inner, 128)
        self.w = nn.Linear(128, BRANCHES)
        self.branch = nn.ModuleList(nn.Linear(inner, 2) for _ in range(BRANCHES))
        self.slide = nn.Linear(inner, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.reduce(x))
        a = self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h))).T
        if self.training:
            top = a.topk(min(10, a.shape[1]), dim=1).indices
            masked = torch.rand(top.shape).argsort(1)[:, : int(top.shape[1] * 0.6)]
            a = a.masked_fill(
                torch.zeros_like(a, dtype=torch.bool).scatter_(1, top.gather(1, masked), True), -1e9
            )
        pooled = a.softmax(1) @ h
        branch = torch.stack([layer(pooled[k]) for k, layer in enumerate(self.branch)])
        return branch, self.slide(a.softmax(1).mean(0, keepdim=True) @ h), a

    def loss(self, x: Tensor, label: Tensor) -> Tensor:
        branch, slide, a = self(x)
        p = a.softmax(1)
        pairs = [F.cosine_similarity(p[i], p[j], dim=0) for i in range(BRANCHES) for j in range(i)]
        diversity = torch.stack(pairs).mean()
        return (
            F.cross_entropy(branch, label.repeat(BRANCHES))
            + F.cross_entropy(slide, label)
            + diversity
        )


def same_weights(features: int, inner: int) -> tuple[Published, ACMIL]:
    """Both forms with the same weights; ends with the difference where their logits differ."""
    torch.manual_seed(0)
    plain, ours = Published(features, inner), ACMIL(features, 2, inner=inner, branches=BRANCHES)
    with torch.no_grad():
        ours.reduce.weight.copy_(plain.reduce.weight)
        ours.gates.weight.copy_(torch.cat([plain.v.weight, plain.u.weight]))
        ours.gates.bias.copy_(torch.cat([plain.v.bias, plain.u.bias]))
        others = (
            (ours.score, plain.w),
            (ours.classifier, plain.slide),
            *zip(ours.classifiers, plain.branch),
        )
        for mine, theirs in others:
            mine.load_state_dict(theirs.state_dict())
        x = torch.randn(300, features)
        difference = float((plain.eval()(x)[1] - ours.eval()(x)).abs().max())
    if difference > 1e-4:
        raise SystemExit(f"the two forms differ by {difference:.2g}")
    return plain.train(), ours.train()


def loss_of(model: ACMIL, x: Tensor, labels: Tensor, offsets: Tensor | None = None) -> Tensor:
    """The same loss, of any number of bags."""
    bags = model.attend(x, offsets)
    assert bags.branch_logits is not None
    assert bags.scores is not None
    branch = F.cross_entropy(bags.branch_logits.flatten(0, 1), labels.repeat_interleave(BRANCHES))
    return branch + F.cross_entropy(bags.logits, labels) + diversity_loss(bags.scores, offsets)


def step_of(model: nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward pass of a loss."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        call().backward()

    return run


def step(seconds: float) -> None:
    """Forward and backward of one bag of 20,000 x 1,024."""
    plain, ours = same_weights(1024, 512)
    x, label = torch.randn(20_000, 1024), torch.tensor([1])
    calls = [lambda: plain.loss(x, label), lambda: loss_of(ours, x, label)]
    known = [x, *plain.parameters(), *ours.parameters()]
    graph = [kept_bytes(call, known) for call in calls]

    times = fastest([step_of(plain, calls[0]), step_of(ours, calls[1])], seconds)
    print("ACMIL, forward and backward, one bag of 20,000 x 1,024, inner 512, 5 branches")
    for name, unit, (plain_size, our_size) in (
        ("activations", "MiB", [size / 2**20 for size in graph]),
        ("time", "ms", [1e3 * spent for spent in times]),
    ):
        sizes = f"plain {plain_size:6.1f} {unit:<5} ours {our_size:6.1f} {unit:<5}"
        print(f"  {name:<12} {sizes} ratio {our_size / plain_size:.2f}")


def ragged(seconds: float) -> None:
    """An optimiser step of 64 small bags at once against 64 steps of one bag."""
    for features, inner in ((384, 128), (1024, 512)):
        plain, ours = same_weights(features, inner)
        generator = torch.Generator().manual_seed(1)
        lengths = torch.randint(50, 501, (64,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        x, labels = (
            torch.randn(int(offsets[-1]), features),
            torch.randint(0, 2, (64,), generator=generator),
        )
        ends = offsets.tolist()
        plain_adam, our_adam = (
            torch.optim.AdamW(model.parameters(), lr=1e-4) for model in (plain, ours)
        )

        def single(ends=ends, x=x, labels=labels, plain=plain, adam=plain_adam) -> None:
            for b in range(64):
                adam.zero_grad()
                plain.loss(x[ends[b] : ends[b + 1]], labels[b : b + 1]).backward()
                adam.step()

        def together(x=x, labels=labels, offsets=offsets, ours=ours, adam=our_adam) -> None:
            adam.zero_grad()
            loss_of(ours, x, labels, offsets).backward()
            adam.step()

        one_by_one, at_once = fastest([single, together], seconds)
        print(f"64 bags of 50 to 500 instances, features {features}, inner {inner}")
        times = f"{one_by_one * 1e3:.0f} ms   one ragged step {at_once * 1e3:.0f} ms"
        print(f"  64 published steps {times}   {one_by_one / at_once:.2f}x")


def tiles(folder: Path, seconds: float) -> None:
    """Tiles per second with 2 threads against a loop over read_region, and how long an encoder
    waits for them.
    """
    import openslide

    for name, mpp in (("CMU-1-Small-Region.svs", None), ("tcga-cr-7395-01a-01-ts1.svs", 0.5)):
        path = folder / "wsi" / "slides" / name
        if not path.is_file():
            print(f"{name}: not there (set HEADWISE_DATA); skipped")
            continue
        with Slide(path, mpp) as slide:
            assert slide.mpp is not None
            grid = tile_grid(slide, tile=256, tile_mpp=slide.mpp, least_tissue=0.01)
            side = (grid.extent, grid.extent)

            # Both open the slide anew: no slide of real size would come out of OpenSlide's cache a
            # second time.
            def loop(path=path, grid=grid, side=side) -> None:
                with openslide.OpenSlide(path) as opened:
                    for x, y in grid.coords.tolist():
                        np.asarray(opened.read_region((x, y), 0, side).convert("RGB"))

            def ours(slide=slide, grid=grid) -> None:
                slide.close()
                for _ in TileReader(slide, grid, threads=2):
                    pass

            plain, mine = fastest([loop, ours], seconds)
            reader, began = TileReader(slide, grid, threads=2, batch=32), time.perf_counter()
            for _, batch, _ in reader:
                # An encoder of 100 tiles per second that leaves the CPU alone.
                time.sleep(0.01 * len(batch))
            took = time.perf_counter() - began
            print(f"{name}: {len(grid)} tiles of {grid.tile} pixels")
            rates = [f"{len(grid) / seconds:.0f} tiles/s" for seconds in (plain, mine)]
            share = f"{reader.waited / took:.1%}"
            waits = f"an encoder of 100 tiles/s waits {share} of its time"
            print(f"  loop {rates[0]}   2 threads {rates[1]}   {plain / mine:.2f}x; {waits}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--only", choices=("step", "ragged", "tiles"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each pair")
    arguments = parser.parse_args()
    if arguments.only in (None, "step"):
        step(arguments.seconds)
    if arguments.only in (None, "ragged"):
        ragged(arguments.seconds)
    if arguments.only in (None, "tiles"):
        tiles(DATA, arguments.seconds)


if __name__ == "__main__":
    main()
