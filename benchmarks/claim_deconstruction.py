"""Claim: without token mixing a language model collapses, and layers of standard attention in
between bring it back (Deconstructing Attention, arXiv 2510.11602).

    python benchmarks/claim_deconstruction.py [--steps 800] [--seeds 2] [--jobs 2]

A model of characters (4 causal layers of width 64, 128 characters) on the English text that ships
with Python itself (pydoc_data.topics, about 0.7 MB; the last tenth is the test part). Each variant
alone ("uniform") and in every second layer with softmax attention in the others ("hybrid").
Perplexity per character on the test part with a 95 % bootstrap interval over its pieces, and the
range over seeds. A finished cell is a file in OUTPUT and is not run again."""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from tqdm import tqdm

VARIANTS = ("softmax", "no-mixing", "taylor", "query-free", "random", "position-only", "static")
LENGTH, BATCH, WIDTH, DEPTH = 128, 16, 64, 4


def text() -> tuple:
    """Characters of the training and of the test part as numbers, and how many kinds there are."""
    from pydoc_data.topics import topics

    import torch

    whole = "\n".join(topics[key] for key in sorted(topics))
    kinds = sorted(set(whole))
    place = {character: i for i, character in enumerate(kinds)}
    numbers = torch.tensor([place[character] for character in whole])
    cut = len(numbers) * 9 // 10
    return numbers[:cut], numbers[cut:], len(kinds)


def build(plan: tuple[str, ...], kinds: int):
    """Character model: embedding, learned positions, causal encoder, linear head."""
    import inspect

    from torch import nn

    from headwise.models.attention import build_attention
    from headwise.models.layers.vit import TransformerEncoder

    def options(name: str) -> dict:
        accepted = inspect.signature(type(build_attention(name, WIDTH, 4))).parameters
        return {"causal": True} if "causal" in accepted else {}

    class CharacterModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(kinds, WIDTH)
            self.place = nn.Embedding(LENGTH, WIDTH)
            made = {name: options(name) for name in plan}
            self.encoder = TransformerEncoder(
                WIDTH, depth=DEPTH, heads=4, attention=plan, options=made
            )
            self.head = nn.Linear(WIDTH, kinds)

        def forward(self, x):
            return self.head(self.encoder(self.embed(x) + self.place.weight[: x.shape[1]]))

    return CharacterModel()


def cell(name: str, hybrid: bool, seed: int, steps: int, folder: Path) -> dict:
    """Train one model, keep the loss of each piece of the test part."""
    import torch
    import torch.nn.functional as F

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
            each = F.cross_entropy(
                model(part[:, :-1]).transpose(1, 2), part[:, 1:], reduction="none"
            )
            losses += each.mean(1).tolist()
    result = {
        "name": name,
        "hybrid": hybrid,
        "seed": seed,
        "losses": losses,
        "ms": 1000 * spent / steps,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    path = folder / f"{name}-{'hybrid' if hybrid else 'uniform'}-{seed}-{steps}.json"
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)
    return result


def perplexity(losses: list[list[float]]) -> tuple[float, float, float]:
    """exp of the mean over seeds and pieces, and its 95 % bootstrap interval over pieces."""
    import numpy as np

    per_piece = np.mean(losses, 0)
    drawn = np.random.default_rng(0).integers(0, len(per_piece), (2000, len(per_piece)))
    low, high = np.quantile(np.exp(per_piece[drawn].mean(1)), [0.025, 0.975])
    return float(np.exp(per_piece.mean())), float(low), float(high)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--steps", type=int, default=800)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--output", type=Path, default=Path("runs/benchmarks/deconstruction"))
    o = arguments.parse_args()
    o.output.mkdir(parents=True, exist_ok=True)
    cells = [
        (name, hybrid, seed)
        for seed in range(o.seeds)
        for name in VARIANTS
        for hybrid in (False, True)
        if not (hybrid and name == "softmax")
    ]
    waiting = [
        (name, hybrid, seed)
        for name, hybrid, seed in cells
        if not (
            o.output / f"{name}-{'hybrid' if hybrid else 'uniform'}-{seed}-{o.steps}.json"
        ).exists()
    ]
    with ProcessPoolExecutor(o.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(cell, *what, o.steps, o.output) for what in waiting]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="model"):
            job.result()
    found: dict[tuple[str, bool], list[dict]] = {}
    for name, hybrid, seed in cells:
        path = o.output / f"{name}-{'hybrid' if hybrid else 'uniform'}-{seed}-{o.steps}.json"
        found.setdefault((name, hybrid), []).append(json.loads(path.read_text()))
    print(
        "| variant | uniform: perplexity (95 %) | parameters | hybrid: perplexity (95 %) | parameters |"
    )
    print("|---|---|---|---|---|")
    for name in VARIANTS:
        line = [name]
        for hybrid in (False, True):
            rows = found.get((name, hybrid))
            if rows is None:
                line += ["", ""]
                continue
            line.append(
                "{:.2f} ({:.2f}–{:.2f})".format(*perplexity([row["losses"] for row in rows]))
            )
            line.append(f"{rows[0]['parameters']:,}")
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
