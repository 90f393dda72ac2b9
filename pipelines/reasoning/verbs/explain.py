"""The verb explain: attention on the objects that were asked for, which are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import softmax

from ....base.account import opened
from ....base.errors import InputError, reason
from ....base.files import write_aside, write_json
from ....data.trials.words import answer_words, question_words
from ...engine.accounts import publish
from ...engine.command_line.terminal import say
from ...engine.inference.output import refuse_input_as_output
from ...engine.runs.loaded import Loaded, load_run
from ...engine.runs.paths import homes_of
from ...engine.runs.run_directory import ACCOUNT
from ...engine.training.jobs import with_data
from ...figures.style import NARROW, save_png, styled_figure
from ..data import ReasoningSpec, TrialPart, read_files
from ..figures import draw_scene, scene_title
from ..options import ExplainOptions, ReasoningOptions
from ..pipeline import ReasoningPipeline
from ..rungs import in_memory
from ..scoring import attention_of, logits_of, looks_of, network_of

TABLE, SUMMARY = "attention.csv", "summary.json"


@dataclass(frozen=True)
class ExplainedTrials:
    """What was written. looks: the share of attention on what was asked for, by who attends."""

    output: Path
    trials: int
    looks: dict[str, float]

    def table(self) -> pl.DataFrame:
        """A row for each trial and each who attends."""
        return pl.read_csv(self.output / TABLE)


def explain(pipeline: ReasoningPipeline, options: ExplainOptions) -> ExplainedTrials:
    """Measure the attention of the network of a run on each scene; writes attention.csv,
    summary.json, pictures and account.json into --output.
    """
    pipeline.task.check(options)
    output = Path(options.output)
    _refuse_output(output, options)
    loaded = load_run(pipeline, options.run, options.accelerator)
    network = network_of(loaded.domain_model)
    assert network is not None
    with opened((), [*homes_of(options), *homes_of(loaded.options)]) as account:
        part = _trials(pipeline, loaded, options)
        attention = attention_of(network, part, loaded.device)
        if not attention:
            raise InputError(
                f"{options.run}: --model {loaded.options.model} with --attention "
                f"{loaded.options.attention} has no attention weights to show"
            )
        logits = logits_of({"model": network}, part, loaded.device)["model"]
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{output}: cannot be written ({reason(error)})") from None
        looks = looks_of(part, attention)
        table = _table(part, attention, logits)
        write_aside(output / TABLE, table.write_csv)
        summary = {name: look.to_json() for name, look in looks.items()}
        write_json(output / SUMMARY, {"trials": len(part), "looks": summary})
        best = next(iter(looks), next(iter(attention)))
        _draw(output, part, attention[best], softmax(logits, axis=1), options.show)
        publish(account, output / ACCOUNT)
    if look := looks.get(best):
        say(
            f"{best}: {look.mass:.1%} of the attention on the scene is on what was asked for (even "
            f"attention {look.even:.1%}), {look.trials:,} trials"
        )
    say(f"{len(part):,} trials explained: {output / TABLE}")
    return ExplainedTrials(output, len(part), {name: look.mass for name, look in looks.items()})


def _trials(
    pipeline: ReasoningPipeline,
    loaded: Loaded[ReasoningOptions, ReasoningSpec],
    options: ExplainOptions,
) -> TrialPart:
    """The trials of --input, or the test part of the run's own data."""
    if options.input is not None:
        return TrialPart(read_files(options.input))
    of_run = with_data(pipeline, loaded.options, loaded.run)
    return in_memory(pipeline.open_data(of_run, loaded.spec).test)


def _table(
    part: TrialPart, attention: dict[str, list[np.ndarray]], logits: np.ndarray
) -> pl.DataFrame:
    """A row for each trial and each who attends; shares are null where nothing was asked for."""
    told = [answer_words(answer) for answer in logits.argmax(1).tolist()]
    rows, levels = [], part.levels
    for name, weights in attention.items():
        for row, (entry, outcome) in enumerate(zip(part.trials, part.outcomes, strict=True)):
            asked, shares = list(outcome.asked), weights[row]
            rows.append(
                {
                    "id": entry.id,
                    "level": levels[row],
                    "question": question_words(entry.trial.rule),
                    "answer": answer_words(entry.trial.answer),
                    "prediction": told[row],
                    "who_attends": name,
                    "objects": len(shares),
                    "asked_objects": len(asked),
                    "attention_on_asked": float(shares[asked].sum()) if asked else None,
                    "even_attention": len(asked) / len(shares) if asked else None,
                    "most_attended_is_asked": int(shares.argmax()) in asked if asked else None,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _draw(
    output: Path, part: TrialPart, attention: list[np.ndarray], chance: np.ndarray, count: int
) -> None:
    rows = np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int))
    for number, row in enumerate(rows.tolist(), 1):
        with styled_figure(NARROW, NARROW, grid=False) as figure:
            axes = figure.subplots()
            title = scene_title(part, row, chance[row])
            draw_scene(axes, part, row, attention[row], title)
        save_png(figure, output / f"trial-{number:02d}.png")


def _refuse_output(output: Path, options: ExplainOptions) -> None:
    """Raise `InputError` for a place where nothing may be written."""
    if options.input is not None:
        refuse_input_as_output(output, [options.input, options.run])
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder")
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if names and not options.overwrite:
        raise InputError(f"{output}: already exists; choose another --output, or --overwrite")
    if names and TABLE not in names:
        raise InputError(f"{output}: holds other things than explanations; choose another --output")
