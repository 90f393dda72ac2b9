"""Claim: without token mixing a language model collapses, and layers of standard attention in
between bring it back (Deconstructing Attention, arXiv 2510.11602).

    python benchmarks/claims/deconstruction.py [--steps 800] [--seeds 2] [--jobs 2]

A model of characters (4 causal layers of width 64, 128 characters) on the English text that ships
with Python itself (pydoc_data.topics, about 0.7 MB; the last tenth is the test part). Each variant
alone ("uniform") and in every second layer with softmax attention in the others ("hybrid").
Perplexity per character on the test part with a 95 % bootstrap interval over its pieces, and the
range over seeds. A finished cell is a file in OUTPUT and is not run again.
"""

import inspect
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.benchmarks.cells import run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row

VARIANTS = ("softmax", "no-mixing", "taylor", "query-free", "random", "position-only", "static")
LENGTH, BATCH, WIDTH, DEPTH = 128, 16, 64, 4


def text() -> tuple[Tensor, Tensor, int]:
    """Characters of the training and of the test part as numbers, and how many kinds there are."""
    from pydoc_data.topics import topics

    document = "\n".join(topics[key] for key in sorted(topics))
    kinds = sorted(set(document))
    place = {character: i for i, character in enumerate(kinds)}
    numbers = torch.tensor([place[character] for character in document])
    cut = len(numbers) * 9 // 10
    return numbers[:cut], numbers[cut:], len(kinds)


def build(plan: tuple[str, ...], kinds: int) -> nn.Module:
    """Character model: embedding, learned positions, causal encoder, linear head."""
    from headwise.models.attention import build_attention
    from headwise.models.layers.vit import TransformerEncoder

    def options(name: str) -> dict[str, bool]:
        accepted = inspect.signature(type(build_attention(name, WIDTH, 4))).parameters
        return {"causal": True} if "causal" in accepted else {}

    class CharacterModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(kinds, WIDTH)
            self.place = nn.Embedding(LENGTH, WIDTH)
            self.encoder = TransformerEncoder(
                WIDTH,
                depth=DEPTH,
                heads=4,
                attention=plan,
                options={name: options(name) for name in plan},
            )
            self.head = nn.Linear(WIDTH, kinds)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(x) + self.place.weight[: x.shape[1]]))

    return CharacterModel()


def cell(name: str, hybrid: bool, seed: int, steps: int, folder: Path) -> None:
    """Train one model, keep the loss of each piece of the test part."""
    torch.set_num_threads(1)
    train, test, kinds = text()
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    model = build((name, "softmax") if hybrid else (name,), kinds).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    begun = time.perf_counter()
    for _ in range(steps):
        starts = torch.randint(0, len(train) - LENGTH - 1, (BATCH,), generator=dice)
        piece = torch.stack([train[s : s + LENGTH + 1] for s in starts])
        loss = F.cross_entropy(model(piece[:, :-1]).flatten(0, 1), piece[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
    spent = time.perf_counter() - begun
    model.eval()
    pieces = test[: len(test) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
    losses = []
    with torch.no_grad():
        for part in pieces.split(32):
            logits = model(part[:, :-1]).transpose(1, 2)
            loss = F.cross_entropy(logits, part[:, 1:], reduction="none")
            losses += loss.mean(1).tolist()
    result = {
        "name": name,
        "hybrid": hybrid,
        "seed": seed,
        "losses": losses,
        "ms": 1000 * spent / steps,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    write_cell(path_of(folder, name, hybrid, seed, steps), result)


def path_of(folder: Path, name: str, hybrid: bool, seed: int, steps: int) -> Path:
    """The file of a cell."""
    return folder / f"{name}-{'hybrid' if hybrid else 'uniform'}-{seed}-{steps}.json"


def perplexity(losses: list[list[float]]) -> tuple[float, float, float]:
    """exp of the mean over seeds and pieces, and its 95 % bootstrap interval over pieces."""
    import numpy as np

    per_piece = np.mean(losses, 0)
    rows = np.random.default_rng(0).integers(0, len(per_piece), (2000, len(per_piece)))
    low, high = np.quantile(np.exp(per_piece[rows].mean(1)), [0.025, 0.975])
    return float(np.exp(per_piece.mean())), float(low), float(high)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/deconstruction"))
    arguments = parser.parse_args()
    folder, steps = arguments.output, arguments.steps
    cells = [
        (name, hybrid, seed)
        for seed in range(arguments.seeds)
        for name in VARIANTS
        for hybrid in (False, True)
        if not (hybrid and name == "softmax")
    ]
    waiting = waiting_cells(path_of, folder, [(*key, steps) for key in cells])
    run_cells(cell, waiting, arguments.jobs)
    results: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for name, hybrid, seed in cells:
        path = path_of(folder, name, hybrid, seed, steps)
        results.setdefault((name, hybrid), []).append(json.loads(path.read_text()))
    columns = [f"{kind}: perplexity (95 %)" for kind in ("uniform", "hybrid")]
    print_header("variant", columns[0], "parameters", columns[1], "parameters")
    for name in VARIANTS:
        line = [name]
        for hybrid in (False, True):
            rows = results.get((name, hybrid))
            if rows is None:
                line += ["", ""]
                continue
            line.append(
                "{:.2f} ({:.2f}–{:.2f})".format(*perplexity([row["losses"] for row in rows]))
            )
            line.append(f"{rows[0]['parameters']:,}")
        print_row(*line)


if __name__ == "__main__":
    main()
