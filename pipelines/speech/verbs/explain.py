"""The verb explain: maps of what a model used, a picture of each recording, and a plain sentence on
its word times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from torch import Tensor

from ....base.files import place_below, write_aside
from ....data.speech.recordings import Utterance
from ...engine.command_line.terminal import say
from ...engine.pipeline import AnyPipeline, ReportFigure, Review
from .. import figures
from ..agreement import summary
from ..options import ExplainOptions
from ..prediction import Hearer, write_npz
from ..probing import Done, failures, probed, write_findings
from ..saliency import Heard, Saliency, by_token
from ..word_times import chosen_heads

SHOWN = 20  # recordings with a picture on the page; all have one in figures/
WORD = pl.Struct(
    {
        "word": pl.String,
        "start": pl.Float64,
        "end": pl.Float64,
        "place": pl.Float64,
        "near": pl.Boolean,
    }
)
SCHEMA = {
    "file": pl.String,
    "item": pl.String,
    "status": pl.String,
    "error": pl.String,
    "text": pl.String,
    "sentence": pl.String,
    "words": pl.List(WORD),
    "correlation_states": pl.Float64,
    "correlation_spectrogram": pl.Float64,
    "reliability_states": pl.Float64,
    "reliability_spectrogram": pl.Float64,
}


@dataclass(frozen=True)
class Explained:
    """What was written. failed: recordings that gave nothing."""

    output: Path
    recordings: int
    failed: int

    def table(self) -> pl.DataFrame:
        """A row a recording."""
        return pl.read_parquet(self.output / "explanations.parquet")


def explain(pipeline: AnyPipeline, options: ExplainOptions) -> Explained:
    """Explain every recording of --input; writes explanations.parquet, report.html, maps/, figures/
    into --output.
    """
    output = Path(options.output)
    with probed(pipeline, options, options.input, partial(_write, output), "explain") as done:
        table = pl.DataFrame([_row(one) for one in done], schema=SCHEMA)
        write_aside(output / "explanations.parquet", table.write_parquet)
        for one in done[:SHOWN]:
            if one.found is not None:
                say(f"{one.utterance.name}: {one.found['sentence']}")
        _page(pipeline, options, output, done, table)
    return Explained(output, len(done), failures(done))


def _write(
    output: Path, heard: Hearer, one: Utterance, stem: str, own: Heard, saliency: Saliency
) -> dict[str, Any]:
    found = summary(own, saliency, chosen_heads(heard.model, heard.spec))
    found["said"] = [heard.tokens.decode([token]) for token in own.ids]
    arrays = {"tokens": np.array(found["said"])}
    maps = {
        "attention": own.attention,
        "states": saliency.states,
        "spectrogram": saliency.inputs,
        "gradient_states": saliency.gradient_states,
        "gradient_spectrogram": saliency.gradient_inputs,
    }
    arrays |= {name: drawn.numpy() for name, drawn in maps.items() if drawn is not None}
    write_npz(place_below(output / "maps", f"{stem}.npz"), arrays)
    picture = drawn_picture(one, stem, own, saliency, found)
    place = place_below(output / "figures", f"{stem}.png")
    write_aside(
        place, lambda path: picture.figure.savefig(path, format="png", dpi=110, bbox_inches="tight")
    )
    return found


def drawn_picture(
    one: Utterance, stem: str, own: Heard, saliency: Saliency, found: dict[str, Any]
) -> ReportFigure:
    """Spectrogram with words, then attention and saliency of every token, each row normalised."""
    titles = {"states": "saliency of the encoder's states",
              "spectrogram": "saliency of the spectrogram, largest of bands",
              "gradient of states": "gradient x states",
              "gradient of spectrogram": "gradient x spectrogram, largest of bands"}  # fmt: skip
    maps = saliency.on_states()
    others = {title: _shades(maps[name]) for name, title in titles.items() if name in maps}
    attention = _shades(own.attention.mean((0, 1)))
    return figures.heard(
        stem.replace("/", "-"),
        own.samples,
        own.words,
        one.words,
        attention,
        _caption(one, found),
        others,
        found["said"],
    )


def _shades(drawn: Tensor) -> np.ndarray:
    """A map with each token's row normalised, its few largest values cut."""
    return by_token(drawn).clamp(-1, 4).numpy()


def _row(one: Done) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    row |= {
        "file": one.utterance.file,
        "item": one.utterance.name,
        "status": "ok" if one.found else "error",
        "error": one.error,
    }
    if one.found is None:
        return row
    row |= {name: one.found[name] for name in ("text", "sentence", "words")}
    for name in ("states", "spectrogram"):
        if name in one.found["agreement"]:
            row[f"correlation_{name}"] = one.found["agreement"][name]["all heads"][0]
            row[f"reliability_{name}"] = one.found["reliability"][name]
    return row


def _page(
    pipeline: AnyPipeline,
    options: ExplainOptions,
    output: Path,
    done: Sequence[Done],
    table: pl.DataFrame,
) -> None:
    pictures = []
    for one in done:
        if one.found is not None and len(pictures) < SHOWN:
            pictures.append(_shown(output, one))
    good = table.filter(pl.col("status") == "ok")
    near = [word["near"] for one in done if one.found for word in one.found["words"]]
    parts = [
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
        f"{', '.join(parts) or 'not asked'} (1 would be all of it){placed}."
    )
    tables = {
        "Recordings": table.select(
            "item", "text", "correlation_states", "correlation_spectrogram", "sentence"
        )
    }
    write_findings(pipeline, options, options.input, done, Review({}, headline, pictures, tables))


def _shown(output: Path, one: Done) -> ReportFigure:
    """The picture that was written when the recording was done."""
    from matplotlib.image import imread

    assert one.found is not None
    pixels = imread(place_below(output / "figures", f"{one.stem}.png"))
    drawn = Figure(figsize=(pixels.shape[1] / 110, pixels.shape[0] / 110))
    drawn.figimage(pixels)
    return ReportFigure(one.stem.replace("/", "-"), _caption(one.utterance, one.found), drawn)


def _caption(one: Utterance, found: dict[str, Any]) -> str:
    return f"{one.name}: {found['text']} {found['sentence']}"
