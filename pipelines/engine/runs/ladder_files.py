"""The ladder of a run, fitted after the training and stored with it.

`ladder.json` says what each rung is and which one predicts; `ladder/NAME.safetensors` holds the
tensors of the naive, the simple and the blended one. A run without these files predicts with its
domain model. `ladder/seconds.json` says what fitting took; it is apart because predictions carry
the mark of `ladder.json`, and two equal trainings must give the same mark.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ....base.errors import InputError, one_line
from ....base.files import checksum, write_aside, write_json
from ..choice import choose
from ..ladder import RUNGS, Ladder, LadderFacts, LadderScores, Rung, RungFacts
from ..options import Choose, LadderOptions, RungName
from ..pipeline import Context, DataT, OptionsT, Pipeline, SpecT, Splits
from ..spec import misfit
from .checkpoint import load_weights
from .run_directory import RunDirectory, read_facts

FACTS, FOLDER = "ladder.json", "ladder"
PARTS = ("model.", "simple.")  # of a blend: stored with the rungs that they are


def fit_ladder(
    pipeline: Pipeline[OptionsT, SpecT],
    model: nn.Module,
    splits: Splits[SpecT, DataT],
    context: Context[OptionsT, SpecT],
    simple: Mapping[RungName, Rung] | None = None,
) -> Ladder | None:
    """Fit the rungs around a trained model and choose the one that predicts; None for a task
    without a ladder.

    simple: what `Rungs.simple` gave for the same data and seed, where it was asked before.
    """
    options, device = context.options, context.device
    of_task = pipeline.rungs(splits.spec)
    started = time.perf_counter()
    if of_task is None:
        return None
    rungs = dict(of_task.simple(model, splits, options, device) if simple is None else simple)
    if not rungs:
        return None
    fitted = time.perf_counter()
    seconds: dict[RungName, float] = dict.fromkeys(rungs, (fitted - started) / len(rungs))
    rungs["model"] = Rung(of_task.model_words(options), model)
    if "simple" in rungs:
        blend = of_task.blend(model, rungs["simple"].model, splits, options, device)
        parts = f"the blend of {rungs['simple'].name} and {rungs['model'].name}"
        rungs["blend"] = blend._replace(short=parts)
        seconds["blend"] = time.perf_counter() - fitted
    models = {name: rungs[name].model.to(device).eval() for name in RUNGS if name in rungs}
    with torch.no_grad():
        scores = of_task.scores(models, splits.validation, context)
    asked = options.choose if isinstance(options, LadderOptions) else "auto"
    chosen, why = _chosen(scores, asked, proven="simple" in rungs and rungs["simple"].proven)
    facts: dict[RungName, RungFacts] = {
        name: RungFacts(
            short=rungs[name].name,
            words=rungs[name].words,
            facts=dict(rungs[name].facts),
            validation=scores.score[name] if math.isfinite(scores.score[name]) else None,
        )
        for name in models
    }
    stored = LadderFacts(chosen=chosen, why=why, metric=scores.metric, rungs=facts)
    return Ladder(models, stored, seconds, rungs["simple"].refit if "simple" in rungs else None)


def _chosen(scores: LadderScores, asked: Choose, *, proven: bool) -> tuple[RungName, str]:
    if asked == "auto":
        return choose(scores, proven=proven)
    if asked not in scores.score:
        raise InputError(f"--choose {asked}: this run has no such model")
    return asked, f"asked for by --choose {asked}"


def save_ladder(run: RunDirectory, ladder: Ladder) -> None:
    """Write the rungs other than the domain model, then `ladder.json`."""
    (run.path / FOLDER).mkdir(exist_ok=True)
    checksums: dict[str, str] = {}
    for name, model in ladder.models.items():
        if name != "model":
            path, tensors = run.path / FOLDER / f"{name}.safetensors", _tensors(model)
            write_aside(path, lambda aside, tensors=tensors: save_file(tensors, aside))
            checksums[name] = checksum(path)
    spent = {name: round(seconds, 3) for name, seconds in ladder.seconds.items()}
    write_json(run.path / FOLDER / "seconds.json", spent)
    write_json(run.path / FACTS, {**ladder.facts, "sha256": checksums})


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of a rung, those of a blend without its parts."""
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if not name.startswith(PARTS)
    }


def open_ladder(
    pipeline: Pipeline[OptionsT, SpecT],
    run: RunDirectory,
    model: nn.Module,
    context: Context[OptionsT, SpecT],
) -> Ladder | None:
    """The ladder of a finished run around its model; None where it has none.

    Raises `InputError` for files that are missing, changed or damaged.
    """
    path = run.path / FACTS
    if not path.exists():
        return None
    stored = read_facts(path)
    if problem := misfit(dict(stored), LadderFacts, "the ladder"):
        raise InputError(f"{path}: {problem}; the file is damaged")
    facts = cast(LadderFacts, {name: stored[name] for name in LadderFacts.__annotations__})
    if facts["chosen"] not in facts["rungs"] or not set(facts["rungs"]) <= set(RUNGS):
        raise InputError(f"{path}: names rungs that it does not hold; the file is damaged")
    models: dict[RungName, nn.Module] = {}
    for name in (rung for rung in RUNGS if rung in facts["rungs"]):
        if name == "model":
            models[name] = model
            continue
        file = run.path / FOLDER / f"{name}.safetensors"
        if not file.is_file() or checksum(file) != stored["sha256"].get(name):
            raise InputError(f"{file}: missing or damaged; restore it from a copy of the run")
        parts = {**models, "model": model}
        rung = _empty(pipeline, name, facts["rungs"][name]["facts"], parts, context.spec, path)
        _load(rung, load_weights(file), str(file))
        models[name] = rung.to(context.device).eval()
    return Ladder(models, facts)


def _empty(
    pipeline: Pipeline[OptionsT, SpecT],
    name: RungName,
    facts: Mapping[str, object],
    models: Mapping[RungName, nn.Module],
    spec: SpecT,
    path: Path,
) -> nn.Module:
    """A rung without its tensors; `InputError` for facts that make none."""
    of_task = pipeline.rungs(spec)
    try:
        if of_task is None:
            raise ValueError("the task has no ladder")
        return of_task.empty(name, facts, models, spec)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"facts of no {name} model ({one_line(error)})"
        raise InputError(f"{path}: {problem}; the file is damaged") from None


def _load(rung: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    expected = {name for name in rung.state_dict() if not name.startswith(PARTS)}
    try:
        rung.load_state_dict(dict(tensors), strict=False)
    except RuntimeError:
        expected = set()
    if set(tensors) != expected:
        raise InputError(f"{where}: tensors of another model; the file is damaged")
