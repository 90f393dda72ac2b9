"""Leave one group of scenes out in turn: a training for each, all scenes scored by the model that
has not seen them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ....data.formats.pictures import read_picture, write_png
from ...engine.command_line.terminal import Progressbar, say
from ...engine.experiments.trainings import check_plain, claimed, fingerprint_of, stands
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.runs.report import write_sheets
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
    scenes, every = source.scenes, source.scenes.rows()
    names = sorted(set(scenes.groups))
    if len(names) < 2:
        raise InputError(f"{scenes.where}: holds {len(names)} group; leaving one out needs two")
    inverted = check_polarity(source, every)
    part, home = Scenes(source, every), output / "trainings"
    fingerprint = fingerprint_of(options, {"names": scenes.names, "groups": scenes.groups}, FREE)
    groups = np.array(scenes.groups)
    with claimed(output):
        with Progressbar(total=len(names), unit="group", desc="crossval") as bar:
            for number, name in enumerate(names):
                record = home / f"group{number:04d}.json"
                if not stands(record, fingerprint):
                    _train(
                        pipeline,
                        options,
                        part,
                        every[groups != name],
                        every[groups == name],
                        number,
                        home,
                    )
                    write_json(record, {"fingerprint": fingerprint, "group": name})
                bar.update()
        return _report(part, home, output, inverted, options.seed)


def _train(
    pipeline: AnyPipeline,
    options: CrossvalOptions,
    part: Scenes,
    seen: np.ndarray,
    unseen: np.ndarray,
    number: int,
    home: Path,
) -> None:
    """One training; the maps of the group it has not seen."""
    device = pick_device(options.accelerator)
    generator = np.random.default_rng(mix(options.seed, number))
    kept, seen = taken(part.source.scenes, seen, options.validation_share, generator)
    held = Scenes(part.source, kept) if len(kept) else None
    model, _ = fit(pipeline, options, Scenes(part.source, seen), {}, device, validation=held)
    for row, drawn in zip(unseen, maps_of(model, Scenes(part.source, unseen), options, device)):
        write_png(home / f"map{row:06d}.png", drawn)


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
