"""Claim: tuning up and down of the layers from 25 to 50 %, with a soft mask of hidden units, learns
a task as well as tuning all weights and forgets less (CoFiTune, arXiv 2404.10306).

    python benchmarks/claims/cofitune.py --audit [--model smollm2-135m]
    python benchmarks/claims/cofitune.py [--model smollm2-135m] [--steps 60] [--seeds 3]

--audit (seconds): the published importance is rounding noise, and a mask on gradients does nothing
under Adam.

Otherwise `headwise finetune train` is run with five settings and several seeds. Task: the first
sentence of the documentation of a Python function, from its name and arguments (read from the
standard library of the interpreter that runs; --data: another table of prompts and answers, such as
problem and solution of MATH-500). General: prose of Python's reference, and passkeys hidden in it.
Nats a token on held-out rows, tuned minus as it came: below 0 it got better; mean over seeds with a
95 % interval (Student). Finished cells are kept.
"""

import argparse
import ast
import json
import sys
from pathlib import Path

import torch
from torch import nn

from headwise.base.account import opened
from headwise.benchmarks.cells import run_cells, student, waiting_cells
from headwise.benchmarks.measure import machine_load, parser_of, print_header, print_row
from headwise.data.prompts.builtin import builtin_texts
from headwise.data.prompts.generate import filler_of, generate_prompts

# setting: options of the training
SETTINGS: dict[str, dict[str, object]] = {
    "all weights": {"method": "full"},
    "up and down of 25-50 %": {},
    "up and down of 25-50 %, masked": {"mask": "signal"},
    "up and down of 75-100 %": {"layers": "75-100%"},
    "LoRA of rank 8, all layers": {"method": "lora"},
}
ROWS = 600
SHARES = (1.0, 0.5, 0.1, 0.01)


def audit(name: str) -> None:
    """What the published importance is, and what a mask on gradients does."""
    from headwise.models.language.tuning.importance import unit_gradients
    from headwise.pipelines.engine.opened_models import open_base
    from headwise.pipelines.finetune.coding import DialogueCoder
    from headwise.pipelines.finetune.masks import batches

    with opened():
        base, texts = open_base(name), builtin_texts()
    coder = DialogueCoder(base, "plain")
    rows = [coder.text(text[:600]) for text in texts[:4]]
    layers = range(min(4, base.facts.layers))
    print_header("importance", "largest gradient", "mean importance", "correlation between texts")
    for form in ("published", "loss", "divergence"):
        by_text = [unit_gradients(base.model, batches([row]), layers, form=form) for row in rows]
        masks = [torch.cat(list(part.importance().values())) for part in by_text]
        pairs = [
            float(torch.corrcoef(torch.stack([first, second]))[0, 1])
            for k, first in enumerate(masks)
            for second in masks[:k]
        ]
        largest = max(part.largest() for part in by_text)
        mean = float(torch.cat(masks).mean())
        print_row(form, f"{largest:.2g}", f"{mean:.2f}", f"{sum(pairs) / len(pairs):.2f}")
    print()
    print_header("constant mask on the gradient", *(f"{share:g}" for share in SHARES))
    for make in (torch.optim.AdamW, torch.optim.SGD):
        print_row(f"{make.__name__}: way of 50 steps", *(f"{moved(make, s):.5f}" for s in SHARES))


def moved(make: type[torch.optim.Optimizer], share: float) -> float:
    """How far 50 steps carry weights whose gradients are multiplied by a share."""
    torch.manual_seed(0)
    layer, x, y = nn.Linear(16, 4), torch.randn(64, 16), torch.randn(64, 4)
    start = layer.weight.detach().clone()
    optimizer = make(layer.parameters(), lr=1e-3)  # type: ignore[call-arg]
    for _ in range(50):
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        for weight in layer.parameters():
            assert weight.grad is not None
            weight.grad *= share
        optimizer.step()
    return float((layer.weight.detach() - start).norm())


def write_task(path: Path) -> None:
    """Prompts with answers from the documentation of the standard library."""
    folder, rows = Path(ast.__file__).parent, []
    for file in sorted(folder.glob("*.py")):
        if file.stem.startswith("_") or file.stem in ("this", "antigravity"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            told = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if 30 <= len(told) <= 200 and told.endswith("."):
                asked = f"What does {file.stem}.{node.name}({ast.unparse(node.args)}) do?"
                rows.append({"prompt": asked, "answer": told, "group": file.stem})
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(rows), generator=generator).tolist()[:ROWS]
    path.write_text("\n".join(json.dumps(rows[k]) for k in chosen) + "\n")


def write_general(folder: Path) -> tuple[str, str]:
    """Prose, and passkeys hidden in it."""
    with opened():
        texts = builtin_texts()
    prose, keys = folder / "prose.jsonl", folder / "passkeys.jsonl"
    prose.write_text("\n".join(json.dumps({"text": text}) for text in texts[:90]) + "\n")
    prompts = generate_prompts(
        filler_of(texts[90:], len), len, kinds=("passkey",), lengths=(500,),
        depths=(0.1, 0.5, 0.9), count=72, seed=0,
    )  # fmt: skip
    lines = [json.dumps({"prompt": p.text, "answer": p.answer.strip()}) for p in prompts]
    keys.write_text("\n".join(lines) + "\n")
    return str(prose), str(keys)


def cell(setting: str, seed: int, folder: Path) -> None:
    """Train one setting; the run holds its figures."""
    from headwise import pipelines

    asked = json.loads((folder / "asked.json").read_text())
    run = path_of(folder, setting, seed).parent
    pipelines.finetune.train(
        data=asked["data"], general=tuple(asked["general"]), model=asked["model"], run=run,
        seed=seed, max_steps=asked["steps"], epochs=99, patience=99, batch_size=4, lr=asked["lr"],
        most_tokens=asked["tokens"], answers=0, shots=0, choose="model", accelerator="cpu",
        **SETTINGS[setting],
    )  # fmt: skip


def path_of(folder: Path, setting: str, seed: int) -> Path:
    """The figures of a cell."""
    return folder / f"run-{list(SETTINGS).index(setting)}-{seed}" / "metrics.json"


def compare(arguments: argparse.Namespace) -> None:
    """All settings and seeds, and the table."""
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(arguments.data or folder / "docstrings.jsonl")
    if not data.exists():
        write_task(data)
    asked = {
        "data": str(data.resolve()),
        "general": write_general(folder),
        **{name: getattr(arguments, name) for name in ("model", "steps", "lr", "tokens")},
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    seeds = range(arguments.seeds)
    cells = [(setting, seed) for seed in seeds for setting in SETTINGS]
    run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs)
    print_header("trained", "weights", "task", "prose", "passkeys")
    for setting in SETTINGS:
        told = [json.loads(path_of(folder, setting, seed).read_text()) for seed in seeds]
        card = json.loads((path_of(folder, setting, 0).parent / "card.json").read_text())
        columns = [[run["task"]["difference"] for run in told]]
        for name in ("prose", "passkeys"):
            columns.append([run["general"][name]["difference"] for run in told])
        print_row(setting, f"{card['parameters'] / 1e6:.1f} M", *map(interval, columns))


def interval(values: list[float]) -> str:
    """Mean and interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:+.3f}"
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*student(values))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/cofitune"))
    arguments = parser.parse_args()
    with machine_load(f"model {arguments.model}"):
        audit(arguments.model) if arguments.audit else compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
