"""Claim: an MLP writes the primary sink's direction at other tokens, and its norm orders the
attention that they draw (2512.22213); a model without its sinks breaks, four tokens mend it
(StreamingLLM, 2309.17453).

    python benchmarks/claims/sinks.py [--model smollm2-135m] [--texts 32] [--length 512]
        [--data TEXTS] [--folder sinks_of_texts]
    python benchmarks/claims/sinks.py --stream [--tokens 4096] [--window 256]

The first form is `headwise longcontext sinks` and prints its tables; finished texts are kept in
--folder. The second reads long texts with a window for all heads, without first tokens, with 1, 4
and 16 of them in place of as many of the window's, and whole: loss by quarter of the text, and of
the tokens before the window is full. Positions stay those of the text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import attach
from headwise.models.language.running.supported import text_decoder
from headwise.pipelines import longcontext
from headwise.pipelines.engine.opened_models import open_base
from headwise.pipelines.longcontext.data import Coder
from headwise.pipelines.longcontext.verbs.prompts_to_score import texts_or_prompts
from headwise.pipelines.longcontext.verbs.sinks_tables import sink_counts, text_table

BLOCK = 256  # rows of logits at once
FIRST = (0, 1, 4, 16)  # tokens kept beside the window


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data")
    parser.add_argument("--texts", type=int)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--folder", default="sinks_of_texts")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=256)
    arguments = parser.parse_args()
    if arguments.stream:
        stream(
            arguments.model, arguments.data, arguments.texts or 2, arguments.tokens,
            arguments.window,
        )  # fmt: skip
        return
    measured = longcontext.sinks(
        model=arguments.model, data=arguments.data, texts=arguments.texts or 32,
        length=arguments.length, output=arguments.folder,
    )  # fmt: skip
    layers = pl.read_parquet(Path(arguments.folder) / "layers.parquet")
    print(f"\n{measured.sentence}\n")
    print_table(sink_counts(measured.table()))
    print()
    print_table(text_table(measured.table(), layers))
    print("\nprimary sink by layer, over texts\n")
    print_table(by_layer(layers))


def print_table(table: pl.DataFrame) -> None:
    print_header(*table.columns)
    for row in table.rows():
        print_row(*(f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row))


def by_layer(layers: pl.DataFrame) -> pl.DataFrame:
    """Mass and norm of the primary sink, least, mean and most of the texts."""
    spread = [
        expression.alias(f"{name} {word}")
        for name in ("mass_primary", "norm_primary")
        for word, expression in (
            ("from", pl.col(name).min()), ("mean", pl.col(name).mean()), ("to", pl.col(name).max()),
        )
    ]  # fmt: skip
    return layers.group_by("layer").agg(*spread, pl.col("mass_early").mean()).sort("layer")


def stream(name: str, data: str | None, count: int, tokens: int, window: int) -> None:
    """The rows of the second form."""
    opened = open_base(name)
    coder, texts = Coder(opened.tokenizer), texts_or_prompts(data, ()).prompts
    ids = coder.code_on("\n\n".join(text.text for text in texts))
    if len(ids) < count * tokens:
        raise SystemExit(f"the texts have {len(ids):,} tokens, fewer than {count} times {tokens:,}")
    begin = coder.code("")
    rows = [
        torch.tensor([*begin, *ids[tokens * number : tokens * (number + 1) - len(begin)]])
        for number in range(count)
    ]
    plans = {"whole": Plan.full(opened.facts)} | {
        f"{first} first + {window - first} last": Plan.uniform(
            opened.facts, sink=first, window=window - first
        )
        for first in FIRST
    }
    print_header(
        "keys", "cache kept", f"tokens to {window}",
        *(f"quarter {number}" for number in range(1, 5)),
    )  # fmt: skip
    for words, plan in plans.items():
        losses = np.mean([losses_under(opened.model, plan, row) for row in rows], axis=0)
        quarters = np.array_split(losses[window:], 4)
        print_row(
            words, f"{plan.kept(tokens):.1%}", f"{losses[:window].mean():.3f}",
            *(f"{quarter.mean():.3f}" for quarter in quarters),
        )  # fmt: skip


@torch.no_grad()
def losses_under(model: torch.nn.Module, plan: Plan, ids: torch.Tensor) -> np.ndarray:
    """Loss of every token but the first, with the keys that a plan allows."""
    with attach(model, plan):
        states = text_decoder(model)(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    head = model.get_output_embeddings()
    pairs = zip(states[:-1].split(BLOCK), ids[1:].split(BLOCK), strict=True)
    losses = [
        F.cross_entropy(head(part).float(), target, reduction="none") for part, target in pairs
    ]
    return torch.cat(losses).double().numpy()


if __name__ == "__main__":
    main()
