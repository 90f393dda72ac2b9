"""Claim: a trained language model can be turned into mixture-of-head attention and, continued for a
while, is as good with three quarters of its heads (MoH-LLaMA3, arXiv 2410.11842).

    python benchmarks/claims/conversion.py [--model smollm2-135m] [--minutes 10] [--seeds 1]

Each form is made of the same model and continued with all weights for the same minutes of a core,
on prose of Python's documentation (read from the interpreter that runs; --data: another file of
texts). The model itself is continued, too: what more training gives without any conversion.
Perplexity of a token on held-out prose as it came, right after the conversion, and at the end;
share of heads or experts that a token has on. Finished cells are kept.
"""

import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from headwise.base.account import opened
from headwise.benchmarks.cells import run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import machine_load, parser_of, print_header, print_row
from headwise.data.prompts.builtin import builtin_texts

TOKENS, BATCH, HELD, LR = 256, 4, 40, 5e-5
# form: conversion and its options
FORMS: dict[str, tuple[str, dict[str, int | float | str]]] = {
    "as it came": ("none", {}),
    "MoH, routed by the norm of queries": ("moh", {}),
    "MoH, linear routers": ("moh", {"router": "linear"}),
    "grouped differential": ("grouped-differential", {"factor": 1}),
    "attention experts (BAM), 2": ("bam", {}),
    "upcycled, 2 of 4 experts": ("upcycle", {}),
}


def pieces(name: str, data: str | None) -> torch.Tensor:
    """Texts as pieces of equal length, (n, TOKENS), in an order drawn once."""
    from headwise.pipelines.engine.opened_models import open_base

    with opened():
        tokenizer = open_base(name).tokenizer
        texts = builtin_texts() if data is None else [Path(data).read_text(encoding="utf-8")]
    tokens = [token for text in texts for token in tokenizer(text, verbose=False).input_ids]
    count = len(tokens) // TOKENS
    table = torch.tensor(tokens[: count * TOKENS]).view(count, TOKENS)
    return table[torch.randperm(count, generator=torch.Generator().manual_seed(0))]


def loss_of(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Nats a token."""
    logits = model(batch)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def perplexity(model: torch.nn.Module, held: torch.Tensor) -> float:
    """Of all held-out pieces."""
    model.eval()
    losses = [float(loss_of(model, batch)) * len(batch) for batch in held.split(BATCH)]
    return math.exp(min(sum(losses) / len(held), 700))


def cell(form: str, seed: int, folder: Path) -> None:
    """Convert, continue, measure."""
    from headwise.models.attention.base import auxiliary_loss
    from headwise.models.language.tuning.tuned import Change, ModelAsItCame, TunedModel
    from headwise.pipelines.engine.opened_models import open_base

    asked = json.loads((folder / "asked.json").read_text())
    table = pieces(asked["model"], asked["data"])
    held, train = table[:HELD], table[HELD:]
    base = open_base(asked["model"]).model
    torch.manual_seed(seed)
    conversion, options = FORMS[form]
    change = Change(method="full", layers=None, convert=conversion, options=options)  # type: ignore[arg-type]
    model = TunedModel(base, change)
    result = {
        "weights": sum(weight.numel() for weight in model.parameters()),
        "before": perplexity(ModelAsItCame(base), held),
        "converted": perplexity(model, held),
    }
    optimizer = torch.optim.AdamW(model.trained(), lr=LR, weight_decay=0.0)
    model.train()
    # Of a core and not of the clock: other work on the machine takes no steps away from a form.
    begun, steps = time.process_time(), 0
    while time.process_time() - begun < 60 * asked["minutes"]:
        batch = train[torch.randint(len(train), (BATCH,))]
        loss, auxiliary = loss_of(model, batch), auxiliary_loss(model)
        (loss if auxiliary is None else loss + auxiliary).backward()
        torch.nn.utils.clip_grad_norm_(model.trained(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    after = perplexity(model, held)
    write_cell(path_of(folder, form, seed), {**result, "after": after, "steps": steps})


def share_on(form: str, heads: int) -> str:
    """Of the heads or experts, how many a token has on, by design."""
    conversion, options = FORMS[form]
    if conversion == "moh":
        from headwise.models.language.tuning.convert import HeadGates
        from headwise.models.language.tuning.present import PresentTokens

        gates = HeadGates(heads, heads, PresentTokens(), **options)  # type: ignore[arg-type]
        return f"{(gates.shared + gates.active) / heads:.0%}"
    return "50 %" if conversion == "upcycle" else "100 %"


def path_of(folder: Path, form: str, seed: int) -> Path:
    """The file of a cell."""
    return folder / f"{list(FORMS).index(form)}-{seed}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/conversion"))
    arguments = parser.parse_args()
    folder, seeds = arguments.output, range(arguments.seeds)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: getattr(arguments, name) for name in ("model", "data", "minutes")}
    (folder / "asked.json").write_text(json.dumps(asked))
    from headwise.pipelines.engine.opened_models import open_base

    with machine_load(f"model {arguments.model}, {arguments.jobs} at a time"):
        cells = [(form, seed) for seed in seeds for form in FORMS]
        run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs, per_process=1)
        with opened():
            heads = open_base(arguments.model).facts.heads
        print_header("form", "weights", "on", "as it came", "converted", "at the end", "steps")
        for form in FORMS:
            told = [json.loads(path_of(folder, form, seed).read_text()) for seed in seeds]
            columns = [[run[name] for run in told] for name in ("before", "converted", "after")]
            shown = [f"{sum(values) / len(values):.2f}" for values in columns]
            steps = " ".join(str(run["steps"]) for run in told)
            weights = f"{told[0]['weights'] / 1e6:.0f} M"
            print_row(form, weights, share_on(form, heads), *shown, steps)


if __name__ == "__main__":
    main()
