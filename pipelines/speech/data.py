"""Utterances as data sets: which part they belong to, features and tokens, batches of alike
lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import fail
from ...data.formats.audio import audio_facts
from ...data.speech.log_mel import FRAME_SECONDS, log_mel
from ...data.speech.recordings import Utterance, list_speech
from ...data.speech.tokens import TextTokens, read_tokens, train_tokens
from ..engine.command_line.terminal import say
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from ..engine.training.order import count_steps, mix

STATE_SECONDS = 2 * FRAME_SECONDS  # of a state of the encoder
HELD_BYTES = 2 << 30  # features kept in memory; others are made again each time
ALIKE = 16  # batches whose recordings are sorted by length


@dataclass
class Corpus:
    """Utterances that are short enough, with the tokens of their text; features are made when they
    are asked for.
    """

    utterances: list[Utterance]
    tokens: TextTokens
    bands: int
    most_frames: int
    whole: bool  # every recording is filled up to most_frames, as Whisper was trained
    seconds: list[float]
    held: dict[int, Tensor] = field(default_factory=dict)
    bytes_held: int = 0

    def __post_init__(self) -> None:
        ids = [self.tokens.encode(one.text or "") for one in self.utterances]
        self.ids = [[*self.tokens.prompt, *one, self.tokens.end] for one in ids]

    def __len__(self) -> int:
        return len(self.utterances)

    def features(self, index: int) -> Tensor:
        """float32 (F, T)."""
        found = self.held.get(index)
        if found is None:
            found = log_mel(
                self.utterances[index].samples(),
                self.bands,
                self.most_frames if self.whole else None,
            )
            found = found[:, : self.most_frames]
            size = found.numel() * 4
            if self.bytes_held + size <= HELD_BYTES:
                self.held[index], self.bytes_held = found, self.bytes_held + size
        return found

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        found = {
            **collated([self.features(k) for k in indices]),
            **_tokens([self.ids[k] for k in indices], self.tokens.end),
            "index": torch.tensor(list(indices)),
            "prompt": torch.full((len(indices),), len(self.tokens.prompt)),
        }
        found["frames"] = found["lengths"]
        if self.whole:  # all frames count, silence too
            found.pop("lengths")
        return found

    @staticmethod
    def collate(batch: Any) -> Any:
        """Batches come whole."""
        return batch


class Shuffled(Corpus):
    """Draws its own batches: shuffled, then sorted by length among a few batches, which are
    shuffled again.
    """

    def steps(self, batch_size: int) -> int:
        """Batches an epoch."""
        return count_steps(len(self), batch_size)

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """An epoch of batches of places."""
        generator = np.random.default_rng(mix(seed, epoch, 1))
        order, seconds = generator.permutation(len(self)), np.array(self.seconds)
        room = ALIKE * batch_size
        sorted_ = [
            part[np.argsort(seconds[part], kind="stable")]
            for part in (order[k : k + room] for k in range(0, len(order), room))
        ]
        flat = np.concatenate(sorted_)
        found = [flat[k : k + batch_size] for k in range(0, len(flat), batch_size)]
        return [found[k] for k in generator.permutation(len(found))]


def collated(features: Sequence[Tensor]) -> dict[str, Tensor]:
    """features (B, F, T), 0 where there is padding, and lengths (B,) in frames."""
    longest = max(one.shape[1] for one in features)
    found = features[0].new_zeros((len(features), features[0].shape[0], longest))
    for row, one in enumerate(features):
        found[row, :, : one.shape[1]] = one
    return {"features": found, "lengths": torch.tensor([one.shape[1] for one in features])}


def _tokens(ids: Sequence[Sequence[int]], end: int) -> dict[str, Tensor]:
    """tokens (B, I), padded with the end, and sizes (B,)."""
    longest = max(map(len, ids))
    rows = [[*one, *[end] * (longest - len(one))] for one in ids]
    return {
        "tokens": torch.tensor(rows, dtype=torch.int64),
        "sizes": torch.tensor([len(one) for one in ids]),
    }


def open_splits(options: Any, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Read the list of utterances, make or read tokens, split."""
    if options.data is None:
        raise ValueError("speech: needs data")
    given = list_speech(options.data)
    texted = [one for one in given if one.text]
    if not texted:
        raise fail(
            options.data,
            "no recording has a transcript (.txt, .lab or .TextGrid beside it, or `text` in a "
            "manifest)",
        )
    if len(texted) < len(given):
        say(
            f"{len(given) - len(texted)} of {len(given)} recordings have no transcript and are left out"
        )
    if spec is None:
        spec, tokens = new_spec(options, texted)
    else:
        tokens = read_tokens(Path(spec["folder"]) / "tokenizer.json", spec["language"])
    seconds = [_seconds(one) for one in texted]
    frames = 2 * int(spec["audio_positions"])
    fits = [k for k, one in enumerate(seconds) if one <= frames * FRAME_SECONDS]
    room = int(spec["text_positions"])
    fits = [
        k for k in fits if len(tokens.encode(texted[k].text or "")) + len(tokens.prompt) + 1 <= room
    ]
    if len(fits) < len(texted):
        say(
            f"{len(texted) - len(fits)} of {len(texted)} recordings are longer than {frames * FRAME_SECONDS:g} s or "
            f"{room} tokens and are left out"
        )
    if not fits:
        raise fail(
            options.data,
            f"every recording is longer than {frames * FRAME_SECONDS:g} s or {room} tokens; cut "
            "them, or name stretches by start and end in a manifest",
        )

    def part(rows: Sequence[int], kind: type[Corpus]) -> Corpus:
        return kind(
            [texted[k] for k in rows],
            tokens,
            int(spec["features"]),
            frames,
            bool(spec["whole_window"]),
            [seconds[k] for k in rows],
        )

    if whole:
        own = [k for k in fits if texted[k].part == "test"] or fits
        every = part(own, Corpus)
        return Splits(every, every, every, DictSpec(spec))
    train, validation, test = split(options, [texted[k] for k in fits])
    rows = np.array(fits)
    parts = (
        part(rows[train].tolist(), Shuffled),
        part(rows[validation].tolist(), Corpus),
        part(rows[test].tolist(), Corpus),
    )
    text = tokens.to_json()
    spec.setdefault(
        "parts", {"train": len(train), "validation": len(validation), "test": len(test)}
    )
    return Splits(
        *parts,
        DictSpec(spec),
        assets={"tokenizer.json": lambda path: path.write_text(text, encoding="utf-8")},
    )


def _seconds(one: Utterance) -> float:
    """Length of an utterance."""
    return (one.end if one.end is not None else audio_facts(one.file).seconds) - one.start


def new_spec(options: Any, texted: Sequence[Utterance]) -> tuple[dict[str, Any], TextTokens]:
    """What a new run knows of its tokens and sizes."""
    if options.weights is not None:
        from .verbs.adopt import adopted

        spec, tokens, _ = adopted(options)
        return spec, tokens
    tokens = train_tokens((one.text or "" for one in texted), options.tokens, options.vocabulary)
    rates = [len(tokens.encode(one.text or "")) / max(0.1, _seconds(one)) for one in texted]
    room = STATE_SECONDS * options.audio_positions
    known = [one for one in map(_seconds, texted) if one <= room]
    spec = {
        "input": {
            "sound": "16,000 samples a second, mono",
            "longest window": f"{0.02 * options.audio_positions:g} s",
        },
        "vocabulary": len(tokens),
        "whole_window": False,
        "alignment_heads": [],
        "never": [],
        "not_first": [],
        "no_speech": None,
        "language": None,
        "audio_positions": options.audio_positions,
        "text_positions": options.text_positions,
        "features": options.features,
        "tokens_per_second": max(rates),
        "trained_seconds": max(known, default=room),
    }
    return spec, tokens


def split(
    options: Any, utterances: Sequence[Utterance]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the three parts: the data's own, else shares of the speakers, or of the recordings
    where no speaker (or one) is named."""
    parts = np.array([one.part for one in utterances])
    train, validation, test = (
        np.flatnonzero(parts == name) for name in ("train", "validation", "test")
    )
    if not len(train):
        train = np.flatnonzero(parts == "")
    elif (parts == "").any():
        raise fail(
            options.data, "some recordings name a part and some do not; name one for each, or none"
        )
    speakers = np.array([one.speaker or f"#{k}" for k, one in enumerate(utterances)])
    if options.split_by == "recording" or len(set(speakers)) < 4:
        speakers = np.array([f"#{k}" for k in range(len(utterances))])
    if not len(test):
        test, train = _share(train, speakers, options.test_share, options.seed)
    if not len(validation):
        validation, train = _share(train, speakers, options.validation_share, options.seed + 1)
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if not len(part):
            raise fail(
                options.data,
                f"has no {name} part, and the shares leave none of {len(utterances)} recordings",
            )
    return train, validation, test


def _share(
    among: np.ndarray, groups: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(taken, left): whole groups, at least one, about a share of `among`."""
    if not share or len(among) < 2:
        return among[:0], among
    names = np.unique(groups[among])
    drawn = np.random.default_rng(mix(seed, 3)).permutation(names)
    count, taken = 0, []
    for name in drawn[:-1]:
        if taken and count >= share * len(among):
            break
        taken.append(name)
        count += int((groups[among] == name).sum())
    chosen = np.isin(groups[among], taken)
    return among[chosen], among[~chosen]


def rules_of(spec: dict[str, Any], tokens: TextTokens, beams: int = 1) -> Any:
    """How transcripts of a run are searched for; Whisper's are at most half as long as its
    positions.
    """
    from ...models.speech.decoding import Rules

    most = int(spec["text_positions"]) // 2 if spec["whole_window"] else None
    return Rules(
        tokens.prompt,
        tokens.end,
        most,
        tuple(spec["never"]),
        tuple(spec["not_first"]),
        spec["no_speech"],
        beams,
    )


def limits_of(spec: dict[str, Any], seconds: Sequence[float]) -> list[int] | None:
    """Most tokens of recordings of these lengths, half as many again as the fastest talker of the
    training said; None for Whisper, which has half of its positions."""
    rate = spec.get("tokens_per_second")
    return None if rate is None else [10 + round(1.5 * float(rate) * one) for one in seconds]


def example(splits: Splits) -> tuple[tuple[Any, ...], Any]:
    """Features and tokens of two recordings, all of one length, their number free, for export."""
    part = splits.test
    batch = part.__getitems__([0, len(part) - 1])
    length = int(batch["lengths"].min())
    free = torch.export.Dim("recordings", min=1)
    size = int(batch["sizes"].min())
    return (batch["features"][:, :, :length], batch["tokens"][:, :size]), ({0: free}, {0: free})
