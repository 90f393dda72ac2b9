"""Batch inference: recordings of any length to text with word times.

Long recordings are cut at pauses, and pieces of all items share batches by their length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl

from ...base.errors import InputError, fail
from ...base.files import distinct_names, place_below, write_aside, write_text
from ...data.formats.audio import AUDIO_SUFFIXES, RATE, read_audio
from ...data.speech.recordings import Utterance, list_speech
from ...data.speech.transcripts import Segment, Word, format_transcript
from ...data.speech.voice_activity import speech_windows
from ..engine.pipeline import Item, Schema
from .options import SpeechPredictOptions
from .transcriber import Transcriber
from .word_times import decode_known, states_of

SCHEMA: Schema = {
    "text": pl.String,
    "seconds": pl.Float64,
    "words": pl.List(
        pl.Struct(
            {"word": pl.String, "start": pl.Float64, "end": pl.Float64, "confidence": pl.Float64}
        )
    ),
    "log_probability": pl.Float64,
    "no_speech": pl.Float64,
}


class SpeechItem(Item):
    """A recording, or a stretch of it. stem: of the names of the files that are written for it."""

    start: float
    end: float | None
    text: str | None
    stem: str


class Piece(NamedTuple):
    """A stretch of a recording. item: the place of its item; start: in seconds."""

    item: int
    start: float
    samples: np.ndarray


class TranscribedPiece(NamedTuple):
    """A segment and its cross-attention, (layers, tokens, states), if that is asked for."""

    segment: Segment
    maps: np.ndarray | None


Answer: TypeAlias = pl.DataFrame | ValueError


def list_recordings(source: str, known_text: bool) -> list[Utterance]:
    """The recordings of --input. Raises `InputError` if --known-text is given but the input has no
    text.
    """
    utterances = list_speech(source)
    if known_text and not any(utterance.text for utterance in utterances):
        raise fail(source, "brings no text; leave out --known-text to have it transcribed")
    return utterances


def list_items(options: SpeechPredictOptions) -> list[SpeechItem]:
    """The items of --input, each with a stem of its own."""
    utterances = list_recordings(options.input, options.known_text)
    stems = distinct_names([utterance.name for utterance in utterances], AUDIO_SUFFIXES, "")
    return [
        SpeechItem(
            file=utterance.file,
            id=utterance.name,
            start=utterance.start,
            end=utterance.end,
            text=utterance.text if options.known_text else None,
            stem=stem,
        )
        for utterance, stem in zip(utterances, stems, strict=True)
    ]


def predict_recordings(
    transcriber: Transcriber, items: Sequence[SpeechItem], options: SpeechPredictOptions
) -> list[Answer]:
    """A row for each item, or why there is none, and the files that are asked for."""
    answers: list[Answer] = [InputError("not read")] * len(items)
    pieces: list[Piece] = []
    seconds: dict[int, float] = {}  # of the items that could be read
    for place, item in enumerate(items):
        try:
            samples = read_audio(item["file"], item["start"], item["end"])
            pieces += _cut(transcriber, place, item, samples)
            seconds[place] = len(samples) / RATE
        except InputError as error:
            answers[place] = error
    transcribed: dict[int, list[TranscribedPiece]] = {place: [] for place in seconds}
    # Pieces of similar lengths together: less padding. Which pieces share a batch changes nothing
    # but the time.
    pieces.sort(key=lambda piece: len(piece.samples))
    for start in range(0, len(pieces), options.batch_size):
        batch = pieces[start : start + options.batch_size]
        results = _transcribe(transcriber, batch, items, options)
        for piece, result in zip(batch, results, strict=True):
            if isinstance(result, ValueError):
                answers[piece.item] = result
                transcribed.pop(piece.item, None)
            elif piece.item in transcribed:
                transcribed[piece.item].append(result)
    for place, results in transcribed.items():
        results.sort(key=lambda result: result.segment.start)
        answers[place] = _row(seconds[place], [result.segment for result in results])
        _write_files(items[place], seconds[place], results, options)
    return answers


def _cut(
    transcriber: Transcriber, place: int, item: SpeechItem, samples: np.ndarray
) -> list[Piece]:
    """The pieces that speech is in, or one piece if the text is known.

    Raises `InputError` for a recording with known text that is longer than the model's window.
    """
    if item["text"] is None:
        return [
            Piece(place, start, samples[round(start * RATE) : round(stop * RATE)])
            for start, stop in speech_windows(samples, transcriber.window_seconds)
        ]
    longest = transcriber.spec.longest_seconds
    if len(samples) / RATE > longest:
        raise fail(item["file"], f"is longer than {longest:g} s, in which known text is aligned")
    return [Piece(place, 0.0, samples)]


def _transcribe(
    transcriber: Transcriber,
    batch: Sequence[Piece],
    items: Sequence[SpeechItem],
    options: SpeechPredictOptions,
) -> list[TranscribedPiece | ValueError]:
    """A segment for each piece, or why there is none."""
    sounds = [piece.samples for piece in batch]
    memory = transcriber.encode(*transcriber.features(sounds))
    texts = [items[piece.item]["text"] for piece in batch]
    errors: dict[int, ValueError] = {}
    if any(text is not None for text in texts):
        ids = [transcriber.text_ids(text or "") for text in texts]
        most = transcriber.most_text_tokens - 1
        for place, text_ids in enumerate(ids):
            if len(text_ids) > most:
                reason = f"its text has {len(text_ids)} tokens; {most} at most"
                errors[place] = fail(items[batch[place].item]["file"], reason)
                ids[place] = text_ids[:most]
        no_speech = [0.0] * len(batch)
    else:
        lengths = [len(samples) / RATE for samples in sounds]
        transcripts = transcriber.transcripts(memory, lengths, options.beams)
        ids = [transcript.tokens for transcript in transcripts]
        no_speech = [transcript.no_speech for transcript in transcripts]
    timed = transcriber.times(memory, ids, sounds, options.times)
    layers = None
    if options.maps:
        layers = decode_known(transcriber.model, memory, transcriber.tokens, ids, "layers")
    results: list[TranscribedPiece | ValueError] = []
    for place, piece in enumerate(batch):
        if place in errors:
            results.append(errors[place])
            continue
        segment = Segment(
            piece.start,
            piece.start + len(piece.samples) / RATE,
            transcriber.tokens.decode(ids[place]),
            tuple(_later(word, piece.start) for word in timed.words[place]),
            timed.scores[place],
            no_speech[place],
        )
        maps = None
        if layers is not None:
            tokens, states = int(layers.sizes[place]), states_of(piece.samples)
            maps = layers.maps[place, :, :tokens, :states].numpy()
        results.append(TranscribedPiece(segment, maps))
    return results


def _later(word: Word, seconds: float) -> Word:
    return Word(word.text, word.start + seconds, word.end + seconds, word.confidence)


def _row(seconds: float, segments: Sequence[Segment]) -> pl.DataFrame:
    """The row of a recording of this length; `SCHEMA` has its columns."""
    words = [
        {
            "word": word.text,
            "start": round(word.start, 4),
            "end": round(word.end, 4),
            "confidence": None if word.confidence is None else round(word.confidence, 4),
        }
        for segment in segments
        for word in segment.words
    ]
    scores = [s.log_probability for s in segments if s.log_probability is not None]
    no_speech = [s.no_speech for s in segments if s.no_speech is not None]
    row = {
        "text": " ".join(segment.text for segment in segments if segment.text),
        "seconds": seconds,
        "words": words,
        "log_probability": round(float(np.mean(scores)), 4) if scores else None,
        "no_speech": round(max(no_speech), 4) if no_speech else None,
    }
    return pl.DataFrame([row], schema=SCHEMA)


def _write_files(
    item: SpeechItem,
    seconds: float,
    results: Sequence[TranscribedPiece],
    options: SpeechPredictOptions,
) -> None:
    segments = [result.segment for result in results]
    for kind in options.formats:
        path = place_below(Path(f"{options.output}.texts"), f"{item['stem']}.{kind}")
        write_text(
            path, format_transcript(kind, PurePosixPath(item.get("id", "")).name, seconds, segments)
        )
    if options.maps:
        path = place_below(Path(f"{options.output}.maps"), f"{item['stem']}.npz")
        arrays = {
            f"maps_{number}": result.maps
            for number, result in enumerate(results)
            if result.maps is not None
        }
        write_npz(path, {**arrays, "starts": np.array([segment.start for segment in segments])})


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as a compressed .npz file, in one step."""

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_aside(path, save)
