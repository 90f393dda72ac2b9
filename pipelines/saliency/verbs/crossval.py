"""Leave out one group of scenes at a time: each scene is scored by the model that has not been
trained on its group.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ....base.account import Account, opened
from ....base.errors import InputError
from ....base.files import write_json
from ....data.formats.pictures import read_picture, write_png
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.experiments.jobs import Record, check_plain, claimed, fingerprint_of, run_jobs
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.runs.paths import homes_of
from ...engine.runs.report import write_sheets
from ...engine.runs.run_directory import ACCOUNT
from ...engine.training.order import mix
from ...engine.training.quick import fit
from ...figures.style import save_png
from ...metrics.saliency import bootstrap_table
from ..data import Scenes, check_polarity, describe_source, read_source, take_scenes
from ..figures import scenes_figure
from ..options import CrossvalOptions
from ..pipeline import decided_backbone
from ..scoring import OURS, maps_of, score_maps, set_table

FREE = ("output", "run", "accelerator", "workers", "keep", "logger", "checkpoint_every")


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train without each group in turn; writes maps, crossval.json, tables/ and scenes.png into
    --output. Returns the table of scores by data set."""
    check_plain(options, "crossval")
    with opened(options.accept, homes_of(options)) as account:
        return _crossval(pipeline, options, account)


def _crossval(pipeline: AnyPipeline, options: CrossvalOptions, account: Account) -> pl.DataFrame:
    output = Path(options.output)
    source = read_source(options)
    scenes, rows = source.scenes, source.scenes.rows()
    names = sorted(set(scenes.groups))
    if len(names) < 2:
        raise InputError(f"{scenes.where}: holds {len(names)} group; leaving one out needs two")
    inverted = check_polarity(source, rows)
    part = Scenes(source, rows)
    publish(account)
    data = {"names": scenes.names, "groups": scenes.groups}
    with claimed(output) as home:
        publish(account, output / ACCOUNT, shown=False)
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
        is_test = np.array(source.scenes.groups) == self.names[number]
        generator = np.random.default_rng(mix(options.seed, number))
        validation, train = (
            Scenes(source, chosen)
            for chosen in take_scenes(
                source.scenes, rows[~is_test], options.validation_share, generator
            )
        )
        test = Scenes(source, rows[is_test])
        parts = {"train": len(train), "validation": len(validation), "test": len(test)}
        spec = describe_source(source, parts, None, decided_backbone(options))
        device = pick_device(options.accelerator)
        model, _ = fit(
            self.pipeline,
            options,
            train,
            spec,
            device,
            validation=validation if len(validation) else None,
        )
        for row, levels in zip(test.rows, maps_of(model, test, options, device)):
            write_png(self.home / f"map{row:06d}.png", levels)
        return {"group": self.names[number]}


def _report(
    part: Scenes, home: Path, output: Path, inverted: float | None, seed: int
) -> pl.DataFrame:
    maps = [read_picture(home / f"map{row:06d}.png")[0] for row in part.rows]
    map_scores = score_maps(part, maps)
    table = set_table(part, map_scores)
    groups = part.column("groups")
    intervals = {
        kind: bootstrap_table(scores, groups, seed=seed) for kind, scores in map_scores.items()
    }
    scenes = [
        {
            "scene": name,
            "group": group,
            **{f"{kind}: S-measure": float(s.s_measure[k]) for kind, s in map_scores.items()},
        }
        for k, (name, group) in enumerate(zip(part.column("names"), groups))
    ]
    facts = {"data": part.source.scenes.where, "groups": len(set(groups)), "inverted": inverted}
    write_json(
        output / "crossval.json",
        {**facts, "scores": table.to_dicts(), "intervals": intervals, "scenes": scenes},
    )
    write_sheets(output / "tables", {"scores": table})
    save_png(scenes_figure(part, maps, map_scores[OURS]).figure, output / "scenes.png")
    for row in table.iter_rows(named=True):
        say(
            f"{row['data set']:<14} {row['map']:<12} S {row['S-measure']:.3f}  MAE "
            f"{row['MAE']:.3f}  max F {row['max F-measure']:.3f}"
        )
    say(f"scores {output / 'crossval.json'}")
    return table
