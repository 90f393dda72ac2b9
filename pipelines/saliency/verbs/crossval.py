"""Leave one group of scenes out in turn: a training for each, all scenes scored by the model that
has not seen them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ....data.formats.pictures import read_picture, write_png
from ...engine.command_line.terminal import say
from ...engine.experiments.jobs import Record, check_plain, claimed, fingerprint_of, run_jobs
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.runs.report import write_sheets
from ...engine.spec import DictSpec
from ...engine.training.order import mix
from ...engine.training.quick import fit
from ...metrics.saliency import bootstrap_table
from .. import figures
from ..data import Scenes, check_polarity, read_source, taken
from ..options import CrossvalOptions
from ..scoring import OURS, maps_of, scored, table_of

FREE = ("output", "run", "accelerator", "workers", "keep", "logger", "checkpoint_every")


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train without each group in turn; writes maps, crossval.json, tables/ and scenes.png into
    --output. Returns the table of scores by data set."""
    check_plain(options, "crossval")
    if options.data is None:
        raise InputError("crossval: name the scenes with --data")
    output = Path(options.output)
    source = read_source(options)
    scenes, rows = source.scenes, source.scenes.rows()
    names = sorted(set(scenes.groups))
    if len(names) < 2:
        raise InputError(f"{scenes.where}: holds {len(names)} group; leaving one out needs two")
    inverted = check_polarity(source, rows)
    part = Scenes(source, rows)
    data = {"names": scenes.names, "groups": scenes.groups}
    with claimed(output) as home:
        run_jobs(
            {f"group{number:04d}": number for number in range(len(names))},
            LeftOut(pipeline, options, part, names, home),
            home,
            fingerprint_of(options, data, FREE),
            title="crossval",
            unit="group",
        )
        return _report(part, home, output, inverted, options.seed)


@dataclass(frozen=True)
class LeftOut:
    """Does the job of a group, by its number: a training without it, and the maps of its scenes."""

    pipeline: AnyPipeline
    options: CrossvalOptions
    part: Scenes
    names: list[str]
    home: Path

    def __call__(self, number: int) -> Record:
        options, source, rows = self.options, self.part.source, self.part.rows
        out = np.array(source.scenes.groups) == self.names[number]
        device = pick_device(options.accelerator)
        generator = np.random.default_rng(mix(options.seed, number))
        chosen, seen = taken(source.scenes, rows[~out], options.validation_share, generator)
        validation = Scenes(source, chosen) if len(chosen) else None
        train, spec = Scenes(source, seen), DictSpec()
        model, _ = fit(self.pipeline, options, train, spec, device, validation=validation)
        unseen = Scenes(source, rows[out])
        for row, saliency in zip(rows[out], maps_of(model, unseen, options, device)):
            write_png(self.home / f"map{row:06d}.png", saliency)
        return {"group": self.names[number]}


def _report(
    part: Scenes, home: Path, output: Path, inverted: float | None, seed: int
) -> pl.DataFrame:
    maps = [read_picture(home / f"map{row:06d}.png")[0] for row in part.rows]
    found = scored(part, maps)
    table = table_of(part, found)
    groups = part.of("groups")
    intervals = {who: bootstrap_table(scores, groups, seed=seed) for who, scores in found.items()}
    each = [
        {
            "scene": name,
            "group": group,
            **{f"{who}: S-measure": float(s.s_measure[k]) for who, s in found.items()},
        }
        for k, (name, group) in enumerate(zip(part.of("names"), groups))
    ]
    facts = {"data": part.source.scenes.where, "groups": len(set(groups)), "inverted": inverted}
    write_json(
        output / "crossval.json",
        {**facts, "scores": table.to_dicts(), "intervals": intervals, "scenes": each},
    )
    write_sheets(output / "tables", {"scores": table})
    drawn = figures.sheet(part, maps, found[OURS]).figure
    write_aside(output / "scenes.png", lambda path: drawn.savefig(path, format="png", dpi=110))
    for row in table.iter_rows(named=True):
        say(
            f"{row['data set']:<14} {row['map']:<12} S {row['S-measure']:.3f}  MAE {row['MAE']:.3f}  "
            f"max F {row['max F-measure']:.3f}"
        )
    say(f"scores {output / 'crossval.json'}")
    return table
