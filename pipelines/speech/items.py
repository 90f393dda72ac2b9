"""The recordings of --input as items of a prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.files import distinct_names, storable
from ...data.formats.audio import AUDIO_SUFFIXES, audio_facts
from ...data.speech.manifests import Utterance
from ...data.speech.recordings import list_speech
from .options import ONE_RECORDING, SpeechPredictOptions
from .prediction import SpeechItem


def list_recordings(
    source: str, known_text: bool, columns: Sequence[str] = (), *, texts: bool = True
) -> list[Utterance]:
    """The recordings of --input. Raises `InputError` if --known-text is given but the input has no
    text.

    texts: whether files of text beside the recordings are read.
    """
    utterances = list_speech(source, columns, texts=texts)
    if known_text and not any(u.text is not None or u.problem for u in utterances):
        raise fail(source, "brings no text; leave out --known-text to have it transcribed")
    return utterances


def list_items(options: SpeechPredictOptions) -> list[SpeechItem]:
    """The items of --input, each with a stem of its own.

    Raises `InputError` where --output can hold one recording only, and there are several.
    """
    known = options.known_text
    utterances = list_recordings(options.input, known, options.columns, texts=known)
    _note_repeated(utterances)
    stems = distinct_names([utterance.name for utterance in utterances], AUDIO_SUFFIXES, "")
    items: list[SpeechItem] = []
    for utterance, stem in zip(utterances, stems, strict=True):
        item = SpeechItem(
            file=utterance.file,
            id=storable(utterance.name),
            start=utterance.start,
            end=utterance.end,
            text=utterance.text if known else None,
            stem=stem,
        )
        if known and utterance.problem:
            item["problem"] = utterance.problem
        items += _channels(item) if options.channels == "each" else [item]
    refuse_several(options.output, len(items))
    return items


def refuse_several(output: str, count: int) -> None:
    """Raise `InputError` where a file of subtitles or a TextGrid would hold several recordings."""
    ending = PurePosixPath(output).suffix
    if count > 1 and ending.lower() in ONE_RECORDING:
        raise InputError(
            f"--output {output}: a {ending} file holds one recording, and there are {count}; take "
            f".parquet (or .csv, .ctm, .txt) and --formats {ending[1:]}, which writes a file for "
            "each"
        )


def _channels(item: SpeechItem) -> list[SpeechItem]:
    """An item for each channel of a recording; the item itself where it has one, or is broken."""
    try:
        count = audio_facts(item["file"]).channels
    except InputError:  # its row will say so
        return [item]
    if count == 1:
        return [item]
    name = item.get("id", "")
    note("assumed", "recordings of several channels, each transcribed by itself", [name])
    return [
        SpeechItem(
            **{
                **item,
                "id": f"{name} channel {channel}",
                "stem": f"{item['stem']}-channel-{channel}",
                "channel": channel,
            }
        )
        for channel in range(1, count + 1)
    ]


def _note_repeated(utterances: Sequence[Utterance]) -> None:
    count = Counter((utterance.file, utterance.stretch) for utterance in utterances)
    repeated = [file for (file, _), times in count.items() if times > 1]
    if repeated:
        note("items", "recordings that are listed more than once", repeated)
