"""Batch inference: recordings of any length to text with word times.

Long recordings are cut at pauses, and pieces of several items share batches by their length.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NotRequired, TypeAlias

import numpy as np
import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.files import place_below, write_aside, write_text
from ...data.formats.audio import RATE, read_sound
from ...data.speech.transcripts import Segment, Word, format_transcript
from ...data.speech.voice_activity import Activity
from ...data.speech.writing import joined
from ..engine.pipeline import Item, Schema
from .data import note_language
from .known_texts import FAST_RATE, FITTING, IMPOSSIBLE_RATE, RECOGNISED, distribute, letters_of
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
    "channel": pl.Int64,
    "remarks": pl.String,
}
GROUP_SECONDS = 1800  # of sound in memory together
LEAST_FACTOR = 2.0  # of amplification; a loud click leaves no room for more
REPEATS = 2.4  # Whisper's limit of the compression ratio of a transcript
# Whisper's rule for what is no speech, here for recordings that are nearly silent.
NO_SPEECH, UNLIKELY = 0.6, -1.0


class SpeechItem(Item):
    """A recording, or a stretch of it. stem: of the names of the files that are written for it."""

    start: float
    end: float | None
    text: str | None
    stem: str
    channel: NotRequired[int | None]
    """From 1; None: all channels, mixed."""
    problem: NotRequired[str]
    """Why its text cannot be read."""


class Piece(NamedTuple):
    """A stretch of a recording. place: of its recording in the group; start: in seconds; text: what
    is said in it, None where that is to be found out.
    """

    place: int
    start: float
    samples: np.ndarray
    text: str | None


class TranscribedPiece(NamedTuple):
    """A segment and its cross-attention, (layers, tokens, states), if that is asked for."""

    segment: Segment
    maps: np.ndarray | None


@dataclass
class _Recording:
    """An item whose sound was read."""

    item: SpeechItem
    seconds: float
    pieces: list[Piece]
    remarks: list[str]
    is_long: bool = False
    """Its known text is to be distributed over its pieces."""
    is_faint: bool = False
    """What was heard in it may be no speech."""
    results: list[TranscribedPiece] = field(default_factory=list)
    error: ValueError | None = None

    def segments(self) -> list[Segment]:
        return [result.segment for result in self.results]


Answer: TypeAlias = pl.DataFrame | ValueError


def predict_recordings(
    transcriber: Transcriber, items: Sequence[SpeechItem], options: SpeechPredictOptions
) -> list[Answer]:
    """A row for each item, or why there is none, and the files that are asked for."""
    note_language(transcriber.tokens, transcriber.spec.language)
    answers: list[Answer] = [InputError("not read")] * len(items)
    group: dict[int, _Recording] = {}
    for place, item in enumerate(items):
        try:
            group[place] = _read(transcriber, place, item, options)
        except InputError as error:
            answers[place] = error
        if sum(recording.seconds for recording in group.values()) >= GROUP_SECONDS:
            answers = _finished(transcriber, group, options, answers)
            group = {}
    return _finished(transcriber, group, options, answers)


def _finished(
    transcriber: Transcriber,
    group: Mapping[int, _Recording],
    options: SpeechPredictOptions,
    answers: Sequence[Answer],
) -> list[Answer]:
    """The answers, with those of a group of recordings, by their places."""
    pieces = [piece for recording in group.values() for piece in recording.pieces]
    _run(transcriber, group, [piece for piece in pieces if piece.text is None], options)
    aligned = [piece for piece in pieces if piece.text is not None]
    for place, recording in group.items():
        if recording.is_long and recording.error is None:
            aligned += _distributed(place, recording)
    _run(transcriber, group, aligned, options)
    finished = list(answers)
    for place, recording in group.items():
        finished[place] = recording.error or _answer(recording, options)
    return finished


def _answer(recording: _Recording, options: SpeechPredictOptions) -> Answer:
    """The row of a recording, once its files are written."""
    recording.results.sort(key=lambda result: result.segment.start)
    if recording.is_faint:
        recording.results = [r for r in recording.results if not _is_no_speech(r.segment)]
    _remark_on_text(recording)
    try:
        _write_files(recording, options)
    except InputError as error:
        return error
    return _row(recording)


def _read(
    transcriber: Transcriber, place: int, item: SpeechItem, options: SpeechPredictOptions
) -> _Recording:
    """Read an item and cut it into the pieces that speech is in, or one piece if its text is known
    and fits the model's window.

    Raises `InputError` for a recording, or a known text, that cannot be read, and for a text that
    cannot have been said in it.
    """
    if item.get("problem"):
        raise InputError(item.get("problem", ""))
    channel = item.get("channel")
    sound = read_sound(
        item["file"], item["start"], item["end"], None if channel is None else channel - 1
    )
    samples, text, remarks = sound.samples, item["text"], list(sound.remarks)
    seconds, activity = len(samples) / RATE, Activity.of(samples)
    gain = activity.gain
    if not gain:
        remarks.append(f"no speech was found in it (loudest sample {_decibels(samples)})")
        note("items", "recordings in which no speech was found", [_name(item)])
    if text is not None:
        remarks += _remarks_on_length(item, text, seconds)
        if seconds <= transcriber.spec.longest_seconds:
            return _Recording(item, seconds, [Piece(place, 0.0, samples, text)], remarks)
        if not gain:
            raise fail(item["file"], "no speech was found in it to align its text with")
    elif options.known_text:
        remarks.append("it came without a text and was transcribed")
        note("items", "recordings without a known text, which are transcribed", [_name(item)])
    factor = min(gain, 1 / _peak(samples)) if gain > 1 else 1.0
    if factor > LEAST_FACTOR:
        remarks.append(f"quiet (loudest sample {_decibels(samples)}), amplified")
        note("items", "quiet recordings, which are amplified", [_name(item)])
        samples *= np.float32(factor)
    pieces = [
        Piece(place, start, samples[round(start * RATE) : round(stop * RATE)], None)
        for start, stop in activity.windows(transcriber.window_seconds)
    ]
    is_faint = gain > 1 or activity.is_rare
    return _Recording(item, seconds, pieces, remarks, text is not None, is_faint)


def _name(item: SpeechItem) -> str:
    return item.get("id") or PurePosixPath(item["file"]).name


def _peak(samples: np.ndarray) -> float:
    """The largest magnitude; a long recording is not copied for it."""
    return float(max(samples.max(), -samples.min()))


def _decibels(samples: np.ndarray) -> str:
    peak = _peak(samples)
    return f"{20 * np.log10(peak):.0f} dB" if peak else "0"


def _remarks_on_length(item: SpeechItem, text: str, seconds: float) -> list[str]:
    """What is to be said of a text by its length. Raises `InputError` where nobody can say it in
    this time.
    """
    letters = letters_of(text)
    if letters > IMPOSSIBLE_RATE * seconds:
        problem = f"its text has {letters} letters, which nobody can say in {seconds:.2f} s"
        raise fail(item["file"], f"{problem}; is it the text of another recording?")
    if letters > FAST_RATE * seconds:
        return [f"its text hardly fits: {letters} letters in {seconds:.2f} s"]
    return []


def _run(
    transcriber: Transcriber,
    group: Mapping[int, _Recording],
    pieces: Sequence[Piece],
    options: SpeechPredictOptions,
) -> None:
    """Add the results of pieces, all with a known text or none, to their recordings."""
    # Pieces of similar lengths together: less padding. Which pieces share a batch changes nothing
    # but the time.
    ordered = sorted(pieces, key=lambda piece: len(piece.samples))
    for start in range(0, len(ordered), options.batch_size):
        batch = ordered[start : start + options.batch_size]
        results = _transcribe(transcriber, batch, group, options)
        for piece, result in zip(batch, results, strict=True):
            recording = group[piece.place]
            if isinstance(result, ValueError):
                recording.error = result
            else:
                recording.results.append(result)


def _distributed(place: int, recording: _Recording) -> list[Piece]:
    """The pieces of a long recording with their shares of its known text; what was heard in them is
    forgotten.
    """
    recording.results.sort(key=lambda result: result.segment.start)
    shares = distribute(recording.item["text"] or "", [s.text for s in recording.segments()])
    recording.results = []
    if shares.recognised < RECOGNISED:
        share = f"{100 * shares.recognised:.0f} % of its words were recognised"
        recording.remarks.append(f"its text hardly fits what is heard: {share}")
    pieces = sorted(recording.pieces, key=lambda piece: piece.start)
    return [
        Piece(place, piece.start, piece.samples, text)
        for piece, text in zip(pieces, shares.texts, strict=True)
        if text
    ]


def _transcribe(
    transcriber: Transcriber,
    batch: Sequence[Piece],
    group: Mapping[int, _Recording],
    options: SpeechPredictOptions,
) -> list[TranscribedPiece | ValueError]:
    """A segment for each piece, or why there is none."""
    sounds = [piece.samples for piece in batch]
    memory = transcriber.encode(*transcriber.features(sounds))
    errors: dict[int, ValueError] = {}
    if batch[0].text is not None:
        ids = [transcriber.text_ids(piece.text or "") for piece in batch]
        most = transcriber.most_text_tokens - 1
        for place, text_ids in enumerate(ids):
            if len(text_ids) > most:
                reason = f"its text has {len(text_ids)} tokens; {most} at most"
                errors[place] = fail(group[batch[place].place].item["file"], reason)
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


def _is_no_speech(segment: Segment) -> bool:
    unlikely = segment.log_probability is not None and segment.log_probability < UNLIKELY
    return unlikely and (segment.no_speech or 0.0) > NO_SPEECH


def _remark_on_text(recording: _Recording) -> None:
    """Remarks on a known text that hardly fits, and on a transcript that repeats itself."""
    segments = [segment for segment in recording.segments() if segment.text]
    if recording.item["text"] is not None:
        scores = [s.log_probability for s in segments if s.log_probability is not None]
        if scores and (mean := float(np.mean(scores))) < FITTING:
            recording.remarks.append(
                f"its text hardly fits what is heard: mean log-probability {mean:.1f}"
            )
        return
    for segment in segments:
        content = segment.text.encode()
        if (ratio := len(content) / len(zlib.compress(content))) > REPEATS:
            recording.remarks.append(
                f"the text from {segment.start:.1f} s to {segment.end:.1f} s repeats itself "
                f"(compression ratio {ratio:.1f}); listen to it"
            )


def joined_text(segments: Sequence[Segment]) -> str:
    """The text of all segments."""
    text = ""
    for segment in segments:
        text = joined(text, segment.text)
    return text


def _row(recording: _Recording) -> pl.DataFrame:
    """The row of a recording; `SCHEMA` has its columns."""
    segments = recording.segments()
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
        "text": joined_text(segments),
        "seconds": recording.seconds,
        "words": words,
        "log_probability": round(float(np.mean(scores)), 4) if scores else None,
        "no_speech": round(max(no_speech), 4) if no_speech else None,
        "channel": recording.item.get("channel"),
        "remarks": "; ".join(recording.remarks) or None,
    }
    return pl.DataFrame([row], schema=SCHEMA)


def _write_files(recording: _Recording, options: SpeechPredictOptions) -> None:
    item, segments = recording.item, recording.segments()
    for kind in options.formats:
        path = place_below(Path(f"{options.output}.texts"), f"{item['stem']}.{kind}")
        name = PurePosixPath(item.get("id", "")).name
        write_text(path, format_transcript(kind, name, recording.seconds, segments))
    if options.maps:
        path = place_below(Path(f"{options.output}.maps"), f"{item['stem']}.npz")
        arrays = {
            f"maps_{number}": result.maps
            for number, result in enumerate(recording.results)
            if result.maps is not None
        }
        write_npz(path, {**arrays, "starts": np.array([segment.start for segment in segments])})


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name as a compressed .npz file, in one step."""

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]

    write_aside(path, save)
