"""Slides and bags compared with the plain way, in one run: memory and time of a step of ACMIL,
ragged batches, tiles per second.

    python benchmarks/models/wsi.py [--seconds 0.5]     # tiles need the real slides (HEADWISE_DATA)

The plain form of ACMIL is the published one (arXiv 2311.07125) written straight in PyTorch, one bag
a step; both must give the same logits. The plain form of reading is a loop over openslide's
read_region. Measured as `ratios.py` says; memory is what is kept for the backward pass.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.benchmarks import ratios
from headwise.benchmarks.cells import DATA
from headwise.benchmarks.measure import Case, LeftOut, Size, kept_bytes
from headwise.data.slides.slides import Slide
from headwise.data.slides.tiles import Grid, TileReader, tile_grid
from headwise.models import ACMIL
from headwise.models.bags.acmil import diversity_loss

BRANCHES = 5
SLIDES = {"CMU-1-Small-Region.svs": None, "tcga-cr-7395-01a-01-ts1.svs": 0.5}  # name: mpp


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


def cases(size: Size) -> Iterator[Case | LeftOut]:
    """Steps and the reading of tiles."""
    yield step(size)
    for features, inner in ((8, 8),) if size == "tiny" else ((384, 128), (1024, 512)):
        yield ragged(features, inner)
    for name, mpp in SLIDES.items():
        path = DATA / "wsi" / "slides" / name
        if size == "tiny" or not path.is_file():
            yield LeftOut(f"tiles of {name}", "not in HEADWISE_DATA, or --quick")
            continue
        with Slide(path, mpp) as slide:
            yield tiles(slide, path)


def step(size: Size) -> Case:
    """Forward and backward of one bag of 20,000 x 1,024."""
    instances, features, inner = (20, 8, 8) if size == "tiny" else (20_000, 1024, 512)
    plain, ours = same_weights(features, inner)
    x, label = torch.randn(instances, features), torch.tensor([1])
    losses = [partial(loss_of, ours, x, label), partial(plain.loss, x, label)]
    known = [x, *plain.parameters(), *ours.parameters()]
    steps = [step_of(form, loss) for form, loss in zip((ours, plain), losses)]

    def kept() -> list[int]:
        return [kept_bytes(loss, known) for loss in losses]

    return Case(f"a bag of {instances:,}", steps[0], {"published form": steps[1]}, kept)


def ragged(features: int, inner: int) -> Case:
    """An optimiser step of 64 small bags at once against 64 steps of one bag."""
    plain, ours = same_weights(features, inner)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(50, 501, (64,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    x = torch.randn(int(offsets[-1]), features)
    labels = torch.randint(0, 2, (64,), generator=generator)
    plain_adam, our_adam = (
        torch.optim.AdamW(model.parameters(), lr=1e-4) for model in (plain, ours)
    )

    def single() -> None:
        for bag, label in zip(x.split(lengths.tolist()), labels.split(1), strict=True):
            plain_adam.zero_grad()
            plain.loss(bag, label).backward()
            plain_adam.step()

    def together() -> None:
        our_adam.zero_grad()
        loss_of(ours, x, labels, offsets).backward()
        our_adam.step()

    name = f"64 bags of 50 to 500, {features} to {inner}"
    return Case(name, together, {"published form, 64 steps": single}, memory=False)


def grid_of(slide: Slide) -> Grid:
    """Tiles of 256 pixels with tissue."""
    assert slide.mpp is not None
    return tile_grid(slide, tile=256, tile_mpp=slide.mpp, least_tissue=0.01)


def tiles(slide: Slide, path: Path) -> Case:
    """Tiles with 2 threads against a loop over read_region.

    Both open the slide anew: no slide of real size would come out of OpenSlide's cache a second
    time.
    """
    import openslide

    grid = grid_of(slide)
    side = (grid.extent, grid.extent)

    def loop() -> None:
        with openslide.OpenSlide(path) as opened:
            for x, y in grid.coords.tolist():
                np.asarray(opened.read_region((x, y), 0, side).convert("RGB"))

    def ours() -> None:
        slide.close()
        for _ in TileReader(slide, grid, threads=2):
            pass

    return Case(f"tiles of {path.name}", ours, {"loop over read_region": loop}, memory=False)


def waiting(folder: Path) -> None:
    """Print how long an encoder of 100 tiles per second, which leaves the CPU alone, waits."""
    for name, mpp in SLIDES.items():
        path = folder / "wsi" / "slides" / name
        if not path.is_file():
            continue
        with Slide(path, mpp) as slide:
            reader = TileReader(slide, grid_of(slide), threads=2, batch=32)
            began = time.perf_counter()
            for _, batch, _ in reader:
                time.sleep(0.01 * len(batch))
            share = reader.waited / (time.perf_counter() - began)
            print(f"{name}: an encoder of 100 tiles/s waits {share:.1%} of its time")


if __name__ == "__main__":
    ratios.main(__doc__, ["models/wsi"])
    waiting(DATA)
