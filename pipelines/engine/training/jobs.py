"""The verbs train and evaluate of every task. Each takes its options and is the Python API."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ....base.account import Account, note, opened
from ....base.errors import InputError
from ....base.files import checksum, read_json, write_aside, write_json, write_text
from ...figures.ladder import ladder_figure
from ..accounts import publish
from ..command_line import machine
from ..command_line.terminal import say
from ..inference.members import read_members, write_members
from ..inference.shards import predict
from ..ladder import Ladder, ladder_metrics, ladder_rows, ladder_table, refitted, verdict
from ..options import FREE_ON_RESUME, SAMPLE_PRESET, EvaluateOptions, TrainOptions
from ..pipeline import (
    AnyPipeline,
    Context,
    DataT,
    Metrics,
    OptionsT,
    Pipeline,
    ReportFigure,
    Review,
    SpecT,
    Splits,
)
from ..runs.ladder_files import fit_ladder, save_ladder
from ..runs.loaded import Loaded, load_run
from ..runs.paths import as_typed, homes_of, same_option, with_absolute_paths
from ..runs.report import write_report
from ..runs.run_directory import ACCOUNT, MEMBERS, RunDirectory, dump_options, read_facts
from ..spec import JsonValue
from .devices import open_fabric
from .loop import Trainer
from .storage import RunStorage

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(pipeline: AnyPipeline, options: TrainOptions) -> RunDirectory:
    """Train, score on the test part, write the report. Returns the finished run."""
    absolute = with_absolute_paths(options)
    try:
        with opened(options.accept, homes_of(absolute)) as account:
            return _train(pipeline, absolute, account)
    except InputError as error:
        raise as_typed(error, options, absolute) from error


def _train(pipeline: AnyPipeline, options: TrainOptions, account: Account) -> RunDirectory:
    fabric = open_fabric(options)
    fabric.launch()
    run = _start(pipeline, options, fabric)
    try:
        try:
            data = with_data(pipeline, options, run)
            if options.data is None and options.preset == SAMPLE_PRESET:
                note("assumed", "no --data: the built-in sample, trained as --preset sample says")
            fabric.barrier()
            splits = _open_data(pipeline, data, run)
            if fabric.is_global_zero:
                if (rungs := pipeline.rungs(splits.spec)) is not None:
                    rungs.prepare(splits, data)
                splits = _write_assets(run, splits)
                _check_spec(run, splits.spec.to_json(), options)
                write_members(run.path / MEMBERS, splits.members)
            fabric.barrier()
            storage = RunStorage(run, options, first_process=fabric.is_global_zero)
            trainer = Trainer(
                pipeline, options, splits.train, splits.validation, splits.spec, storage, fabric
            )
        except InputError:
            run.take_back()
            raise
        say(f"run {run.path}")
        if fabric.is_global_zero:
            publish(account, run.path / ACCOUNT)
        printed = copy.deepcopy(account.entries())
        model = trainer.run()
        if fabric.is_global_zero:
            run.measured.mkdir(exist_ok=True)
            context = Context(data, splits.spec, {}, fabric.device, run.measured)
            try:
                with torch.no_grad():
                    pipeline.complete(model, splits, context)
            except InputError:
                # Nothing was trained or measured that would be lost.
                if not trainer.progress.step and not any(run.measured.glob("**/*.*")):
                    run.take_back()
                raise
            say_more = partial(publish, account, run.path / ACCOUNT, before=printed)
            _finish(pipeline, data, splits, run, model, fabric.device, say_more)
        fabric.barrier()
    finally:
        run.unlock()
    return run


def with_data(pipeline: AnyPipeline, options: OptionsT, run: RunDirectory) -> OptionsT:
    """The options with the path of their data; without `--data` the sample is generated into the
    run.
    """
    if options.data is not None:
        return options
    folder = run.path / "sample"
    path = folder / "PATH"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        write_text(path, pipeline.write_sample_for(options, folder).name)
    return replace(options, data=str(folder / path.read_text()))


def _start(pipeline: AnyPipeline, options: TrainOptions, fabric: Fabric) -> RunDirectory:
    """Create the run directory, or open it again for --resume; the first process does it for
    all.
    """
    run = None
    if fabric.is_global_zero:
        if options.resume:
            run = _reopen(pipeline, options)
        else:
            run = RunDirectory.create(options.run, pipeline.task.name, options.data)
            facts = machine.environment(
                pipeline.task.name, options.seed, str(fabric.device), fabric.world_size
            )
            write_json(run.path / "environment.json", facts)
            write_text(run.path / "config.yaml", dump_options(options))
    path = fabric.broadcast(str(run.path) if run else "")
    return run or RunDirectory(path)


def _reopen(pipeline: AnyPipeline, options: TrainOptions) -> RunDirectory:
    if options.run is None:
        raise InputError("--resume: say which run with --run")
    run = RunDirectory.open(options.run, pipeline.task.name)
    before, now = run.config(), asdict(options)
    now = {name: list(value) if isinstance(value, tuple) else value for name, value in now.items()}
    free = FREE_ON_RESUME
    # An option that an older version did not have was at its default.
    before = {**_defaults_of(options), **before}
    changed = [k for k in now if k not in free and not same_option(k, before[k], now[k])]
    if changed:
        pairs = ", ".join(f"{name} was {before[name]}, now {now[name]}" for name in changed)
        raise InputError(
            f"{run.path}: cannot resume with other options: {pairs}; start a new run for them"
        )
    run.lock()
    return run


def _defaults_of(options: TrainOptions) -> dict[str, object]:
    values = asdict(type(options)())
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _open_data(
    pipeline: Pipeline[OptionsT, SpecT], options: OptionsT, run: RunDirectory
) -> Splits[SpecT]:
    """The data in its parts. A run that an older version has started, which wrote less into its
    spec, goes on with the parts that it had.
    """
    splits = pipeline.open_data(options)
    path = run.path / "spec.json"
    before = read_facts(path) if options.resume and path.exists() else None
    if before is None or set(splits.spec.to_json()) <= set(before):
        return splits
    spec = pipeline.spec_class.from_json(before, path)
    older = pipeline.open_data(options, spec)
    sizes = {name: len(older.part(name)) for name in ("train", "validation", "test")}
    if before.get("parts", sizes) != sizes:
        return splits  # what differs is said when the specs are compared
    note("assumed", "the run was started by an older version; its parts stay as they were")
    return older


def _check_spec(run: RunDirectory, spec: dict[str, JsonValue], options: TrainOptions) -> None:
    """A resumed run must see the data that it started with."""
    path = run.path / "spec.json"
    if path.exists() and options.resume:
        before = read_json(path)
        now = json.loads(json.dumps(spec))
        differs = [key for key in now if key in before and before[key] != now[key]]
        if differs:
            raise InputError(
                f"{run.path}: the data changed since the run was started ({', '.join(differs)}); "
                "start a new run"
            )
    else:
        write_json(path, spec)


def _write_assets(run: RunDirectory, splits: Splits[SpecT, DataT]) -> Splits[SpecT, DataT]:
    """Write the task's files into the run, and their checksums into the spec; a resumed run has
    the files already.
    """
    if not splits.assets:
        return splits
    folder = run.path / "assets"
    checksums = {}
    for name, write in splits.assets.items():
        if not (folder / name).exists():
            write_aside(folder / name, write)
        checksums[name] = checksum(folder / name)
    return replace(splits, spec=splits.spec.with_assets(checksums, folder))


def _finish(
    pipeline: Pipeline[OptionsT, SpecT],
    options: OptionsT,
    splits: Splits[SpecT],
    run: RunDirectory,
    model: nn.Module,
    device: torch.device,
    say_more: Callable[[], None],
) -> None:
    """Calibrate, score on the test part, predict for the run's own data, write the report.

    say_more: prints and writes what was noted since the training began.
    """
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    # Choose by the validation part what predicts; all that follows is of the one chosen.
    ladder = fit_ladder(pipeline, model, splits, Context(options, splits.spec, {}, device))
    predictor = model if ladder is None else ladder.predictor
    calibration = pipeline.calibrate(predictor, splits, options, device)
    if ladder is not None:  # the validation part has nothing left to choose
        ladder = refitted(ladder, device)
        save_ladder(run, ladder)
        model = ladder.predictor
    say_more()
    write_aside(run.path / "calibration.safetensors", lambda path: save_file(calibration, path))
    context = Context(options, splits.spec, calibration, device)
    review = _reviewed(pipeline, model, ladder, splits.test, context)
    write_json(run.path / "metrics.json", review.metrics)
    write_json(
        run.path / "card.json", _card(pipeline, options, splits.spec.to_json(), review, weights)
    )
    write_aside(run.path / "model.safetensors", lambda path: save_file(weights, path))
    predict_options = pipeline.task.predict_options(
        run=str(run.path),
        input=str(options.data),
        output=str(run.path / "predictions.parquet"),
        overwrite=True,
        accept=options.accept,
    )
    predict_options = replace(predict_options, **pipeline.prediction_options(options, splits.spec))
    predicted = predict(pipeline, predict_options, alone=True)
    run.failed = predicted.failed
    rows = predicted.table()
    pictures = [*pipeline.prediction_figures(rows, options, splits.spec), *review.pictures]
    write_report(run, pipeline, replace(review, pictures=pictures))
    shutil.rmtree(run.measured)
    say(review.headline)
    say(f"report {run.path / 'report.html'}")


def _reviewed(
    pipeline: Pipeline[OptionsT, SpecT],
    model: nn.Module,
    ladder: Ladder | None,
    dataset: DataT,
    context: Context[OptionsT, SpecT],
) -> Review:
    """The review of what predicts, with the scores of all rungs on the same rows."""
    review = pipeline.review(model, dataset, context)
    rungs = pipeline.rungs(context.spec)
    if ladder is None or rungs is None:
        return review
    with torch.no_grad():
        scores = rungs.scores(ladder.models, dataset, context)
    if not math.isfinite(scores.score[ladder.chosen]):  # a part in which nothing can be scored
        return review
    answer = rungs.answer_words(context.options, context.spec)
    caption = "What predicts, beside the other models on the same rows, with 95 % intervals"
    figure = ladder_figure(scores.metric, ladder_rows(ladder, scores))
    picture = ReportFigure("ladder", caption, figure)
    sentences = [verdict(ladder, scores, answer), review.headline]
    return replace(
        review,
        metrics={**review.metrics, "ladder": ladder_metrics(ladder, scores)},
        headline=". ".join(reversed(sentences) if review.is_first else sentences),
        tables={"Compared with simpler models": ladder_table(ladder, scores), **review.tables},
        pictures=[*review.pictures, picture],
    )


def _card(
    pipeline: AnyPipeline,
    options: TrainOptions,
    spec: dict[str, JsonValue],
    review: Review,
    weights: Mapping[str, Tensor],
) -> dict[str, JsonValue]:
    return {
        "task": pipeline.task.name,
        "summary": pipeline.task.summary,
        "intended_use": pipeline.task.intended_use,
        "data": options.data or "built-in generated sample",
        "parameters": sum(w.numel() for w in weights.values()),
        "headline": review.headline,
        "input": spec.get("input", {}),
        "licence_note": "the licence of the training data governs the use of the weights",
    }


def note_known(pipeline: AnyPipeline, splits: Splits[SpecT, DataT], run: RunDirectory) -> None:
    """Note how many of the items to score were in a part that the run has learned or chosen by."""
    parts = pipeline.training_parts(splits, read_members(run.path / MEMBERS))
    for name in ("train", "validation"):
        if count := int((parts == name).sum()):
            of_all = f"of {len(parts):,} items are in the {name} part of the run"
            note("items", f"{of_all}: scores on them say little of new ones", count=count)


def evaluate(
    pipeline: AnyPipeline, options: EvaluateOptions, loaded: Loaded | None = None
) -> Metrics:
    """Score a finished run; returns the metrics and prints where they are written.

    loaded: the run, where it is open already.
    """
    loaded = loaded or load_run(pipeline, options.run, options.accelerator)
    with opened(options.accept, [*homes_of(options), *homes_of(loaded.options)]) as account:
        return _evaluate(pipeline, options, loaded, account)


def _evaluate(
    pipeline: AnyPipeline, options: EvaluateOptions, loaded: Loaded, account: Account
) -> Metrics:
    part = options.part
    if options.data is not None:
        part = "all" if part == "auto" else part
        data = pipeline.evaluation_options(options, loaded.options)
        name = f"evaluation-{part}-{os.path.basename(options.data).split('.')[0]}"
    else:
        part = "test" if part == "auto" else part
        of_run = with_data(pipeline, loaded.options, loaded.run)
        data = pipeline.evaluation_options(options, of_run)
        # What the training accepted of this data is no doubt now.
        account.accept |= set(loaded.options.accept)
        name = f"evaluation-{part}"
    splits = pipeline.open_data(data, loaded.spec, as_test=part == "all")
    if part == "all":
        note_known(pipeline, splits, loaded.run)
    publish(account, loaded.run.path / f"{name}-{ACCOUNT}")
    dataset = splits.part("test" if part == "all" else part)
    review = _reviewed(pipeline, loaded.model, loaded.ladder, dataset, loaded.context(data))
    metrics: Metrics = {
        "data": data.data or "built-in generated sample",
        "part": part,
        **review.metrics,
    }
    write_json(loaded.run.path / f"{name}.json", metrics)
    write_report(loaded.run, pipeline, review, name=name)
    say(review.headline)
    say(f"metrics {loaded.run.path / f'{name}.json'}")
    return metrics
