"""Claim: few heads fetch what a prompt asks for; they suffice, and the others do not.

    python benchmarks/claims/retrieval_heads.py [--model smollm2-135m] [--data TEXTS]
        [--lengths 512 1024 2048 4096] [--counts 16 12 8 4] [--folder retrieval_heads]

Heads of keys are scored on 8 prompts of 512 tokens (models/language/analysis/needle.py). On 40
others, over other texts and up to eight times as long, some sets of heads keep everything and all
others their first 64 and last 64 tokens: all, the best 30, 15 and 8, as many at random with three
seeds, all but
the best 15, none; beside them one window for all heads that holds as many bytes as the best 15, and
as the best 30. Share of prompts whose passkey greedy decoding writes, with Wilson's 95 % intervals,
loss of the answer, and of the text (256 tokens beyond sink and window). Finished parts are kept in
--folder. About 3 s for a prompt of 512 tokens and a set on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.data.prompts.generate import filler_of, generate_prompts, pieces_of
from headwise.models.language.analysis.needle import (
    NeedlePrompt,
    NeedleScores,
    head_plan,
    needle_scores,
    planned_ranking,
)
from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import attach
from headwise.pipelines.engine.experiments.jobs import claimed, fingerprint_of, run_jobs
from headwise.pipelines.engine.opened_models import open_base
from headwise.pipelines.longcontext.comparing import uniform_like
from headwise.pipelines.longcontext.data import Coder
from headwise.pipelines.longcontext.verbs.prompts_to_score import texts_or_prompts
from headwise.pipelines.metrics.bootstrap import interval_of_mean
from headwise.pipelines.metrics.proportions import wilson

SINK = WINDOW = 64
SCORED, SCORED_LENGTH = 8, 512
TEXT_TOKENS = 256
SEEDS = (0, 1, 2)
INSIDE = "sets"


@dataclass(frozen=True)
class Setting:
    """What decides the figures."""

    model: str
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    sink: int = SINK
    window: int = WINDOW


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data")
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 12, 8, 4])
    parser.add_argument("--folder", default="retrieval_heads")
    arguments = parser.parse_args()
    if len(arguments.lengths) != len(arguments.counts):
        parser.error("--lengths and --counts differ in number")
    setting = Setting(arguments.model, tuple(arguments.lengths), tuple(arguments.counts))
    opened = open_base(arguments.model)
    model, facts = opened.model, opened.facts
    scored, held_out = prompts(setting, arguments.data, Coder(opened.tokenizer))
    with claimed(Path(arguments.folder), INSIDE) as home:
        known = {"weights": opened.sha256, "data": arguments.data}
        fingerprint = fingerprint_of(setting, known, ("model",))
        records = run_jobs(
            {f"score-{number}": prompt for number, prompt in enumerate(scored)},
            lambda prompt: {"scores": needle_scores(model, [prompt]).tolist()},
            home, fingerprint, title="score", unit="prompt", called="prompts",
        )  # fmt: skip
        scores = NeedleScores.of(facts)
        for record in records.values():
            scores.add(torch.tensor(record["scores"]))
        ranking = planned_ranking(scores, facts)
        plans = compared(facts, ranking, max(setting.lengths))
        jobs = {
            f"{name.replace(' ', '-')}-{length}": (plan, length)
            for length in setting.lengths
            for name, plan in plans.items()
        }

        def work(job: tuple[Plan, int]) -> dict[str, object]:
            plan, length = job
            with attach(model, plan):
                rows = [measured(model, prompt) for prompt in held_out[length]]
            loss, right, text = zip(*rows, strict=True)
            return {"loss": loss, "right": right, "text": text, "kept": plan.kept(length)}

        results = run_jobs(jobs, work, home, fingerprint, title="sets", unit="set", called="sets")
    best = ", ".join(f"({layer}, {head})" for layer, head in ranking[:15])
    print(f"the best 15 of {len(ranking)}: {best}; both halves of the prompts agree on "
          f"{scores.agreement(15):.0%}\n")  # fmt: skip
    for lengths in (setting.lengths, *((length,) for length in setting.lengths)):
        print(f"\n{' to '.join(map(str, {min(lengths): 0, max(lengths): 0}))} tokens\n")
        table(plans, results, lengths)


def prompts(
    setting: Setting, data: str | None, coder: Coder
) -> tuple[list[NeedlePrompt], dict[int, list[NeedlePrompt]]]:
    """Prompts to score, and held-out ones by length over other pieces of the texts."""
    texts = texts_or_prompts(data, ()).prompts
    pieces = [piece for text in texts for piece in pieces_of(text.text)]
    # Two of three pieces for the held-out ones, which are longer.
    parts = [pieces[::3], [piece for number, piece in enumerate(pieces) if number % 3]]
    fillers = [filler_of(part, coder.measure) for part in parts]

    def generated(part: int, length: int, count: int) -> list[NeedlePrompt]:
        drawn_prompts = generate_prompts(
            fillers[part], coder.measure, kinds=("passkey",), lengths=(length,),
            depths=(0.1, 0.3, 0.5, 0.7), count=count, seed=100 * part + length,
        )  # fmt: skip
        return [NeedlePrompt.of(*coder.prompt(prompt)) for prompt in drawn_prompts]

    held_out = {
        length: generated(1, length, count)
        for length, count in zip(setting.lengths, setting.counts, strict=True)
    }
    return generated(0, SCORED_LENGTH, SCORED), held_out


def compared(facts, ranking: Sequence[tuple[int, int]], longest: int) -> dict[str, Plan]:
    """The plans by name."""
    sets = {"all": ranking, "best 30": ranking[:30], "best 15": ranking[:15], "best 8": ranking[:8]}
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(ranking))
        for count in (30, 15):
            sets[f"random {count} seed {seed}"] = [ranking[place] for place in order[:count]]
    sets |= {"all but the best 15": ranking[15:], "none": []}
    plans = {name: head_plan(facts, heads, SINK, WINDOW) for name, heads in sets.items()}
    for count in (30, 15):
        plans[f"one window as best {count}"] = uniform_like(plans[f"best {count}"], longest)
    return plans


@torch.no_grad()
def measured(model: torch.nn.Module, prompt: NeedlePrompt) -> tuple[float, float, float]:
    """Loss of the answer, whether it is written, and loss of the text, from one pass."""
    ids = torch.tensor(prompt.ids)
    begin = len(ids) - prompt.answer
    text = np.linspace(SINK + WINDOW, begin - 2, TEXT_TOKENS).astype(int).tolist()
    rows = sorted({*text, *range(begin - 1, len(ids) - 1)})
    logits = model(
        input_ids=ids[None], use_cache=False, logits_to_keep=torch.tensor(rows)
    ).logits[0].float()  # fmt: skip
    losses = F.cross_entropy(logits, ids[torch.tensor(rows) + 1], reduction="none")
    is_answer = torch.tensor(rows) >= begin - 1
    right = bool((logits[is_answer].argmax(-1) == ids[begin:]).all())
    return float(losses[is_answer].mean()), float(right), float(losses[~is_answer].mean())


def table(plans: dict[str, Plan], results: dict[str, dict], lengths: Sequence[int]) -> None:
    """A row for each plan, over all prompts of some lengths."""
    print_header("full heads", "cache kept", "right", "95 % interval", "loss of the answer",
                 "loss of the text", "over all heads")  # fmt: skip

    def column(name: str, field: str) -> np.ndarray:
        rows = [results[f"{name.replace(' ', '-')}-{length}"][field] for length in lengths]
        return np.concatenate([np.atleast_1d(row) for row in rows]).astype(float)

    full_text = column("all", "text")
    for name in plans:
        right, loss, text = (column(name, field) for field in ("right", "loss", "text"))
        low, high = wilson(int(right.sum()), len(right))
        from_, to = interval_of_mean(text / full_text - 1)
        print_row(
            name, f"{column(name, 'kept').mean():.1%}", f"{int(right.sum())}/{len(right)}",
            f"{low:.2f} to {high:.2f}", f"{loss.mean():.3f}", f"{text.mean():.3f}",
            f"{(text / full_text - 1).mean():+.1%} ({from_:+.1%} to {to:+.1%})",
        )  # fmt: skip


if __name__ == "__main__":
    main()
