"""Claim: experts that prefer classes of different frequency help on uneven data (MDCS, arXiv
2308.09922, ICCV 2023).

    python benchmarks/claims/mdcs.py [--seeds 3] [--steps 1000] [--jobs 1] [--output
    runs/benchmarks/mdcs]

Flowers (17 classes), a training part cut to 50 images of the first class falling evenly in the
logarithm to 1 of the last; the test part stays even. Small vision transformer, cosine classifiers,
the same two views and steps for all: plain cross entropy; logit adjustment (arXiv 2007.07314);
three logit-adjusted experts, to tell the ensemble from the idea; three experts with preferences
-.5, 1, 2.5; and these with consistency of the two views (MDCS). Which class is frequent is drawn
anew for each seed. Accuracy over all classes and over the thirds of most (6), middle (5) and fewest
images (6), mean over seeds; differences to plain, seed by seed, with 95 % intervals (Student).
Finished cells are kept.
"""

import json
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from headwise.benchmarks import domains
from headwise.benchmarks.cells import difference, run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.moe.diverse import DiverseHead, consistency_loss, diversity_loss

RATIO, MOST, BATCH, WARM = 50, 50, 32, 0.05
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
    side = domains.SIDE // 2
    at = torch.randint(-side // 2, domains.SIDE - side // 2, (len(x), 2), generator=dice)
    place = torch.arange(domains.SIDE)
    inside = (place >= at[:, :, None]) & (place < at[:, :, None] + side)
    return x.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)


def cell(form: str, seed: int, steps: int, folder: Path) -> None:
    """Train one model and keep its accuracy by class."""
    torch.set_num_threads(1)
    preferences, consistency = FORMS[form]
    train, test = domains.flowers()
    rows, order = uneven(train.y, seed)
    x, y = train.x[rows], train.y[rows]
    counts = torch.bincount(y, minlength=17)
    torch.manual_seed(seed)
    body = domains.flower_model("softmax")
    width = body.head.in_features
    body.head = nn.Identity()
    model = nn.Sequential(
        body, DiverseHead(width, 17, experts=len(preferences), scale=16.0, hidden=width)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    dice = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        some = torch.randint(len(y), (BATCH,), generator=dice)
        views = domains.shifted(x[some], dice), strong(x[some], dice)
        logits = model(torch.cat(views))
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
        right = model(test.x).mean(0).argmax(1) == test.y
    by_class = [float(right[test.y == label].double().mean()) for label in order]
    result = {"each": by_class, "counts": counts[order].tolist()}
    write_cell(path_of(folder, form, seed, steps), result)


def path_of(folder: Path, form: str, seed: int, steps: int) -> Path:
    """The file of a cell."""
    return folder / f"{list(FORMS).index(form)}-{seed}-{steps}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/mdcs"))
    arguments = parser.parse_args()
    folder, steps = arguments.output, arguments.steps
    cells = [(form, seed, steps) for seed in range(arguments.seeds) for form in FORMS]
    run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs)
    print_header("head", *GROUPS, *(f"{group} minus plain" for group in GROUPS))
    plain: dict[str, list[float]] = {}
    for form in FORMS:
        paths = [path_of(folder, form, seed, steps) for seed in range(arguments.seeds)]
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
