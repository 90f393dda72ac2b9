"""Batch inference: recordings to text with word times, however long they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl
import torch

from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below, write_aside, write_text
from ...data.formats.audio import AUDIO_SUFFIXES, RATE
from ...data.speech.log_mel import log_mel
from ...data.speech.recordings import Utterance, list_speech
from ...data.speech.tokens import TextTokens, read_tokens
from ...data.speech.transcripts import Segment, Word, format_transcript
from ...data.speech.voice_activity import speech_windows
from ...models.speech.decoding import Transcript, transcribe
from ...models.speech.speech_to_text import Memory, SpeechToText
from ..engine.pipeline import Item
from .data import STATE_SECONDS, collated, limits_of, rules_of
from .word_times import Timed, chosen_heads, forced, states_of, word_times

WORD = pl.Struct(
    {"word": pl.String, "start": pl.Float64, "end": pl.Float64, "confidence": pl.Float64}
)


@dataclass(frozen=True)
class Hearer:
    """A model with all that turns sound into text: its tokens, the spec and calibration of its
    run.
    """

    model: SpeechToText
    tokens: TextTokens
    spec: dict[str, Any]
    lag: int
    device: torch.device

    @property
    def longest(self) -> float:
        """Seconds that the encoder has room for."""
        return STATE_SECONDS * int(self.spec["audio_positions"])

    @property
    def window(self) -> float:
        """Seconds of the pieces that longer recordings are cut into: none longer than what the
        model was trained on.
        """
        return min(self.longest, max(1.0, float(self.spec.get("trained_seconds", self.longest))))

    def features(self, pieces: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (B, F, T) of pieces of sound and their lengths, None where all are filled up, as
        Whisper's are.
        """
        frames = 2 * int(self.spec["audio_positions"]) if self.spec["whole_window"] else None
        found = collated([log_mel(one, int(self.spec["features"]), frames) for one in pieces])
        lengths = None if frames is not None else found["lengths"].to(self.device)
        return found["features"].to(self.device), lengths

    def encoded(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that is known; byte-level vocabularies of Whisper begin it with a
        space.
        """
        return tuple(
            self.tokens.encode(
                f" {text}" if len(self.tokens.prompt) > 1 or self.tokens.languages else text
            )
        )

    @torch.no_grad()
    def encode(self, pieces: Sequence[np.ndarray]) -> Memory:
        """What the decoder attends to."""
        return self.model.encode(*self.features(pieces))

    def transcripts(
        self, memory: Memory, seconds: Sequence[float], beams: int = 1
    ) -> list[Transcript]:
        """What is said in recordings of these lengths."""
        limits = limits_of(self.spec, seconds)
        return transcribe(self.model, memory, rules_of(self.spec, self.tokens, beams), limits)

    def times(
        self,
        memory: Memory,
        ids: Sequence[Sequence[int]],
        pieces: Sequence[np.ndarray],
        method: str = "pauses",
    ) -> Timed:
        """Words with their times. Raises InputError where the cross-attention has no weights."""
        try:
            return word_times(
                self.model,
                memory,
                self.tokens,
                ids,
                pieces,
                method=method,
                lag=self.lag,
                heads=chosen_heads(self.model, self.spec),
            )
        except ValueError as error:
            if "no attention weights" in str(error):
                raise InputError(
                    f"word times need a cross-attention with weights ({error})"
                ) from None
            raise


def hearer(
    model: Any, spec: dict[str, Any], calibration: dict[str, torch.Tensor], device: torch.device
) -> Hearer:
    """Of a run that was opened."""
    tokens = read_tokens(Path(spec["folder"]) / "tokenizer.json", spec["language"])
    return Hearer(getattr(model, "module", model), tokens, spec, int(calibration["lag"]), device)


def list_inputs(options: Any) -> list[Item]:
    """What --input holds; stem: of the files that are written for it."""
    given = listed(options.input, options.known_text)
    return [
        {
            "file": one.file,
            "id": one.name,
            "start": one.start,
            "end": one.end,
            "text": one.text if options.known_text else None,
            "stem": stem,
        }
        for one, stem in zip(given, distinct_names([one.name for one in given], AUDIO_SUFFIXES, ""))
    ]


def listed(given: str, known_text: bool) -> list[Utterance]:
    """The recordings of --input. Raises InputError where --known-text is asked of what brings
    none.
    """
    found = list_speech(given)
    if known_text and not any(one.text for one in found):
        raise fail(given, "brings no text; leave out --known-text to have it transcribed")
    return found


def schema(options: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """text; seconds: length of the recording; words: list of word, start, end (seconds) and
    confidence; log_probability: mean of a token; no_speech: largest probability of a window that
    nobody speaks."""
    return {
        "text": pl.String,
        "seconds": pl.Float64,
        "words": pl.List(WORD),
        "log_probability": pl.Float64,
        "no_speech": pl.Float64,
    }


def predict_items(
    model: Any,
    items: Sequence[Item],
    calibration: dict[str, torch.Tensor],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> list[pl.DataFrame | ValueError]:
    """A row for each recording, and the files that were asked for."""
    heard = hearer(model, spec, calibration, device)
    rows: list[pl.DataFrame | ValueError] = []
    pieces: list[Piece] = []
    lengths: dict[int, float] = {}
    for place, item in enumerate(items):
        rows.append(InputError("not read"))
        try:
            one = Utterance(item["id"], item["file"], item["start"], item["end"])
            samples = one.samples()
        except InputError as error:
            rows[place] = error
            continue
        lengths[place] = len(samples) / RATE
        if item["text"] is not None:
            if lengths[place] > heard.longest:
                rows[place] = fail(
                    item["file"],
                    f"is longer than {heard.longest:g} s, in which known text is aligned",
                )
                lengths.pop(place)
            else:
                pieces.append((place, 0.0, samples))
            continue
        for start, stop in speech_windows(samples, heard.window):
            pieces.append((place, start, samples[round(start * RATE) : round(stop * RATE)]))
    found: dict[int, list[tuple[Segment, np.ndarray | None]]] = {place: [] for place in lengths}
    # Alike lengths together: less padding. Which pieces share a batch changes nothing but the time.
    order = sorted(range(len(pieces)), key=lambda k: len(pieces[k][2]))
    for start in range(0, len(order), options.batch_size):
        batch = [pieces[k] for k in order[start : start + options.batch_size]]
        for (place, *_), segment in zip(batch, _heard(heard, batch, items, options)):
            if isinstance(segment, ValueError):
                rows[place] = segment
                found.pop(place, None)
            elif place in found:
                found[place].append(segment)
    for place, seconds in lengths.items():
        if place in found:
            own = sorted(found[place], key=lambda pair: pair[0].start)
            segments = [segment for segment, _ in own]
            rows[place] = _row(seconds, segments, options, spec)
            _write(items[place], seconds, segments, [drawn for _, drawn in own], options)
    return rows


Piece = tuple[int, float, np.ndarray]  # place of its item, seconds before it, samples


def _heard(
    heard: Hearer, batch: Sequence[Piece], items: Sequence[Item], options: Any
) -> list[tuple[Segment, np.ndarray | None] | ValueError]:
    """A segment for each piece, with its maps where they are asked for."""
    sound = [samples for _, _, samples in batch]
    memory = heard.encode(sound)
    known = [items[place]["text"] for place, *_ in batch]
    quiet = [0.0] * len(batch)
    wrong: dict[int, ValueError] = {}
    if any(text is not None for text in known):
        ids = [heard.encoded(text or "") for text in known]
        room = len(heard.model.decoder.positions) - len(heard.tokens.prompt) - 1
        for k, one in enumerate(ids):
            if len(one) > room:
                wrong[k] = fail(
                    items[batch[k][0]]["file"], f"its text has {len(one)} tokens; {room} at most"
                )
                ids[k] = one[:room]
    else:
        said = heard.transcripts(memory, [len(samples) / RATE for samples in sound], options.beams)
        ids, quiet = [one.tokens for one in said], [one.no_speech for one in said]
    words, scores = heard.times(memory, ids, sound, options.times)
    _, maps, sizes = (
        forced(heard.model, memory, heard.tokens, ids, "layers") if options.maps else (None,) * 3
    )
    found: list[tuple[Segment, np.ndarray | None] | ValueError] = []
    for k, (_, start, samples) in enumerate(batch):
        if k in wrong:
            found.append(wrong[k])
            continue
        end = start + len(samples) / RATE
        own = tuple(Word(w.text, w.start + start, w.end + start, w.confidence) for w in words[k])
        drawn = None
        if maps is not None and sizes is not None:
            drawn = maps[k, :, : int(sizes[k]), : states_of(samples)].numpy()
        found.append(
            (Segment(start, end, heard.tokens.decode(ids[k]), own, scores[k], quiet[k]), drawn)
        )
    return found


def _row(
    seconds: float, segments: Sequence[Segment], options: Any, spec: dict[str, Any]
) -> pl.DataFrame:
    words = [
        {
            "word": w.text,
            "start": round(w.start, 4),
            "end": round(w.end, 4),
            "confidence": None if w.confidence is None else round(w.confidence, 4),
        }
        for segment in segments
        for w in segment.words
    ]
    scores = [
        segment.log_probability for segment in segments if segment.log_probability is not None
    ]
    silent = [segment.no_speech for segment in segments if segment.no_speech is not None]
    row = {
        "text": " ".join(segment.text for segment in segments if segment.text),
        "seconds": seconds,
        "words": words,
        "log_probability": round(float(np.mean(scores)), 4) if scores else None,
        "no_speech": round(max(silent), 4) if silent else None,
    }
    return pl.DataFrame([row], schema=schema(options, spec))


def _write(
    item: Item, seconds: float, segments: Sequence[Segment], maps: Sequence[Any], options: Any
) -> None:
    for kind in options.formats:
        path = place_below(Path(f"{options.output}.texts"), f"{item['stem']}.{kind}")
        write_text(path, format_transcript(kind, PurePosixPath(item["id"]).name, seconds, segments))
    if options.maps:
        path = place_below(Path(f"{options.output}.maps"), f"{item['stem']}.npz")
        given = {f"maps_{k}": drawn for k, drawn in enumerate(maps)}
        given |= {"starts": np.array([segment.start for segment in segments])}
        write_npz(path, given)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by name, written aside and renamed."""

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_aside(path, save)
