"""The verb explain: maps of what a model used, a picture of each recording, and a plain sentence on
its word times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from torch import Tensor

from ....base.files import place_below, write_aside
from ....data.speech.manifests import Utterance
from ...engine.command_line.terminal import say
from ...engine.pipeline import ReportFigure, Review, Schema
from ...figures.style import DPI, save_png
from ..figures import recording_figure
from ..options import ExplainOptions
from ..pipeline import SpeechPipeline
from ..prediction import write_npz
from ..scoring import MEAN_OF_HEADS
from ..transcriber import Transcriber
from .agreement import Findings, find_agreement
from .probing import ProbedRecording, count_failures, probe_recordings, write_findings
from .saliency import SaliencyMaps, TranscribedRecording, by_token

MOST_SHOWN = 20  # recordings with a picture on the page; all have one in figures/
TITLES = {
    "states": "saliency of the encoder's states",
    "spectrogram": "saliency of the spectrogram, largest of bands",
    "gradient of states": "gradient x states",
    "gradient of spectrogram": "gradient x spectrogram, largest of bands",
}
SCHEMA: Schema = {
    "file": pl.String,
    "item": pl.String,
    "status": pl.String,
    "error": pl.String,
    "text": pl.String,
    "sentence": pl.String,
    "words": pl.List(
        pl.Struct(
            {
                "word": pl.String,
                "start": pl.Float64,
                "end": pl.Float64,
                "place": pl.Float64,
                "near": pl.Boolean,
            }
        )
    ),
    "correlation_states": pl.Float64,
    "correlation_spectrogram": pl.Float64,
    "reliability_states": pl.Float64,
    "reliability_spectrogram": pl.Float64,
}


@dataclass(frozen=True)
class Explained:
    """What was written. failed: recordings without an explanation."""

    output: Path
    recordings: int
    failed: int

    def table(self) -> pl.DataFrame:
        """One row per recording."""
        return pl.read_parquet(self.output / "explanations.parquet", glob=False)


def explain(pipeline: SpeechPipeline, options: ExplainOptions) -> Explained:
    """Explain every recording of --input; writes explanations.parquet, report.html, maps/ and
    figures/ into --output.
    """
    output, known_text = Path(options.output), options.known_text
    with probe_recordings(
        pipeline,
        options,
        options.input,
        partial(_explain_recording, output),
        title="explain",
        known_text=known_text,
    ) as recordings:
        table = pl.DataFrame([_row(recording) for recording in recordings], schema=SCHEMA)
        write_aside(output / "explanations.parquet", table.write_parquet)
        for recording in recordings[:MOST_SHOWN]:
            if recording.findings is not None:
                say(f"{recording.utterance.name}: {recording.findings['sentence']}")
        review = _review(output, recordings, table)
        write_findings(pipeline, options, options.input, recordings, review)
    return Explained(output, len(recordings), count_failures(recordings))


def _explain_recording(
    output: Path,
    transcriber: Transcriber,
    recording: TranscribedRecording,
    maps: SaliencyMaps,
    stem: str,
) -> Findings:
    """Write the maps and the picture of a recording."""
    findings = find_agreement(recording, maps, transcriber.alignment_heads)
    token_texts = [transcriber.tokens.decode([token]) for token in recording.ids]
    arrays = {
        "attention": recording.attention,
        "states": maps.states,
        "spectrogram": maps.spectrogram,
        "gradient_states": maps.gradient_states,
        "gradient_spectrogram": maps.gradient_spectrogram,
    }
    write_npz(
        place_below(output / "maps", f"{stem}.npz"),
        {
            "tokens": np.array(token_texts),
            **{name: values.numpy() for name, values in arrays.items() if values is not None},
        },
    )
    figure = explanation_figure(recording, stem, maps, findings, token_texts).figure
    save_png(figure, place_below(output / "figures", f"{stem}.png"))
    return {**findings, "said": token_texts}


def explanation_figure(
    recording: TranscribedRecording,
    stem: str,
    maps: SaliencyMaps,
    findings: Findings,
    token_texts: Sequence[str],
) -> ReportFigure:
    """Spectrogram with words, then attention and saliency of every token, each row normalised."""
    on_states = maps.on_states()
    shades = {MEAN_OF_HEADS: _shades(recording.attention.mean((0, 1)))}
    shades |= {
        title: _shades(on_states[name]) for name, title in TITLES.items() if name in on_states
    }
    return recording_figure(
        stem.replace("/", "-"),
        _caption(recording.utterance, findings),
        recording.samples,
        shades,
        words=recording.words,
        true_words=recording.utterance.words or (),
        tokens=token_texts,
    )


def _shades(values: Tensor) -> np.ndarray:
    """A map with each token's row normalised, and its few largest values cut."""
    return by_token(values).clamp(-1, 4).numpy()


def _row(recording: ProbedRecording) -> dict[str, object]:
    findings = recording.findings
    row: dict[str, object] = {
        "file": recording.utterance.file,
        "item": recording.utterance.name,
        "status": "ok" if findings else "error",
        "error": recording.error,
    }
    if findings is None:
        return row
    row |= {"text": findings["text"], "sentence": findings["sentence"], "words": findings["words"]}
    for name in ("states", "spectrogram"):
        if name in findings["agreement"]:
            row[f"correlation_{name}"] = findings["agreement"][name]["all heads"][0]
            row[f"reliability_{name}"] = findings["reliability"][name]
    return row


def _review(output: Path, recordings: Sequence[ProbedRecording], table: pl.DataFrame) -> Review:
    """What the page shows."""
    explained = [(r, r.findings) for r in recordings if r.findings is not None]
    figures = [
        _written_figure(output, recording, findings)
        for recording, findings in explained[:MOST_SHOWN]
    ]
    good = table.filter(pl.col("status") == "ok")
    near = [word["near"] for _, findings in explained for word in findings["words"]]
    correlations = [
        f"{name} {value:.2f}"
        for name in ("states", "spectrogram")
        if (value := good[f"correlation_{name}"].mean()) is not None
    ]
    placed = (
        f"; what mattered most lies at the word's time for {sum(near)} of {len(near)} words"
        if near
        else ""
    )
    headline = (
        f"{len(good)} recordings: correlation of the cross-attention with what the model used: "
        f"{', '.join(correlations) or 'not asked'} (1 would be all of it){placed}."
    )
    columns = ("item", "text", "correlation_states", "correlation_spectrogram", "sentence")
    return Review({}, headline, figures, {"Recordings": table.select(columns)})


def _written_figure(output: Path, recording: ProbedRecording, findings: Findings) -> ReportFigure:
    """The picture that was written when the recording was explained."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    pixels = imread(place_below(output / "figures", f"{recording.stem}.png"))
    figure = Figure(figsize=(pixels.shape[1] / DPI, pixels.shape[0] / DPI))
    figure.figimage(pixels)
    name = recording.stem.replace("/", "-")
    return ReportFigure(name, _caption(recording.utterance, findings), figure)


def _caption(utterance: Utterance, findings: Findings) -> str:
    return f"{utterance.name}: {findings['text']} {findings['sentence']}"
