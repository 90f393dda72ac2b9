"""Recordings in training, validation and test parts: speakers, copies and stretches together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...base.account import note
from ...base.errors import fail
from ...data.columns import note_groups
from ...data.formats.audio import raw_blocks
from ...data.items import digest, join_copies
from ...data.speech.manifests import Utterance, groups_with_files, note_stretches
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Member
from ..engine.subsets import Subsets, Taken, own_or_shares, take_groups
from ..engine.training.order import mix
from .data import Recordings
from .options import SpeechOptions


def split_recordings(options: SpeechOptions, utterances: Sequence[Utterance]) -> Subsets:
    """The parts that the data names; what it lacks is a share of the training speakers, or of the
    recordings if fewer than four speakers are named.

    Raises `InputError` for an empty part, and where only some recordings name their part.
    """
    parts = [utterance.part for utterance in utterances]
    if "train" in parts and "" in parts:
        raise fail(
            options.data, "some recordings name a part and some do not; name one for each, or none"
        )
    speakers = {utterance.speaker or utterance.file for utterance in utterances}
    by_recording = options.split_by == "recording" or len(speakers) < 4
    named = ["" if by_recording else utterance.speaker for utterance in utterances]
    note_stretches(utterances, named)
    _note_speakers(options, [utterance.speaker for utterance in utterances], by_recording)
    groups = np.array(
        join_copies(
            options.data,
            "recording",
            [utterance.name for utterance in utterances],
            _digests(utterances),
            groups_with_files(utterances, named, "#"),
            [utterance.text or "" for utterance in utterances],
            parts,
        )
    )

    def take(rows: np.ndarray, share: float, part: str) -> Taken:
        seed = options.seed + (part == "validation")
        generator = np.random.default_rng(mix(seed, 3))
        return take_groups(rows, groups[rows], share, generator, count_rows=True)

    return own_or_shares(
        options.data,
        parts,
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="recordings",
    )


def _digests(utterances: Sequence[Utterance]) -> Iterable[str]:
    """What tells the sound of each recording from that of others; silence is a copy of nothing."""
    with Progressbar(total=len(utterances), unit="recording", desc="compare") as bar:
        for row, utterance in enumerate(utterances):
            blocks = list(raw_blocks(utterance.file, utterance.start, utterance.end))
            yield digest(*blocks) if any(map(np.any, blocks)) else f"silence {row}"
            bar.update()


def _note_speakers(options: SpeechOptions, speakers: Sequence[str], by_recording: bool) -> None:
    named = set(speakers) - {""}
    if not named:
        note_groups("speaker", "recordings", None, speakers)
    elif by_recording and options.split_by == "speaker":
        note("groups", "fewer than four speakers are named: each recording is its own group")
    elif by_recording:
        note("groups", "--split-by recording: each recording is its own group")
    else:
        note_groups("speaker", "recordings", "speaker", speakers)


def members_of(parts: Mapping[str, Recordings]) -> dict[str, list[Member]]:
    """The recordings, or stretches of them, of each part."""
    return {
        name: [Member(u.file, u.stretch) for u in part.utterances] for name, part in parts.items()
    }
