"""Claim: experts that prefer classes of different frequency help on uneven data (MDCS, arXiv
2308.09922, ICCV 2023).

    python benchmarks/claims/mdcs.py [--features efficientnet-lite0] [--seeds 3] [--steps 1000]
    [--jobs 1] [--output runs/benchmarks/mdcs]

Flowers (17 classes), a training part cut to 50 images of the first class falling evenly in the
logarithm to 1 of the last; the test part stays even. Small vision transformer, cosine classifiers,
the same two views and steps for all: plain cross entropy; logit adjustment (arXiv 2007.07314);
three logit-adjusted experts, to tell the ensemble from the idea; three experts with preferences
-.5, 1, 2.5; and these with consistency of the two views (MDCS). Which class is frequent is drawn
anew for each seed. Accuracy over all classes and over the thirds of most (6), middle (5) and fewest
images (6), mean over seeds; differences to plain, seed by seed, with 95 % intervals (Student).
Finished cells are kept.

--features: the same heads, trained alone on frozen features of published weights (of
`headwise data list`, fetched on first use), read once at the encoder's size and kept in the output
folder. The views of a picture are then drawn from 4 weak and 4 strong ones whose features are
stored, and a hidden layer has 256 numbers; features are standardised by those of the cut's weak
views; the test part is read as it is.
"""

import json
import statistics
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from headwise.benchmarks import domains
from headwise.benchmarks.cells import difference, run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.layers.encoders import TileEncoder
from headwise.models.moe.diverse import DiverseHead, consistency_loss, diversity_loss
from headwise.pipelines.engine.frozen import SIDE, open_encoder
from headwise.pipelines.engine.weights import resolve_weights

RATIO, MOST, BATCH, WARM = 50, 50, 32, 0.05
VIEWS, HIDDEN = 4, 256  # of each kind of a picture, and of a head, with frozen features
FORMS = {
    "plain": ((0.0,), 0.0),
    "logit-adjusted": ((1.0,), 0.0),
    "three logit-adjusted experts": ((1.0, 1.0, 1.0), 0.0),
    "three preferences": ((-0.5, 1.0, 2.5), 0.0),
    "MDCS": ((-0.5, 1.0, 2.5), 0.6),
}
GROUPS = {"all": slice(None), "head": slice(0, 6), "medium": slice(6, 11), "few": slice(11, 17)}


def uneven(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the cut, and the classes from most to fewest images."""
    dice = torch.Generator().manual_seed(seed)
    order = torch.randperm(17, generator=dice)
    rows = []
    for place, label in enumerate(order):
        these = (labels == label).nonzero().flatten()
        count = max(1, round(MOST * RATIO ** (-place / 16)))
        rows.append(these[torch.randperm(len(these), generator=dice)[:count]])
    return torch.cat(rows), order


def strong(x: Tensor, dice: torch.Generator) -> Tensor:
    """Brightness and contrast of each channel, and a grey square of a quarter of the area at
    most.
    """
    x = domains.shifted(x, dice)
    factor, offset = (torch.rand(len(x), 3, 1, 1, generator=dice) for _ in range(2))
    x = (x * (0.6 + 0.8 * factor) + 0.6 * (offset - 0.5)).clamp(-1, 1)
    width = x.shape[-1]
    side = width // 2
    at = torch.randint(-side // 2, width - side // 2, (len(x), 2), generator=dice)
    place = torch.arange(width)
    inside = (place >= at[:, :, None]) & (place < at[:, :, None] + side)
    return x.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)


class Pixels:
    """Flowers of 64 x 64 pixels, whose views are drawn anew in each step, and a small vision
    transformer.
    """

    def __init__(self, rows: Tensor, train: domains.Split) -> None:
        self.x = train.x[rows]
        self.body = domains.flower_model("softmax")
        self.width = self.hidden = self.body.head.in_features
        self.body.head = nn.Identity()

    def views(self, some: Tensor, dice: torch.Generator) -> Tensor:
        """Weak views and then strong ones of some pictures, (2 B, 3, 64, 64)."""
        return torch.cat([domains.shifted(self.x[some], dice), strong(self.x[some], dice)])


class Features:
    """Frozen features of stored views: (N, 4, D) of weak and of strong ones; there is no body."""

    def __init__(self, rows: Tensor, stored: dict[str, Tensor]) -> None:
        weak = stored["weak"][rows]
        self.mean, self.deviation = weak.mean((0, 1)), weak.std((0, 1)).clamp_min(1e-6)
        self.parts = [self.scaled(weak), self.scaled(stored["strong"][rows])]
        self.body, self.width, self.hidden = nn.Identity(), weak.shape[-1], HIDDEN

    def scaled(self, x: Tensor) -> Tensor:
        """Standardised."""
        return (x - self.mean) / self.deviation

    def views(self, some: Tensor, dice: torch.Generator) -> Tensor:
        """A weak view and then a strong one of some pictures, (2 B, D)."""
        drawn = torch.randint(0, VIEWS, (2, len(some)), generator=dice)
        return torch.cat([part[some, view] for part, view in zip(self.parts, drawn, strict=True)])


@torch.no_grad()
def read_features(name: str, seeds: int, file: Path) -> None:
    """Store the features of all views of the pictures in the cuts and of the test part, with the
    labels of both parts.
    """
    weights = resolve_weights(name, "features", backbone="auto", scratch="auto")
    encoder = open_encoder(weights).eval().to(memory_format=torch.channels_last)
    train, test = domains.flowers(side=encoder.side or SIDE)
    dice = torch.Generator().manual_seed(0)
    rows = torch.cat([uneven(train.y, seed)[0] for seed in range(seeds)]).unique()
    stored = {"rows": rows, "train_y": train.y, "test_y": test.y}
    for kind, change in (("weak", domains.shifted), ("strong", strong)):
        # Picture by picture, so that each is moved by itself.
        views = [
            encoded(encoder, torch.cat([change(x[None], dice) for _ in range(VIEWS)]))
            for x in tqdm(train.x[rows], unit="picture", desc=f"{kind} views")
        ]
        stored[kind] = torch.stack(views)
    stored["test"] = torch.cat([encoded(encoder, x) for x in test.x.split(BATCH)])
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, file.with_suffix(".part"))
    file.with_suffix(".part").rename(file)


def encoded(encoder: TileEncoder, x: Tensor) -> Tensor:
    """Features (B, D) of pictures (B, 3, Y, X) in [-1, 1]."""
    return encoder.features((x + 1) / 2).float()


def file_of(folder: Path, features: str, seeds: int) -> Path:
    """Where the features of an encoder are stored."""
    return folder / f"{features}-{seeds}.safetensors"


def cell(form: str, seed: int, steps: int, features: str | None, seeds: int, folder: Path) -> None:
    """Train one model and keep its accuracy by class."""
    torch.set_num_threads(1)
    preferences, consistency = FORMS[form]
    if features is None:
        train, test = domains.flowers()
        labels, test_x, test_y = train.y, test.x, test.y
        rows, order = uneven(labels, seed)
        torch.manual_seed(seed)
        source = Pixels(rows, train)
    else:
        stored = load_file(file_of(folder, features, seeds))
        labels, test_x, test_y = (stored[key] for key in ("train_y", "test", "test_y"))
        rows, order = uneven(labels, seed)
        torch.manual_seed(seed)
        source = Features(torch.searchsorted(stored["rows"], rows), stored)
        test_x = source.scaled(test_x)
    y = labels[rows]
    counts = torch.bincount(y, minlength=17)
    head = DiverseHead(source.width, 17, experts=len(preferences), scale=16.0, hidden=source.hidden)
    model = nn.Sequential(source.body, head)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    dice = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        some = torch.randint(len(y), (BATCH,), generator=dice)
        logits = model(source.views(some, dice))
        loss = diversity_loss(logits, y[some].repeat(2), counts, preferences)
        if consistency:
            weak, hard = logits.chunk(2, 1)
            rise = min(1.0, step / (WARM * steps))
            loss = loss + consistency * rise * consistency_loss(
                weak, hard, y[some], counts, preferences
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
    model.eval()
    with torch.no_grad():
        right = model(test_x).mean(0).argmax(1) == test_y
    by_class = [float(right[test_y == label].double().mean()) for label in order]
    result = {"each": by_class, "counts": counts[order].tolist()}
    write_cell(path_of(folder, form, seed, steps, features, seeds), result)


def path_of(
    folder: Path, form: str, seed: int, steps: int, features: str | None, _seeds: int
) -> Path:
    """The file of a cell."""
    of_features = "" if features is None else f"-{features}"
    return folder / f"{list(FORMS).index(form)}-{seed}-{steps}{of_features}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--features", help="an encoder of pictures of `headwise data list`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/mdcs"))
    arguments = parser.parse_args()
    folder, steps = arguments.output, arguments.steps
    features, seeds = arguments.features, arguments.seeds
    if features is not None and not file_of(folder, features, seeds).exists():
        read_features(features, seeds, file_of(folder, features, seeds))
    cells = [(form, seed, steps, features, seeds) for seed in range(seeds) for form in FORMS]
    run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs)
    print_header("head", *GROUPS, *(f"{group} minus plain" for group in GROUPS))
    plain: dict[str, list[float]] = {}
    for form in FORMS:
        paths = [path_of(folder, form, seed, steps, features, seeds) for seed in range(seeds)]
        rows = [json.loads(path.read_text())["each"] for path in paths]
        accuracy = {
            group: [statistics.mean(row[part]) for row in rows] for group, part in GROUPS.items()
        }
        plain = plain or accuracy
        means = [f"{statistics.mean(accuracy[group]):.3f}" for group in GROUPS]
        changes = [
            "" if accuracy is plain else difference(accuracy[group], plain[group])
            for group in GROUPS
        ]
        print_row(form, *means, *changes)


if __name__ == "__main__":
    main()
