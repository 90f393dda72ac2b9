"""The verb `search`: which layers and modules to tune, by a tree of short tunings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl

from ....base.account import opened
from ....base.files import write_aside
from ....models.language.tuning.cofitune import Node, Visit, tree_search
from ....models.language.tuning.tuned import LanguageModel
from ...engine.command_line.terminal import say
from ...engine.pipeline import Splits
from ...engine.runs.loaded import pick_device
from ...engine.runs.paths import with_absolute_paths
from ...engine.training.quick import fit
from ..data import TunePart
from ..options import SearchOptions
from ..pipeline import FinetunePipeline
from ..rungs import as_it_came, plain
from ..scoring import row_losses
from ..spec import TuneSpec

JOURNAL, TABLE = "visits.jsonl", "search.csv"
# Options that say where and how, and change no visit.
_FREE = ("output", "layers", "modules", "versatility", "run", "workers", "accelerator")


def search(pipeline: FinetunePipeline, options: SearchOptions) -> list[Visit]:
    """Tune each node for --node-steps steps; returns the visits, and writes them as a table."""
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        options = replace(options, data=str(pipeline.write_sample(folder)))
    options = with_absolute_paths(options)
    with opened(options.accept) as account:
        splits = pipeline.open_data(options)
    for line in account.lines():
        say(line)
    came = losses(as_it_came(splits.spec), splits, options)

    def tune(node: Node) -> tuple[float, float]:
        trying = replace(
            options,
            layers=f"{node.first:g}-{node.last:g}%",
            modules=node.modules,
            max_steps=options.node_steps,
            epochs=options.node_steps,
        )
        device = pick_device(options.accelerator)
        model, _ = fit(pipeline, trying, splits.train, splits.spec, device)
        task, general = losses(plain(model), splits, options)
        say(f"{node.words()}: gained {came[0] - task:+.3f}, lost {general - came[1]:+.3f}")
        return came[0] - task, general - came[1]

    visits = tree_search(
        tune,
        weight=options.versatility,
        journal=folder / JOURNAL,
        setting=_setting(options, splits.spec),
    )
    _write(folder / TABLE, visits)
    best = max(visits, key=lambda visit: visit.score)
    say(
        f"best: --layers {best.node.first:g}-{best.node.last:g}% --modules "
        f"{' '.join(best.node.modules)}: gained {best.gained:+.3f} nats a token on the validation "
        f"part, lost {best.lost:+.3f} on general texts; table {folder / TABLE}"
    )
    return visits


def losses(
    model: LanguageModel, splits: Splits[TuneSpec, TunePart], options: SearchOptions
) -> tuple[float, float]:
    """Nats a token of the validation part, and of its general texts, 0 without them."""
    part, device = splits.validation, pick_device(options.accelerator)
    padding = part.coder.padding
    task = row_losses(model, part.coded, device, padding=padding).mean
    sources = [row_losses(model, g.rows, device, padding=padding).mean for g in part.general]
    return task, sum(sources) / len(sources) if sources else 0.0


def _setting(options: SearchOptions, spec: TuneSpec) -> str:
    """What the visits depend on."""
    values = {name: value for name, value in asdict(options).items() if name not in _FREE}
    text = json.dumps([values, spec.to_json()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, visits: list[Visit]) -> None:
    table = pl.DataFrame(
        [
            {
                "layers": f"{visit.node.first:g}-{visit.node.last:g}%",
                "modules": " ".join(visit.node.modules),
                "gained": visit.gained,
                "lost": visit.lost,
                "score": visit.score,
            }
            for visit in visits
        ]
    )
    write_aside(path, lambda aside: table.write_csv(aside))
