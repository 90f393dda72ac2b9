"""Recordings one after another under a model, each kept as a JSON file, so that a killed job goes
on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ...base.errors import InputError, fail
from ...base.files import checksum, clear_below, distinct_names, place_below, write_json
from ...data.formats.audio import AUDIO_SUFFIXES, RATE
from ...data.speech.recordings import Utterance
from ..engine.command_line import machine
from ..engine.command_line.terminal import Progressbar, say
from ..engine.experiments.jobs import claimed, fingerprint_of, is_done
from ..engine.pipeline import AnyPipeline, Review
from ..engine.runs.loaded import load_run
from ..engine.runs.report import write_page
from ..engine.runs.run_directory import read_facts
from .prediction import Hearer, hearer, listed
from .saliency import Heard, Saliency, explain, listen
from .scoring import has_maps

INSIDE = "recordings"
FREE = ("run", "output", "input", "data", "accelerator")


@dataclass(frozen=True)
class Done:
    """A recording and what was found, or the error that says why nothing was."""

    utterance: Utterance
    stem: str
    found: dict[str, Any] | None
    error: str | None = None


Work = Callable[[Hearer, Utterance, str, Heard, Saliency], dict[str, Any]]


@contextmanager
def probed(
    pipeline: AnyPipeline, options: Any, given: str, work: Work, title: str
) -> Iterator[list[Done]]:
    """Hold `options.output`, do what `work` (hearer, recording, stem, heard, saliency) gives for
    each recording of `given` that is not there yet, and yield all.

    A recording that cannot be read, is longer than the model's window, or has no words is an error
    of its own."""
    pipeline.task.check(options)
    recordings = listed(given, getattr(options, "known_text", False))
    loaded = load_run(pipeline, options.run, options.accelerator)
    heard = hearer(loaded.model, loaded.spec, loaded.calibration, loaded.device)
    if not has_maps(heard.model):
        raise InputError(f"{options.run}: its cross-attention has no weights to compare")
    weights = checksum(loaded.run.path / "model.safetensors")
    output = Path(options.output)
    with claimed(output, INSIDE):
        clear_below(output)
        done: list[Done] = []
        names = distinct_names([one.name for one in recordings], AUDIO_SUFFIXES, "")
        with Progressbar(total=len(recordings), unit="recording", desc=title) as bar:
            for one, stem in zip(recordings, names):
                done.append(_one(heard, one, stem, options, weights, work))
                bar.update()
        if all(one.found is None for one in done):
            raise fail(
                given,
                f"{len(done)} recordings, none of which can be used; the first: {done[0].error}",
            )
        yield done


def _one(heard: Hearer, one: Utterance, stem: str, options: Any, weights: str, work: Work) -> Done:
    path = place_below(Path(options.output) / INSIDE, f"{stem}.json")
    there = Path(one.file)
    named = replace(one, file=there.name)  # the folder may move
    facts = {
        "weights": weights,
        "lag": heard.lag,
        "recording": json.dumps(asdict(named)),
        "size": there.stat().st_size if there.is_file() else None,
    }
    fingerprint = fingerprint_of(options, facts, FREE)
    if is_done(path, fingerprint):
        return Done(one, stem, dict(read_facts(path)))
    try:
        samples = one.samples()
        if len(samples) / RATE > heard.longest:
            raise fail(
                one.file,
                f"is longer than {heard.longest:g} s; cut it, or name stretches of it in a manifest",
            )
        known = one.text if getattr(options, "known_text", False) else None
        try:
            own = listen(heard, samples, known=known, margin=options.margin)
        except ValueError as error:
            raise error if isinstance(error, InputError) else fail(one.file, str(error)) from None
    except InputError as error:
        say(f"left out: {error}")
        return Done(one, stem, None, str(error))
    with Progressbar(total=options.masks + options.input_masks, unit="mask", desc=stem) as bar:
        found = work(heard, one, stem, own, explain(heard, own, options, bar.update))
    write_json(path, {"fingerprint": fingerprint, **found})
    return Done(one, stem, found)


def write_findings(
    pipeline: AnyPipeline,
    options: Any,
    given: str,
    done: Sequence[Done],
    review: Review,
    figures: Path | None = None,
) -> None:
    """report.html in `options.output`, with what was left out; `figures`: as of `write_page`."""
    path = Path(options.output) / "report.html"
    tables = dict(review.tables)
    if bad := [(one.utterance.name, one.error) for one in done if one.found is None]:
        tables["Left out"] = pl.DataFrame(bad, schema=["item", "error"], orient="row")
    write_page(
        path,
        figures,
        pipeline,
        replace(review, tables=tables),
        data=given,
        run=Path(options.run).name,
        options=asdict(options),
        facts=machine.environment(pipeline.task.name, options.seed, options.accelerator, 1),
    )
    say(f"report {path}")


def failures(done: Sequence[Done]) -> int:
    """How many recordings gave nothing."""
    return sum(one.found is None for one in done)
