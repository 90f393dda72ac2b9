"""Claim: retrieval heads that HardKuma gates find serve all others (LycheeDecode, 2602.04541).

    python benchmarks/claims/lychee.py [--model smollm2-135m] [--length 512] [--steps 300]
        [--prompts 40] [--seeds 3] [--keys 64] [--jobs 2] [--output FOLDER]

Prompts over one half of Python's documentation teach the roles, prompts over the other half score
them: a passkey, one of four codes, a row of words to repeat. While an answer is decoded, a head
that does not retrieve reads `keys` keys (4 first, 32 recent ones) that the nearest retrieval head
below it in its column has chosen. As many retrieval heads as the gates opened, besides the first
layer: those; at random; those that attend to the needle; all heads of the layers whose gates are
most open. Right: all tokens of the answer are the likeliest; same: the likeliest tokens along the
answer are those of the dense model; both with 95 % intervals (Wilson) over prompts and seeds;
divergence: of the dense model's next tokens after answer tokens, in nats, mean and range of the
seeds. Seeds draw training prompts, gates and random heads. Finished seeds stay.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from headwise.benchmarks import language
from headwise.benchmarks.cells import run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row

if TYPE_CHECKING:
    from headwise.models.language.search.lychee import LycheeRoles

TASKS = ("passkey", "needles", "copy")
SINK, RECENT = 4, 32
CALIBRATION = 64  # prompts that training goes through
FORMS = ("all heads", "gates", "needle heads", "random heads", "layers", "first layer only")


class Setting(NamedTuple):
    """What all cells share."""

    model: str
    length: int
    steps: int
    prompts: int
    keys: int
    rate: float
    growth: float
    measure: str


def cell(seed: int, setting: Setting, folder: Path) -> None:
    """Learn the roles of a seed and score them beside the controls."""
    from headwise.models.language.plans.rules import Budget
    from headwise.models.language.search.lychee import LycheeRoles

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    opened = language.open_model(setting.model)
    asked = {
        "count": CALIBRATION, "length": setting.length, "seed": seed,
    }  # fmt: skip
    rows = language.asked_prompts(opened, "train", TASKS, **asked)
    asked |= {"count": setting.prompts, "seed": language.TEST_SEED}
    tests = language.asked_prompts(opened, "test", TASKS, **asked)
    module = LycheeRoles(
        opened.model,
        Budget(setting.keys, SINK, RECENT),
        rate=setting.growth,
        measure="logits" if setting.measure == "logits" else "states",
    )
    trace = train(module, rows, setting, seed)
    mean = module.gates().mean().detach()[list(module.free)]
    needles = language.needle_scores_of(opened, rows[:16]).table()
    tables = tables_of(module, needles, seed)
    result = {
        "trace": trace,
        "open": int(module.roles().sum()) - module.facts.kv_heads,
        "undecided": float(((mean > 0.1) & (mean < 0.9)).float().mean()),
        "heads": [place.tolist() for place in module.roles().nonzero()],
        "scores": scores_of(module, tests, tables),
    }
    write_cell(path_of(folder, seed), result)


def train(
    module: LycheeRoles, rows: Sequence[language.Asked], setting: Setting, seed: int
) -> list[dict[str, float]]:
    """The published schedule: a fifth of the steps warms up, a fifth cools down."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=setting.rate, weight_decay=0)
    fifth, trace = max(1, setting.steps // 5), []
    module.train()
    for step, batch in enumerate(language.batches(rows, 1, setting.steps, seed)):
        slope = min(1.0, (step + 1) / fifth, (setting.steps - step) / fifth)
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * max(0.1, slope)
        module.begin(step / setting.steps)
        parts = module(*batch)
        optimizer.zero_grad()
        parts.loss.backward()
        optimizer.step()
        if step % max(1, setting.steps // 20) == 0 or step + 1 == setting.steps:
            values = {name: float(value.detach()) for name, value in parts._asdict().items()}
            trace.append({"step": step, **values, "multiplier": float(module.multiplier)})
    module.eval()
    return trace


def tables_of(module: LycheeRoles, needles: Tensor, seed: int) -> dict[str, Tensor]:
    """Tables of roles, bool (L, KV), by form; all but the first and the last have as many heads."""
    learned, free = module.roles(), torch.tensor(module.free)
    count = int(learned.sum()) - module.facts.kv_heads
    dice = torch.Generator().manual_seed(seed)
    scores = {
        "needle heads": needles,
        "random heads": torch.rand(learned.shape, generator=dice),
        "layers": module.gates().mean().detach().mean(1, keepdim=True).expand(learned.shape),
    }
    tables = {"all heads": torch.ones_like(learned), "gates": learned}
    for form, values in scores.items():
        heads = count if form != "layers" else -(-count // learned.shape[1]) * learned.shape[1]
        tables[form] = with_highest(values, free, heads, module.first)
    tables["first layer only"] = with_highest(needles, free, 0, module.first)
    return tables


def with_highest(scores: Tensor, free: Tensor, count: int, first: int) -> Tensor:
    """The first layer, and the heads of the highest scores in layers that are free."""
    scores = scores.float().masked_fill(~free[:, None], -torch.inf)
    table = torch.zeros(scores.shape, dtype=torch.bool)
    table.view(-1)[scores.flatten().argsort(descending=True, stable=True)[:count]] = True
    table[first] = True
    return table


def scores_of(
    module: LycheeRoles, tests: Sequence[language.Asked], tables: dict[str, Tensor]
) -> dict[str, dict[str, list[float]]]:
    """By form: right and same (1 or 0) and divergence of each prompt; how many heads retrieve."""
    scores = {form: {"right": [], "same": [], "divergence": []} for form in tables}
    for row in tests:
        ids, mask, answer = language.batch_of([row])
        expected, size = torch.tensor(row.answer), len(row.answer)
        outputs = module.logits(ids, mask, answer, list(tables.values()))
        dense = outputs[list(tables).index("all heads")][0].log_softmax(-1)
        for form, logits in zip(tables, outputs, strict=True):
            log_p = logits[0].log_softmax(-1)
            divergence = (dense.exp() * (dense - log_p)).sum(-1)[-size:]
            likeliest = log_p.argmax(-1)
            right = torch.equal(likeliest[-size - 1 : -1], expected)
            scores[form]["right"].append(float(right))
            scores[form]["same"].append(float(torch.equal(likeliest, dense.argmax(-1))))
            scores[form]["divergence"].append(float(divergence.mean()))
    for form, table in tables.items():
        scores[form]["heads"] = [float(table.sum())]
    return scores


def path_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.json"


def report(folder: Path, seeds: int) -> None:
    """The table."""
    from headwise.benchmarks.domains import interval

    def share(scores: Sequence[dict[str, list[float]]], name: str) -> str:
        values = [value for score in scores for value in score[name]]
        low, high = interval(sum(values) / len(values), len(values))
        return f"{sum(values):.0f}/{len(values)} ({max(0, low):.2f} to {high:.2f})"

    cells = [json.loads(path_of(folder, seed).read_text()) for seed in range(seeds)]
    print_header("retrieval heads", "how many", "right", "same", "divergence (range of seeds)")
    for form in FORMS:
        scores = [cell["scores"][form] for cell in cells]
        means = [statistics.mean(score["divergence"]) for score in scores]
        print_row(
            form,
            " ".join(f"{score['heads'][0]:.0f}" for score in scores),
            share(scores, "right"),
            share(scores, "same"),
            f"{statistics.mean(means):.3f} ({min(means):.3f} to {max(means):.3f})",
        )
    density = [cell["trace"][-1]["density"] for cell in cells]
    undecided = [cell["undecided"] for cell in cells]
    print(
        f"\ndensity at the end {min(density):.3f} to {max(density):.3f}, of which the target 0.083"
    )
    print(f"gates whose expectation is between 0.1 and 0.9: {statistics.mean(undecided):.1%}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of the gates")
    parser.add_argument("--growth", type=float, default=0.05, help="of the multiplier")
    parser.add_argument("--measure", choices=("states", "logits"), default="states")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/lychee"))
    arguments = parser.parse_args()
    values = vars(arguments)
    setting = Setting(*(values[name] for name in Setting._fields))
    name = "-".join([Path(setting.model).name, *(str(value) for value in setting[1:])])
    folder = arguments.output / name
    seeds = [(seed,) for seed in range(arguments.seeds)]
    waiting = [(key[0], setting, key[1]) for key in waiting_cells(path_of, folder, seeds)]
    run_cells(cell, waiting, arguments.jobs, unit="seed")
    report(folder, arguments.seeds)


if __name__ == "__main__":
    main()
