"""New recordings to probabilities of classes.

Shapes: B recordings, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.account import note
from ...base.errors import InputError
from ...base.files import storable
from ...data.formats.audio import RATE
from ...data.speech.labelled import list_unlabelled
from ...data.speech.manifests import Utterance
from ..engine.pipeline import Context, Item, Schema
from .data import inputs_of, padded, reader_of
from .features import Clip, ClipReader, Moments, drawn_towards, moments_of, opened, standardised
from .options import RecordingsPredictOptions
from .spec import RecordingsSpec

MOST_COMPANIONS = 50  # recordings of a speaker whose moments are taken

PredictContext = Context[RecordingsPredictOptions, RecordingsSpec]
Stretch = tuple[str, float, float | None]
"""File, start and end in seconds."""


class RecordingItem(Item):
    """A recording, or a stretch of it.

    companions: recordings of the same speaker, itself among them, by which it is standardised.
    """

    start: float
    end: float | None
    speaker: str
    companions: NotRequired[list[list[str | float | None]]]


def list_items(options: RecordingsPredictOptions, spec: RecordingsSpec) -> list[RecordingItem]:
    """What --input holds. Raises `InputError` where there is nothing."""
    listed = list_unlabelled(
        options.input, options.columns, pattern=options.pattern or spec.pattern or None
    )
    items = [
        RecordingItem(file=u.file, id=storable(u.name), start=u.start, end=u.end, speaker=u.speaker)
        for u in listed
    ]
    if spec.prior is not None:
        _give_companions(items)
    return items


def _give_companions(items: Sequence[RecordingItem]) -> None:
    by_speaker: dict[str, list[RecordingItem]] = {}
    for item in items:
        if item["speaker"]:
            by_speaker.setdefault(item["speaker"], []).append(item)
    for of_speaker in by_speaker.values():
        step = -(-len(of_speaker) // MOST_COMPANIONS)
        chosen = of_speaker[::step]
        for item in of_speaker:
            item["companions"] = [[c["file"], c["start"], c["end"]] for c in chosen]
            item["further_files"] = sorted({c["file"] for c in chosen} - {item["file"]})
    if unknown := [item.get("id", "") for item in items if not item["speaker"]]:
        what = "recordings of no known speaker, standardised as the training part"
        note("assumed", what, unknown)


def schema(spec: RecordingsSpec) -> Schema:
    """prediction, p_CLASS, seconds, speaker, remarks."""
    return {
        "prediction": pl.String(),
        **{f"p_{name}": pl.Float32() for name in spec.classes},
        "seconds": pl.Float64(),
        "speaker": pl.String(),
        "remarks": pl.String(),
    }


class ItemReader:
    """Reads items as the model of a run sees them. Raises `InputError` for one that cannot be
    read.
    """

    def __init__(self, spec: RecordingsSpec) -> None:
        self.reader: ClipReader = reader_of(spec)
        self.prior = None if spec.prior is None else opened(spec.prior)
        self._moments: dict[tuple[Stretch, ...], Moments] = {}

    def __call__(self, item: RecordingItem) -> Clip:
        """The recording of an item, standardised by its speaker where the run is."""
        clip = self._read((item["file"], item["start"], item["end"]))
        if self.prior is None:
            return clip
        companions = tuple((str(c[0]), c[1], c[2]) for c in item.get("companions", ()))
        return standardised(clip, self._moments_of(companions, self.prior))  # pyright: ignore[reportArgumentType]

    def _read(self, stretch: Stretch) -> Clip:
        file, start, end = stretch
        return self.reader(Utterance(file, file, start, end))

    def _moments_of(self, companions: tuple[Stretch, ...], prior: Moments) -> Moments:
        if companions not in self._moments:
            clips = []
            for stretch in companions:
                try:
                    clips.append(self._read(stretch))
                except InputError:
                    continue  # its own row says so
            moments = prior
            if clips:
                of_speaker = moments_of(clips, is_fixed=self.reader.is_fixed)
                moments = drawn_towards(of_speaker, prior)
            self._moments[companions] = moments
        return self._moments[companions]


@torch.inference_mode()
def predict_items(
    model: nn.Module, items: Sequence[RecordingItem], context: PredictContext
) -> list[pl.DataFrame | ValueError]:
    """A row for each item, or the error that says why there is none."""
    reader = ItemReader(context.spec)
    answers: list[pl.DataFrame | ValueError] = [InputError("not read")] * len(items)
    waiting: list[tuple[int, Clip]] = []
    for place, item in enumerate(items):
        try:
            waiting.append((place, reader(item)))
        except InputError as error:
            answers[place] = error
        if waiting and (len(waiting) == context.options.batch_size or place == len(items) - 1):
            places, clips = zip(*waiting, strict=True)
            for k, row in zip(places, _rows(model, clips, context), strict=True):
                row["speaker"] = items[k]["speaker"] or None
                answers[k] = pl.DataFrame([row], schema=schema(context.spec))
            waiting.clear()
    return answers


def _rows(
    model: nn.Module, clips: Sequence[Clip], context: PredictContext
) -> list[dict[str, object]]:
    spec = context.spec
    inputs = [value.to(context.device) for value in inputs_of(padded(clips))]
    temperature = float(context.calibration["temperature"])
    probability = (model(*inputs).double() / temperature).softmax(1).cpu().numpy()
    rows: list[dict[str, object]] = []
    for values, clip in zip(probability, clips, strict=True):
        rows.append(
            {
                "prediction": spec.classes[int(np.argmax(values))],
                **{f"p_{name}": p for name, p in zip(spec.classes, values.tolist(), strict=True)},
                "seconds": round(clip.seconds * RATE) / RATE,
                "remarks": ", ".join(clip.remarks) or None,
            }
        )
    return rows
