"""The verb explain: the importance factor of each layer or frame, and its check by deletion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from torch import nn

from ....base.account import opened
from ....base.errors import InputError
from ....base.files import write_aside, write_json
from ....models.speech.classifier import BlendedRecordings, RecordingClassifier
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.runs.loaded import Loaded, load_run
from ...engine.runs.paths import homes_of
from ...engine.runs.run_directory import ACCOUNT
from ...engine.training.jobs import with_data
from ...figures.style import save_png
from ..data import RecordingSet
from ..deletion import ORDERS, Deletion, check_deletion, importance_factors
from ..figures import deletion_figure, importance_figure
from ..options import ExplainOptions, RecordingsOptions
from ..pipeline import RecordingsPipeline
from ..spec import RecordingsSpec

BINS = 20  # stretches of a recording whose importance is shown
FACTS = "explain.json"


def explain(pipeline: RecordingsPipeline, options: ExplainOptions) -> pl.DataFrame:
    """Write importance.png, deletion.png, explain.json, recordings.parquet and account.json into
    --output. Returns the table of recordings.

    Raises `InputError` for a run whose head has no weights of tokens, and an --output that holds
    other things.
    """
    pipeline.task.check(options)
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists already; choose another --output")
    loaded = load_run(pipeline, options.run, options.accelerator)
    model = tokens_model(loaded)
    with opened(options.accept, [*homes_of(options), *homes_of(loaded.options)]) as account:
        if options.data is None:
            account.accept |= set(loaded.options.accept)
        part = _part(pipeline, loaded, options)
        deletion = check_deletion(
            model, part, loaded.device, draws=options.draws, seed=options.seed
        )
        output.mkdir(parents=True, exist_ok=True)
        table = _write(output, part, deletion, loaded.spec)
        publish(account, output / ACCOUNT)
    say(f"{deletion.sentence}.")
    say(f"importance {output / 'importance.png'}")
    return table


def tokens_model(loaded: Loaded[RecordingsOptions, RecordingsSpec]) -> RecordingClassifier:
    """The model of tokens of a run, whatever predicts. Raises `InputError` where its head tells
    nothing.
    """
    rung = loaded.ladder.models["model"] if loaded.ladder is not None else loaded.model
    model: nn.Module = rung.model if isinstance(rung, BlendedRecordings) else rung
    assert isinstance(model, RecordingClassifier)
    if not model.has_importance:
        chosen = loaded.options
        head = chosen.attention if chosen.head == "attention" else chosen.head
        raise InputError(
            f"{loaded.run.path}: its head ({head}) has no weights of tokens; train with --head "
            "gaam or --attention softmax"
        )
    return model


def _part(
    pipeline: RecordingsPipeline,
    loaded: Loaded[RecordingsOptions, RecordingsSpec],
    options: ExplainOptions,
) -> RecordingSet:
    of_run = loaded.options
    if options.data is None:
        of_run = with_data(pipeline, loaded.options, loaded.run)
    data = pipeline.evaluation_options(options, of_run)
    is_other = options.data is not None
    is_all = options.part == "all" or (options.part == "auto" and is_other)
    splits = pipeline.open_data(data, loaded.spec, as_test=is_all)
    return splits.part("test" if options.part in ("auto", "all") else options.part)


def _write(
    output: Path, part: RecordingSet, deletion: Deletion, spec: RecordingsSpec
) -> pl.DataFrame:
    """Write pictures, facts and the table of recordings."""
    is_fixed = spec.features == "whisper-layers"
    bins = None if is_fixed else BINS
    factors = importance_factors(deletion.importance, bins)
    names = [f"{100 * (k + 0.5) / BINS:.0f} %" for k in range(BINS)]
    if is_fixed:
        names = ["input", *(f"layer {k}" for k in range(1, len(factors)))]
    by_class = {
        name: importance_factors([deletion.importance[k] for k in rows.tolist()], bins)
        for number, name in enumerate(part.classes)
        if len(rows := np.flatnonzero(part.labels == number))
    }
    save_png(importance_figure(factors, names, by_class), output / "importance.png")
    shares = [0.0, *deletion.shares]
    means = {
        name: np.concatenate([[deletion.intact.mean()], deletion.curves[name].mean(0)])
        for name in ORDERS
    }
    save_png(deletion_figure(shares, means), output / "deletion.png")
    facts = {
        "sentence": deletion.sentence,
        "recordings": len(part),
        "tokens": names,
        "importance_factor": factors.tolist(),
        "deleted_share": shares,
        "log_probability": {name: values.tolist() for name, values in means.items()},
        "gain": float(deletion.gains.mean()),
        "gain_interval_95": list(deletion.interval),
    }
    write_json(output / FACTS, facts)
    table = pl.DataFrame(
        {
            "recording": part.names,
            "label": [part.classes[k] for k in part.labels.tolist()],
            "speaker": part.speakers,
            "log_probability": deletion.intact,
            "gain_over_random": deletion.gains,
            "importance": [values.tolist() for values in deletion.importance],
        }
    )
    write_aside(output / "recordings.parquet", lambda path: table.write_parquet(path))
    return table
