"""Recordings with their text as data sets: the spec of a run, parts, tokens, padded batches.

Shapes: B recordings of a batch, F mel bands, T frames of 10 ms, I tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ...base.account import note, recount
from ...base.errors import InputError, fail
from ...data.formats.audio import RATE, AudioFacts, audio_facts, refuse_other_unit
from ...data.items import check_items
from ...data.speech.log_mel import FRAME_SECONDS, log_mel
from ...data.speech.manifests import Utterance
from ...data.speech.recordings import list_speech
from ...data.speech.tokens import TextTokens, read_tokens, train_tokens
from ...models.weights.whisper import WhisperSizes
from ..engine.spec import JsonValue, Spec
from ..engine.subsets import BoundedCache
from ..engine.training.order import Batch, count_steps, mix
from .options import SpeechOptions

STATE_SECONDS = 2 * FRAME_SECONDS  # of a state of the encoder
BATCHES_SORTED = 16  # batches whose recordings are sorted by length together
SOMETIMES = ("sizes", "tokens_per_second", "trained_seconds", "parts")  # written if they are known


@dataclass(frozen=True, kw_only=True)
class SpeechSpec(Spec):
    """What a run of speech to text knows of its model and tokens."""

    input: Mapping[str, str]
    """What it takes, for the card of the run."""
    vocabulary: int
    """Number of tokens."""
    whole_window: bool
    """Whether each recording is filled up with silence to the longest length, as for Whisper."""
    alignment_heads: Sequence[Sequence[int]]
    """[layer, head] that word times are read from; empty: all of the later half of the layers."""
    never: Sequence[int]
    """Tokens that are never written."""
    not_first: Sequence[int]
    """Tokens that no transcript begins with."""
    no_speech: int | None
    """The token that means that nobody speaks."""
    language: str | None
    """Language of the tokens, for weights that know several."""
    sizes: WhisperSizes | None = None
    """Sizes of adopted weights; None: those of the options."""
    audio_positions: int
    """Most states of a recording."""
    text_positions: int
    """Most tokens of a transcript."""
    features: int
    """Mel bands."""
    tokens_per_second: float | None = None
    """Rate of the fastest speaker of the training; None for Whisper."""
    trained_seconds: float | None = None
    """Length of the longest recording of the training; None for Whisper."""
    parts: Mapping[str, int] | None = None
    """Recordings of each part."""

    def to_json(self) -> dict[str, JsonValue]:
        """As `Spec`; what is only known of some runs is left out of the others."""
        values = super().to_json()
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in SOMETIMES
        }

    @property
    def longest_seconds(self) -> float:
        """Seconds that the encoder has positions for."""
        return STATE_SECONDS * self.audio_positions


def input_facts(audio_positions: int) -> dict[str, str]:
    """`SpeechSpec.input` of a model with so many positions."""
    window = f"{STATE_SECONDS * audio_positions:g} s"
    return {"sound": "16,000 samples a second, mono", "longest window": window}


def spec_from_scratch(
    options: SpeechOptions, texts: Sequence[str], seconds: Sequence[float]
) -> tuple[SpeechSpec, TextTokens]:
    """The spec of a new model and its tokens, which are made of the texts of the recordings.

    seconds: length of each recording.
    """
    tokens = train_tokens(texts, options.tokens, options.vocabulary)
    longest = STATE_SECONDS * options.audio_positions
    rates = [
        len(tokens.encode(text)) / max(0.1, length)
        for text, length in zip(texts, seconds, strict=True)
    ]
    spec = SpeechSpec(
        input=input_facts(options.audio_positions),
        vocabulary=len(tokens),
        whole_window=False,
        alignment_heads=[],
        never=[],
        not_first=[],
        no_speech=None,
        language=None,
        audio_positions=options.audio_positions,
        text_positions=options.text_positions,
        features=options.features,
        tokens_per_second=max(rates),
        trained_seconds=max((length for length in seconds if length <= longest), default=longest),
    )
    return spec, tokens


def tokens_of_run(spec: SpeechSpec) -> TextTokens:
    """The tokens that a run has stored."""
    assert spec.assets_folder is not None, "a run that was opened has a folder of assets"
    return read_tokens(spec.assets_folder / "tokenizer.json", spec.language)


def note_language(tokens: TextTokens, language: str | None) -> None:
    """Note that English is assumed where a model knows several languages and none was named."""
    if tokens.languages and language is None:
        note("assumed", "the language is en, of several that the weights know (--language)")


@dataclass
class Recordings:
    """Recordings with the tokens of their text, as a data set that makes its own batches.

    seconds: length of each. bands: F. most_frames: longest recording. fill_window: every recording
    is filled up to `most_frames`, and all frames count. Features are computed on first use.
    """

    utterances: Sequence[Utterance]
    tokens: TextTokens
    seconds: Sequence[float]
    bands: int
    most_frames: int
    fill_window: bool

    def __post_init__(self) -> None:
        self.ids = [
            [*self.tokens.prompt, *self.tokens.encode(utterance.text or ""), self.tokens.end]
            for utterance in self.utterances
        ]
        self._features = BoundedCache(self._read_features)

    @classmethod
    def of(
        cls,
        spec: SpeechSpec,
        tokens: TextTokens,
        utterances: Sequence[Utterance],
        seconds: Sequence[float],
        rows: Iterable[int],
    ) -> Self:
        """Some rows of a list of recordings."""
        chosen = list(rows)
        return cls(
            [utterances[row] for row in chosen],
            tokens,
            [seconds[row] for row in chosen],
            spec.features,
            2 * spec.audio_positions,
            spec.whole_window,
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def _read_features(self, index: int) -> Tensor:
        length = self.most_frames if self.fill_window else None
        samples = self.utterances[index].samples()
        return log_mel(samples, self.bands, length)[:, : self.most_frames]

    def padded_features(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Features (B, F, T) and their lengths (B,), None where all frames count."""
        features, frames = pad_features([self._features[index] for index in indices])
        return features, None if self.fill_window else frames

    def text_ids(self, index: int) -> list[int]:
        """Tokens of the text, without prompt and end."""
        return self.ids[index][len(self.tokens.prompt) : -1]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        features, frames = pad_features([self._features[index] for index in indices])
        tokens, sizes = pad_tokens([self.ids[index] for index in indices], self.tokens.end)
        batch = {
            "features": features,
            "frames": frames,
            "tokens": tokens,
            "sizes": sizes,
            "index": torch.tensor(list(indices)),
            "prompt": torch.full((len(indices),), len(self.tokens.prompt)),
        }
        return batch if self.fill_window else {**batch, "lengths": frames}

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """`__getitems__` has made the batch already."""
        return batch


class TrainingRecordings(Recordings):
    """Recordings in random batches of similar lengths: shuffled, sorted by length among a few
    batches, and these batches shuffled again.
    """

    def steps(self, batch_size: int) -> int:
        """Batches per epoch."""
        return count_steps(len(self), batch_size)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of an epoch."""
        generator = np.random.default_rng(mix(seed, epoch, 1))
        shuffled, seconds = generator.permutation(len(self)), np.array(self.seconds)
        size = BATCHES_SORTED * batch_size
        sections = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        rows = np.concatenate(
            [section[np.argsort(seconds[section], kind="stable")] for section in sections]
        )
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        return [batches[place] for place in generator.permutation(len(batches))]


def pad_features(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Features (F, T) of several lengths -> (B, F, T), 0 in the padding, and lengths (B,)."""
    lengths = [feature.shape[1] for feature in features]
    padded = features[0].new_zeros((len(features), features[0].shape[0], max(lengths)))
    for row, feature in enumerate(features):
        padded[row, :, : lengths[row]] = feature
    return padded, torch.tensor(lengths)


def pad_tokens(ids: Sequence[Sequence[int]], end: int) -> tuple[Tensor, Tensor]:
    """Tokens of several texts -> int64 (B, I), padded with `end`, and how many each has, (B,)."""
    longest = max(map(len, ids))
    rows = [[*text, *[end] * (longest - len(text))] for text in ids]
    return torch.tensor(rows, dtype=torch.int64), torch.tensor([len(text) for text in ids])


def list_with_text(data: str, columns: Sequence[str] = ()) -> list[Utterance]:
    """The recordings that have a transcript, each once. Raises `InputError` where none has, for a
    transcript that cannot be read, and for a recording that is listed twice.

    columns: of a manifest, as of the option --columns.
    """
    utterances = list_speech(data, columns)
    for utterance in utterances:
        if utterance.problem:
            raise InputError(utterance.problem)
    with_text = [utterance for utterance in utterances if utterance.text]
    if not with_text:
        raise fail(
            data,
            "no recording has a transcript (.txt, .lab or .TextGrid beside it, or `text` in a "
            "manifest)",
        )
    if len(with_text) < len(utterances):
        without = [utterance.name for utterance in utterances if not utterance.text]
        note("left out", "recordings without a transcript", without)
    rows = check_items(
        data,
        "recording",
        [f"{utterance.file} {utterance.stretch}".strip() for utterance in with_text],
        [utterance.text or "" for utterance in with_text],
        [utterance.part for utterance in with_text],
    )
    _recount(len(rows))
    return [with_text[row] for row in rows]


def _recount(used: int) -> None:
    """Have the account say how many recordings and texts are used."""
    recount("read", "recordings", used)
    recount("read", "texts of recordings", used)


def rows_that_fit(
    data: str,
    spec: SpeechSpec,
    tokens: TextTokens,
    utterances: Sequence[Utterance],
    seconds: Sequence[float],
) -> list[int]:
    """Rows of the recordings whose sound and text the model has positions for.

    Raises `InputError` where there are none.
    """
    most_seconds, most_tokens = spec.longest_seconds, spec.text_positions
    rows = [
        row
        for row, utterance in enumerate(utterances)
        if seconds[row] <= most_seconds
        and len(tokens.encode(utterance.text or "")) + len(tokens.prompt) + 1 <= most_tokens
    ]
    limits = f"longer than {most_seconds:g} s or {most_tokens} tokens"
    if not rows:
        cure = "cut them, or name stretches by start and end in a manifest"
        raise fail(data, f"every recording is {limits}; {cure}")
    if len(rows) < len(utterances):
        left_out = sorted(set(range(len(utterances))) - set(rows))
        note("left out", f"recordings {limits}", [utterances[row].name for row in left_out])
        _recount(len(rows))
    return rows


def seconds_of(utterances: Sequence[Utterance]) -> list[float]:
    """Length of each recording, or of the stretch of it. Raises `InputError` for a recording whose
    header cannot be read, and for a stretch that begins behind its end.
    """
    facts: dict[str, AudioFacts] = {}
    seconds: list[float] = []
    for utterance in utterances:
        file = utterance.file
        if file not in facts:
            facts[file] = audio_facts(file)
            _note_facts(file, facts[file])
        length = facts[file].seconds
        end = length if utterance.end is None else utterance.end
        refuse_other_unit(file, utterance.end, length)
        if utterance.start >= length:
            raise fail(file, f"is {length:.2f} s long; a stretch begins at {utterance.start:g} s")
        if end > length + STATE_SECONDS:
            note("values", "stretches that end behind their recording", [utterance.name])
        seconds.append(end - utterance.start)
    return seconds


def _note_facts(file: str, facts: AudioFacts) -> None:
    if facts.rate != RATE:
        note(
            "assumed", f"recordings at {facts.rate:,} samples a second, changed to {RATE:,}", [file]
        )
    if facts.channels > 1:
        note("assumed", "recordings of several channels, which are averaged", [file])
