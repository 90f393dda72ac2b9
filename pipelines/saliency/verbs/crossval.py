"""Leave out one group of scenes at a time: each scene is scored by the models that have not been
fitted to its group: all rungs of the ladder, and the one that was chosen without it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from ...engine.ladder import RUNGS
from ...engine.options import RungName
from ...engine.pipeline import AnyPipeline, Context, Splits
from ...engine.runs.ladder_files import fit_ladder
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
from ..rungs import SaliencyRungs
from ..scoring import MODEL, maps_of, score_maps, set_table

CHOSEN = "chosen"
FREE = ("output", "run", "accelerator", "workers", "keep", "logger", "checkpoint_every")


def crossval(pipeline: AnyPipeline, options: CrossvalOptions) -> pl.DataFrame:
    """Train without each group in turn, with the rungs of the ladder; writes maps, crossval.json,
    tables/ and scenes.png into --output. Returns the table of scores by data set."""
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
    spec = describe_source(source, {}, None)
    held = Scenes(source, rows if options.validation_share else rows[:0])
    SaliencyRungs().prepare(Splits(part, held, part, spec), options)
    publish(account)
    data = {"names": scenes.names, "groups": scenes.groups}
    with claimed(output) as home:
        publish(account, output / ACCOUNT, shown=False)
        records = run_jobs(
            {f"group{number:04d}": number for number in range(len(names))},
            LeftOut(pipeline, options, part, names, home),
            home,
            fingerprint_of(options, data, FREE),
            title="crossval",
            unit="group",
        )
        chosen = {str(record["group"]): str(record["chosen"]) for record in records.values()}
        return _report(part, home, output, chosen, inverted, options.seed)


@dataclass(frozen=True)
class LeftOut:
    """Does the job of a group, by its number: a training without it, and the maps of its scenes by
    each rung.
    """

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
        splits = Splits(train, validation, test, spec)
        ladder = fit_ladder(self.pipeline, model, splits, Context(options, spec, {}, device))
        assert ladder is not None
        for rung, of_rung in ladder.models.items():
            for row, levels in zip(test.rows, maps_of(of_rung, test, options, device)):
                write_png(self.home / map_file(row, rung), levels)
        return {"group": self.names[number], "chosen": ladder.chosen}


def map_file(row: int, rung: RungName) -> str:
    """Where the map of a scene by a rung lies."""
    return f"map{row:06d}-{rung}.png"


def _maps(part: Scenes, home: Path, chosen: Mapping[str, RungName]) -> dict[str, list[np.ndarray]]:
    """The maps of all scenes by each rung and by the one that was chosen without their group, by
    name. A rung that could not be fitted without some group is left out.
    """
    groups = part.column("groups")
    rungs = {CHOSEN: [chosen[group] for group in groups]}
    for rung in RUNGS:
        if all((home / map_file(row, rung)).exists() for row in part.rows):
            rungs[MODEL if rung == "model" else rung] = [rung] * len(part)
    return {
        name: [
            read_picture(home / map_file(row, rung))[0]
            for row, rung in zip(part.rows, of_scenes, strict=True)
        ]
        for name, of_scenes in rungs.items()
    }


def _report(
    part: Scenes,
    home: Path,
    output: Path,
    chosen: Mapping[str, RungName],
    inverted: float | None,
    seed: int,
) -> pl.DataFrame:
    maps = _maps(part, home, chosen)
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
            "chosen": chosen[group],
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
    save_png(scenes_figure(part, maps[CHOSEN], map_scores[CHOSEN]).figure, output / "scenes.png")
    for row in table.iter_rows(named=True):
        say(
            f"{row['data set']:<14} {row['map']:<12} S {row['S-measure']:.3f}  MAE "
            f"{row['MAE']:.3f}  max F {row['max F-measure']:.3f}"
        )
    say(f"scores {output / 'crossval.json'}")
    return table
