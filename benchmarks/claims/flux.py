"""Claim: a router chooses full attention by layer where the prompt needs it (Flux Attention,
2604.07394).

    python benchmarks/claims/flux.py [--model smollm2-135m] [--length 512] [--steps 200]
        [--prompts 40] [--seeds 3] [--targets 0.7 0.7] [--jobs 2] [--output FOLDER]

Only routers are trained, on prompts over one half of Python's documentation: questions for a
passkey or for one of four codes, and plain texts that go on. They are scored on the other half. A
sparse layer reads `sink` first tokens and a window. `targets`: the share of sparse layers asked of
questions and of plain texts. They are equal by default, so that a difference between the kinds is
the router's own; the paper asks for .45 and 1.

First table: the share of full layers by kind of prompt, and the difference, with 95 % intervals
over prompts and seeds (bootstrap). Second table: answers with the cut cache. Beside the router are
full attention, no full layer, as many full layers drawn at random, and heads that attend to the
needle, as many as hold the same cache. Right: with its 95 % interval (Wilson) over prompts and
seeds; losses in nats, mean and range of the seeds. Finished seeds stay.
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
    from headwise.models.language.opening import OpenedLanguageModel
    from headwise.models.language.plans.plan import Plan
    from headwise.models.language.search.flux import FluxRouter

TASKS = ("passkey", "needles")
CALIBRATION = 64  # prompts of each kind that training goes through
CONTINUED = 64  # tokens of a plain text that are to be predicted
FORMS = ("full", "router", "random layers", "needle heads", "no full layer")


class Setting(NamedTuple):
    """What all cells share."""

    model: str
    length: int
    steps: int
    prompts: int
    sink: int
    window: int
    rate: float
    growth: float
    targets: tuple[float, float]


def prompts_of(
    opened: OpenedLanguageModel, part: str, setting: Setting, count: int, seed: int
) -> tuple[list[language.Asked], list[language.Asked]]:
    """Questions, and plain texts of the same length."""
    length = setting.length
    questions = language.asked_prompts(opened, part, TASKS, count=count, length=length, seed=seed)
    texts = language.plain_texts(
        opened, part, count=count, length=length, continued=CONTINUED, seed=seed
    )
    return questions, texts


def cell(seed: int, setting: Setting, folder: Path) -> None:
    """Train the routers of a seed and score them beside the controls."""
    from headwise.models.language.search.flux import FluxRouter

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    opened = language.open_model(setting.model)
    module = FluxRouter(
        opened.model,
        sink=setting.sink,
        window=setting.window,
        targets=setting.targets,
        rate=setting.growth,
    )
    rows = prompts_of(opened, "train", setting, CALIBRATION, seed)
    trace = train(module, *rows, setting, seed)
    questions, texts = prompts_of(opened, "test", setting, setting.prompts, language.TEST_SEED)
    full = [decisions_of(module, part) for part in (questions, texts)]
    layers = round(float(full[0].float().sum(1).mean()))
    plans = plans_of(module, opened, rows[0][:16], layers, setting, seed)
    result = {
        "trace": trace,
        "layers": layers,
        "full": [part.float().mean(1).tolist() for part in full],
        "by_layer": [part.float().mean(0).tolist() for part in full],
        "scores": {form: scores_of(opened, plan, questions, texts) for form, plan in plans.items()},
    }
    write_cell(path_of(folder, seed), result)


def train(
    module: FluxRouter,
    questions: Sequence[language.Asked],
    texts: Sequence[language.Asked],
    setting: Setting,
    seed: int,
) -> list[dict[str, float]]:
    """A question and a plain text in turn; the rate rises over a fifth of the steps and falls."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=setting.rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, setting.rate, total_steps=setting.steps, pct_start=0.2
    )
    half, trace = -(-setting.steps // 2), []
    kinds = [language.batches(part, 1, half, seed) for part in (questions, texts)]
    module.train()
    for step in range(setting.steps):
        kind = step % 2
        module.begin(step / setting.steps)
        parts = module(*next(kinds[kind]), kind=torch.tensor([kind]))
        optimizer.zero_grad()
        parts.loss.backward()
        optimizer.step()
        schedule.step()
        values = {name: float(value.detach()) for name, value in parts._asdict().items()}
        trace.append({"step": step, "kind": kind, **values})
    module.eval()
    return trace


def decisions_of(module: FluxRouter, rows: Sequence[language.Asked]) -> Tensor:
    """Which layers are full for each prompt, bool (prompts, L)."""
    decided = []
    for row in rows:
        ids, mask, _ = language.batch_of([row._replace(answer=[])])
        decided.append(module.decisions(ids, mask))
    return torch.cat(decided)


def plans_of(
    module: FluxRouter,
    opened: OpenedLanguageModel,
    known: Sequence[language.Asked],
    layers: int,
    setting: Setting,
    seed: int,
) -> dict[str, Plan]:
    """The router and its controls."""
    from headwise.models.language.analysis.needle import plan_by_needle
    from headwise.models.language.plans.plan import Plan

    facts, sizes = opened.facts, {"sink": setting.sink, "window": setting.window}
    dice = torch.Generator().manual_seed(seed)
    table = torch.zeros(facts.layers, facts.kv_heads, dtype=torch.bool)
    table[torch.randperm(facts.layers, generator=dice)[:layers]] = True
    needles = language.needle_scores_of(opened, known)
    return {
        "full": Plan.full(facts),
        "router": module.plan(),
        "random layers": Plan.of_heads(facts, table, **sizes),
        "needle heads": plan_by_needle(needles, facts, heads=layers * facts.kv_heads, **sizes),
        "no full layer": Plan.uniform(facts, **sizes),
    }


def scores_of(
    opened: OpenedLanguageModel,
    plan: Plan,
    questions: Sequence[language.Asked],
    texts: Sequence[language.Asked],
) -> dict[str, list[float]]:
    """Of questions: right, loss and bytes of the cache; of plain texts: loss of their tokens."""
    from headwise.pipelines.longcontext.data import Tokens
    from headwise.pipelines.longcontext.scoring import scores_of_tokens

    answers = [Tokens(tuple(prompt), tuple(answer)) for prompt, answer in questions]
    plain = [Tokens((*prompt, *answer), ()) for prompt, answer in texts]
    asked, read = (scores_of_tokens(opened.model, plan, rows) for rows in (answers, plain))
    return {
        "right": asked.right.tolist(),
        "loss": asked.loss.tolist(),
        "cache": asked.cache.tolist(),
        "text": read.text.tolist(),
        "text_cache": read.cache.tolist(),
    }


def path_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.json"


def report(folder: Path, seeds: int) -> None:
    """The two tables."""
    import numpy as np

    from headwise.pipelines.metrics.bootstrap import interval_of_mean

    cells = [json.loads(path_of(folder, seed).read_text()) for seed in range(seeds)]
    # A prompt is one case: its mean over the seeds.
    questions, texts = (np.mean([cell["full"][kind] for cell in cells], 0) for kind in (0, 1))
    print_header("kind of prompt", "share of full layers (95 %)")
    rows = (("questions", questions), ("plain texts", texts), ("difference", questions - texts))
    for name, values in rows:
        low, high = interval_of_mean(values)
        print_row(name, f"{values.mean():.3f} ({low:.3f} to {high:.3f})")
    print()
    report_plans(cells)


def report_plans(cells: Sequence[dict]) -> None:
    """The second table."""
    from headwise.benchmarks.domains import interval

    def spread(values: Sequence[float]) -> str:
        return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    print_header(
        "plan", "cache: questions", "right (95 %)", "loss", "cache: texts", "loss of texts"
    )
    for form in FORMS:
        scores = [cell["scores"][form] for cell in cells]
        right = [value for score in scores for value in score["right"]]
        low, high = interval(sum(right) / len(right), len(right))
        shares = {
            name: statistics.mean(
                sum(cell["scores"][form][name]) / sum(cell["scores"]["full"][name])
                for cell in cells
            )
            for name in ("cache", "text_cache")
        }
        print_row(
            form,
            f"{shares['cache']:.1%}",
            f"{sum(right):.0f}/{len(right)} ({max(0, low):.2f} to {high:.2f})",
            spread([statistics.mean(score["loss"]) for score in scores]),
            f"{shares['text_cache']:.1%}",
            spread([statistics.mean(score["text"]) for score in scores]),
        )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sink", type=int, default=16)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate of the routers")
    parser.add_argument("--growth", type=float, default=0.05, help="of the multipliers")
    parser.add_argument("--targets", type=float, nargs=2, default=[0.7, 0.7])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/flux"))
    arguments = parser.parse_args()
    values = vars(arguments) | {"targets": tuple(arguments.targets)}
    setting = Setting(*(values[name] for name in Setting._fields))
    parts = [Path(setting.model).name, *(str(value) for value in setting[1:-1]), *setting.targets]
    folder = arguments.output / "-".join(map(str, parts))
    seeds = [(seed,) for seed in range(arguments.seeds)]
    waiting = [(key[0], setting, key[1]) for key in waiting_cells(path_of, folder, seeds)]
    run_cells(cell, waiting, arguments.jobs, unit="seed")
    report(folder, arguments.seeds)


if __name__ == "__main__":
    main()
