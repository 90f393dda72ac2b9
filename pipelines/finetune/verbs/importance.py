"""The verb `importance`: how much hidden units matter, with a signal and as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import opened
from ....base.errors import InputError
from ....base.files import write_aside
from ....models.language.tuning.importance import UnitGradients, unit_gradients
from ...engine.command_line.terminal import say
from ...engine.opened_models import open_base
from ..coding import DialogueCoder
from ..data import template_of
from ..general import read_general
from ..masks import FAINT, batches
from ..options import ImportanceOptions


def importance(options: ImportanceOptions) -> pl.DataFrame:
    """A row for each hidden unit; returns the table, and writes it."""
    path = Path(options.output)
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"--output {path}: must end in .parquet or .csv")
    base = open_base(options.model)
    with opened() as account:
        coder = DialogueCoder(base, template_of(options.template, base))
        sources = read_general(options.general, coder, options.most_tokens, seed=0)
    for line in account.lines():
        say(line)
    rows = [row for texts in sources for row in texts.part("train").rows]
    layers = range(base.facts.layers)
    signal, published = (
        unit_gradients(base.model, batches(rows), layers, form=form)
        for form in ("loss", "published")
    )
    table = _table(signal, published)
    write = table.write_parquet if path.suffix == ".parquet" else table.write_csv
    write_aside(path, lambda aside: write(aside))
    say(_sentence(signal, published, table))
    say(f"importance {path}")
    return table


def _table(signal: UnitGradients, published: UnitGradients) -> pl.DataFrame:
    parts = []
    masks = [gradients.importance() for gradients in (signal, published)]
    for layer, values in signal.by_layer.items():
        parts.append(
            pl.DataFrame(
                {
                    "layer": np.full(len(values), layer),
                    "unit": np.arange(len(values)),
                    "gradient": values.numpy(),
                    "importance": masks[0][layer].numpy(),
                    "gradient_published": published.by_layer[layer].numpy(),
                    "importance_published": masks[1][layer].numpy(),
                }
            )
        )
    return pl.concat(parts)


def _sentence(signal: UnitGradients, published: UnitGradients, table: pl.DataFrame) -> str:
    noise = published.largest()
    word = "rounding noise" if noise < FAINT else "more than rounding noise"
    means = [table[name].mean() for name in ("importance", "importance_published")]
    alike = np.corrcoef(table["importance"], table["importance_published"])[0, 1]
    return (
        f"largest gradient of a unit: {signal.largest():.2g} of the loss, {noise:.2g} as published "
        f"({word}); mean importance {means[0]:.2f} and {means[1]:.2f}, correlation {alike:.2f}"
    )
