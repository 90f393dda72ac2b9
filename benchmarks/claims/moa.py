"""Claim: heads with windows of their own keep what uniform windows of the same size lose (MoA,
2406.14909).

    python benchmarks/claims/moa.py [--model smollm2-135m] [--prompts 40] [--seeds 3]
        [--calibration 16] [--length 512] [--keep 0.5] [--jobs 2] [--output FOLDER]

A passkey of five digits in Python's own documentation (pydoc_data.topics): plans are made from
prompts over its first half, scored on prompts over its second. All plans hold the share `keep` of
the cache at that length: uniform windows; MoA from all rows, as published, and from the rows that
predict the answer; the same rules on other heads (shuffled); the heads that attend to the passkey
full and the others with a window (needle). Right: the likeliest tokens are the passkey, with its
95 % interval (Wilson) over prompts and seeds; loss: of the passkey's tokens, in nats, mean and
range of the seeds. Seeds draw the calibration prompts and the shuffling. Finished parts stay.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headwise.benchmarks.cells import run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row

if TYPE_CHECKING:
    from headwise.models.language.opening import OpenedLanguageModel
    from headwise.models.language.plans.plan import Plan
    from headwise.models.language.search.influence import AnsweredPrompt

SINK, WINDOW = 64, 64  # of the heads that are not full, with needle
ROOM = 8  # tokens of an answer
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
TEST_SEED = 1000
UNSEEDED = ("full", "uniform")
ROWS = {"moa, all rows": "all", "moa, answer rows": "answer"}
KINDS = (*UNSEEDED, *ROWS, *(f"{name}, shuffled" for name in ROWS), "needle")


class Setting(NamedTuple):
    """What all cells share."""

    model: str
    prompts: int
    calibration: int
    length: int
    keep: float


def fit(kind: str, seed: int, setting: Setting, folder: Path) -> None:
    """Make the plan of a kind from the calibration prompts of a seed, and write it."""
    import torch

    torch.set_num_threads(1)
    opened = open_model(setting.model)
    asked = answered(opened, setting.calibration, setting.length, seed, half=0)
    plan = plan_of(kind, opened, asked, setting, folder / f"profile-{kind}-{seed}.safetensors")
    plan.write(plan_path(folder, kind, seed))


def plan_of(
    kind: str,
    opened: OpenedLanguageModel,
    asked: Sequence[AnsweredPrompt],
    setting: Setting,
    profile: Path,
) -> Plan:
    """A plan that holds no more than the share `keep`; profile: the file of MoA's sums."""
    from headwise.models.language.analysis.needle import (
        NeedlePrompt,
        NeedleScores,
        heads_within,
        needle_scores,
        plan_by_needle,
    )
    from headwise.models.language.plans.plan import Plan
    from headwise.models.language.search.moa import MoaSearch, plan_by_influence
    from headwise.models.language.search.profile_store import ProfileStore

    facts, length, keep = opened.facts, setting.length, setting.keep
    if kind == "full":
        return Plan.full(facts)
    if kind == "uniform":
        return Plan.uniform(facts, sink=SINK, window=int(keep * length) - SINK)
    if kind == "needle":
        scores = NeedleScores.of(facts)
        for tokens, answer in asked:
            pair = tokens[~answer].tolist(), tokens[answer].tolist()
            scores.add(needle_scores(opened.model, [NeedlePrompt.of(*pair)]))
        heads = heads_within(keep, facts, sink=SINK, window=WINDOW, length=length)
        return plan_by_needle(scores, facts, heads=heads, sink=SINK, window=WINDOW)
    rows = "all" if ROWS[kind] == "all" else "answer"
    search = MoaSearch(lengths=(length,), keep=keep, sink=SINK, rows=rows)
    store = ProfileStore.resume(profile, facts, block=search.block, rows=rows)
    return plan_by_influence(opened.model, {length: asked}, search, store=store)


def score(kind: str, seed: int, setting: Setting, folder: Path) -> None:
    """Losses of the answers under a plan, and whether they are right, on the test prompts."""
    import torch

    from headwise.models.language.analysis.needle import NeedlePrompt, answer_losses
    from headwise.models.language.plans.plan import Plan
    from headwise.models.language.running.attach import attach

    torch.set_num_threads(1)
    opened = open_model(setting.model)
    plan = Plan.read(plan_path(folder, kind.removesuffix(", shuffled"), seed))
    plan = plan.shuffled(seed) if kind.endswith("shuffled") else plan
    losses, right = [], []
    with attach(opened.model, plan):
        for tokens, answer in answered(opened, setting.prompts, setting.length, TEST_SEED, half=1):
            prompt = NeedlePrompt.of(tokens[~answer].tolist(), tokens[answer].tolist())
            loss, is_right = answer_losses(opened.model, [prompt])
            losses.append(float(loss))
            right.append(bool(is_right))
    held = plan.kept(setting.length)
    write_cell(score_path(folder, kind, seed), {"loss": losses, "right": right, "held": held})


def open_model(name: str) -> OpenedLanguageModel:
    """A model of the catalogue, or of a folder."""
    from headwise.pipelines.engine.language_models import open_language_model

    return open_language_model(name, option="--model")


def answered(
    opened: OpenedLanguageModel, count: int, length: int, seed: int, half: int
) -> list[AnsweredPrompt]:
    """Prompts with a passkey over a half of the documentation."""
    from pydoc_data.topics import topics

    from headwise.data.prompts.generate import filler_of, generate_prompts
    from headwise.models.language.search.influence import AnsweredPrompt

    def tokens(text: str) -> list[int]:
        return opened.tokenizer(text, add_special_tokens=False)["input_ids"]

    texts = [topics[name] for name in sorted(topics)]
    middle = len(texts) // 2
    filler = filler_of(texts[:middle] if half == 0 else texts[middle:], lambda t: len(tokens(t)))
    prompts = generate_prompts(
        filler,
        lambda text: len(tokens(text)),
        kinds=("passkey",),
        lengths=(length - ROOM,),
        depths=DEPTHS,
        count=count,
        seed=seed,
    )
    return [AnsweredPrompt.of(tokens(p.text), tokens(p.answer)) for p in prompts]


def plan_path(folder: Path, kind: str, seed: int) -> Path:
    return folder / f"plan-{kind}-{0 if kind in UNSEEDED else seed}.json"


def score_path(folder: Path, kind: str, seed: int) -> Path:
    return folder / f"score-{kind}-{seed}.json"


def report(folder: Path, seeds: int) -> None:
    """The table."""
    from headwise.benchmarks.domains import interval

    print_header("plan", "cache held", "right (95 %)", "loss (range of seeds)")
    for kind in KINDS:
        places = range(1 if kind in UNSEEDED else seeds)
        cells = [json.loads(score_path(folder, kind, seed).read_text()) for seed in places]
        right = [value for cell in cells for value in cell["right"]]
        low, high = interval(sum(right) / len(right), len(right))
        means = [statistics.mean(cell["loss"]) for cell in cells]
        span = f" ({min(means):.3f} to {max(means):.3f})" if len(means) > 1 else ""
        print_row(
            kind,
            f"{statistics.mean(cell['held'] for cell in cells):.1%}",
            f"{sum(right)}/{len(right)} ({max(0, low):.2f} to {high:.2f})",
            f"{statistics.mean(means):.3f}{span}",
        )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calibration", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/moa"))
    arguments = parser.parse_args()
    values = vars(arguments)
    setting = Setting(*(values[name] for name in Setting._fields))
    name = f"{setting.prompts}-{setting.calibration}-{setting.length}-{setting.keep}"
    folder = arguments.output / f"{Path(setting.model).name}-{name}"
    keys = [
        (kind, seed) for kind in KINDS for seed in range(1 if kind in UNSEEDED else arguments.seeds)
    ]
    fitted = [key for key in keys if not key[0].endswith("shuffled")]
    for cell, path_of, cells in ((fit, plan_path, fitted), (score, score_path, keys)):
        waiting = [(*key[:2], setting, key[2]) for key in waiting_cells(path_of, folder, cells)]
        run_cells(cell, waiting, arguments.jobs, unit="plan")
    report(folder, arguments.seeds)


if __name__ == "__main__":
    main()
