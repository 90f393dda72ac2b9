"""Recordings examined one after another with a model, each stored as a JSON file, so that a killed
job continues where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import polars as pl

from ....base.account import opened
from ....base.errors import InputError, fail
from ....base.files import checksum, clear_below, distinct_names, place_below, write_json
from ....data.formats.audio import AUDIO_SUFFIXES, RATE
from ....data.speech.manifests import Utterance
from ...engine.accounts import publish
from ...engine.command_line import machine
from ...engine.command_line.terminal import Progressbar, say
from ...engine.experiments.jobs import claimed, fingerprint_of, is_done
from ...engine.inference.output import refuse_input_as_output
from ...engine.pipeline import Review
from ...engine.runs.loaded import load_run
from ...engine.runs.report import write_page
from ...engine.runs.run_directory import read_facts
from ..items import list_recordings
from ..options import SaliencyOptions
from ..pipeline import SpeechPipeline
from ..transcriber import Transcriber
from .agreement import Findings
from .saliency import SaliencyMaps, TranscribedRecording, saliency_of, transcribe_recording

INSIDE = "recordings"
FREE = ("run", "output", "input", "data", "columns", "accept", "accelerator")

Measure = Callable[[Transcriber, TranscribedRecording, SaliencyMaps, str], Findings]
"""(transcriber, recording, its maps, stem of its files) -> what its JSON file shall hold."""


@dataclass(frozen=True)
class ProbedRecording:
    """A recording and the findings on it, or the error that says why there are none."""

    utterance: Utterance
    stem: str
    findings: Findings | None
    error: str | None = None


@contextmanager
def probe_recordings(
    pipeline: SpeechPipeline,
    options: SaliencyOptions,
    source: str,
    measure: Measure,
    *,
    title: str,
    known_text: bool = False,
) -> Iterator[list[ProbedRecording]]:
    """Hold `options.output`, measure each recording of `source` that has no JSON file there yet,
    and yield all of them.

    A recording that cannot be read, is longer than the model's window, or has no words gets an
    error of its own. Raises `InputError` where none is left.
    """
    pipeline.task.check(options)
    refuse_input_as_output(options.output, [source])
    loaded = load_run(pipeline, options.run, options.accelerator)
    transcriber = Transcriber.of_run(loaded.domain_model, loaded.context(options))
    if not transcriber.model.decoder.has_attention_weights:
        raise InputError(f"{options.run}: its cross-attention has no weights to compare")
    weights = checksum(loaded.run.path / "model.safetensors")
    output = Path(options.output)
    with opened(options.accept) as account:
        utterances = list_recordings(source, known_text, options.columns)
        publish(account)
        with claimed(output, INSIDE) as home:
            clear_below(output)
            probe = _Probe(transcriber, options, weights, measure, known_text, home)
            recordings = _probed(probe, utterances, title)
            publish(account, output / "account.json", shown=False)
            if all(recording.findings is None for recording in recordings):
                raise fail(
                    source,
                    f"{len(recordings)} recordings, none of which can be used; the first: "
                    f"{recordings[0].error}",
                )
            yield recordings


def _probed(probe: _Probe, utterances: Sequence[Utterance], title: str) -> list[ProbedRecording]:
    """Every recording with its findings, or the error that says why there are none."""
    stems = distinct_names([utterance.name for utterance in utterances], AUDIO_SUFFIXES, "")
    recordings: list[ProbedRecording] = []
    with Progressbar(total=len(utterances), unit="recording", desc=title) as bar:
        for utterance, stem in zip(utterances, stems, strict=True):
            recordings.append(probe.do(utterance, stem))
            bar.update()
    return recordings


@dataclass(frozen=True)
class _Probe:
    """Measures recordings that were not measured before."""

    transcriber: Transcriber
    options: SaliencyOptions
    weights: str
    measure: Measure
    known_text: bool
    home: Path

    def do(self, utterance: Utterance, stem: str) -> ProbedRecording:
        path = place_below(self.home, f"{stem}.json")
        fingerprint = self._fingerprint(utterance)
        if is_done(path, fingerprint):
            return ProbedRecording(utterance, stem, cast(Findings, read_facts(path)))
        options = self.options
        try:
            recording = self._transcribe(utterance)
        except InputError as error:
            say(f"left out: {error}")
            return ProbedRecording(utterance, stem, None, str(error))
        with Progressbar(total=options.masks + options.input_masks, unit="mask", desc=stem) as bar:
            maps = saliency_of(self.transcriber, recording, options, bar.update)
            findings = self.measure(self.transcriber, recording, maps, stem)
        write_json(path, {"fingerprint": fingerprint, **findings})
        return ProbedRecording(utterance, stem, findings)

    def _fingerprint(self, utterance: Utterance) -> str:
        file = Path(utterance.file)
        # Without the folder, which may move, and the problem of a text that is not used.
        recording = asdict(replace(utterance, file=file.name))
        del recording["problem"]
        facts = {
            "weights": self.weights,
            "lag": self.transcriber.lag,
            "recording": json.dumps(recording),
            "size": file.stat().st_size if file.is_file() else None,
        }
        return fingerprint_of(self.options, facts, FREE)

    def _transcribe(self, utterance: Utterance) -> TranscribedRecording:
        """Raises `InputError` for a recording that cannot be measured."""
        if self.known_text and utterance.problem:
            raise InputError(utterance.problem)
        samples = utterance.samples()
        longest = self.transcriber.spec.longest_seconds
        if len(samples) / RATE > longest:
            cure = "cut it, or name stretches of it in a manifest"
            raise fail(utterance.file, f"is longer than {longest:g} s; {cure}")
        text = utterance.text if self.known_text else None
        try:
            return transcribe_recording(
                self.transcriber, utterance, samples, text=text, margin=self.options.margin
            )
        except InputError:
            raise
        except ValueError as error:
            raise fail(utterance.file, str(error)) from None


def write_findings(
    pipeline: SpeechPipeline,
    options: SaliencyOptions,
    source: str,
    recordings: Sequence[ProbedRecording],
    review: Review,
    figures: Path | None = None,
) -> None:
    """Write report.html into `options.output`, with what was left out; figures: as in
    `write_page`.
    """
    path = Path(options.output) / "report.html"
    tables = dict(review.tables)
    left_out = [(r.utterance.name, r.error) for r in recordings if r.findings is None]
    if left_out:
        tables["Left out"] = pl.DataFrame(left_out, schema=["item", "error"], orient="row")
    write_page(
        path,
        figures,
        pipeline,
        replace(review, tables=tables),
        data=source,
        run=Path(options.run).name,
        options=asdict(options),
        facts=machine.environment(pipeline.task.name, options.seed, options.accelerator, 1),
    )
    say(f"report {path}")


def count_failures(recordings: Sequence[ProbedRecording]) -> int:
    """How many recordings have no findings."""
    return sum(recording.findings is None for recording in recordings)
