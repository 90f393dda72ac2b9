"""Pretrained encoders of text by name: fetched on first use, with their tokenizers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, nearest, reason, shown
from ...base.extras import require
from ...data.catalogue import OFFLINE, Downloader, cache_folder, find_dataset, get_dataset
from ...data.texts.tokens import SubwordTokenizer, Tokenizer, batch_of, unigram_tokenizer, windows
from ...models.text.encoder import TextEncoder, mean_vector
from ...models.text.pretrained import READERS, Pretrained, read_pretrained
from ..engine.command_line.terminal import say

TOKENIZER_CAP = 1 << 28  # bytes
PART = 64  # texts that are encoded at once


@dataclass(frozen=True)
class OpenedEncoder:
    """A pretrained encoder, in evaluation mode, with its tokenizer.

    name: as it was asked for; width: of a state; most_tokens: of a text, special ones included,
    None for any number; prefix: what the tokenizer puts before each text.
    """

    name: str
    encoder: TextEncoder
    tokenizer: Tokenizer
    width: int
    most_tokens: int | None
    prefix: str


def open_encoder(
    name: str,
    *,
    option: str = "--encoder",
    folder: str | Path | None = None,
    downloader: Downloader | None = None,
) -> OpenedEncoder:
    """The encoder of a name, or of a folder with a BERT as Hugging Face stores it.

    option: that named it, for messages; folder: of downloads, by default `cache_folder()`;
    downloader: stands for the network in tests.

    Raises `InputError`, one line, for a name that is nothing, a package that is missing, weights
    that cannot be fetched, and files that are damaged or of another model.
    """
    require("text", ("tokenizers",), f"{option} {name}")
    if name in READERS:
        home = encoder_folder(name, folder=folder, downloader=downloader)
        note("read", f"weights of {name} ({find_dataset(name).licence})")
    elif Path(name).is_dir():
        home = Path(name)
        note("read", f"weights of {name}")
    else:
        raise InputError(
            f"{option} {shown(name)}: is no encoder and no folder{nearest(name, list(READERS))}"
        )
    try:
        pretrained = read_pretrained(name, home)
        tokenizer = _tokenizer(pretrained)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from None
    encoder = pretrained.encoder
    rows = encoder.options["vocabulary"]
    if isinstance(rows, int) and tokenizer.size > rows:
        raise InputError(
            f"{option} {name}: its tokenizer has {tokenizer.size} tokens, and its weights are of "
            f"{rows}; the files are of two models"
        )
    return OpenedEncoder(
        name, encoder, tokenizer, encoder.width, pretrained.most_tokens, pretrained.prefix
    )


def mean_vectors(
    opened: OpenedEncoder, texts: Sequence[str], most: int | None = None
) -> np.ndarray:
    """The mean state of the tokens of each text, of length 1, float32 (n, D); of a text that is
    longer than the encoder takes, or than `most` tokens, of its first ones.
    """
    rows = [np.zeros((0, opened.width), np.float32)]
    for start in range(0, len(texts), PART):
        states, mask = encoded_states(opened, texts[start : start + PART], most)
        rows.append(mean_vector(states, mask).float().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def encoded_states(
    opened: OpenedEncoder, texts: Sequence[str], most: int | None = None
) -> tuple[Tensor, Tensor]:
    """States (n, N, D) of the tokens of some texts, and which are there, bool (n, N); most: as of
    `mean_vectors`.
    """
    tokens = opened.tokenizer.encode(texts)
    limits = [limit for limit in (most, opened.most_tokens) if limit is not None]
    if limits:
        tokens = [next(windows(row, min(limits), 0, opened.tokenizer)).tokens for row in tokens]
    ids, mask = (torch.from_numpy(a) for a in batch_of(tokens, opened.tokenizer.padding))
    if not ids.shape[1]:
        return torch.zeros(len(texts), 0, opened.width), mask
    return opened.encoder(ids, mask), mask


def encoder_folder(
    name: str, *, folder: str | Path | None = None, downloader: Downloader | None = None
) -> Path:
    """The folder with the files of a published encoder, fetched on first use.

    Raises `InputError` where they cannot be fetched, with how to get them.
    """
    entry = find_dataset(name)
    home = Path(folder) if folder is not None else cache_folder()
    offline = bool(os.environ.get(OFFLINE)) and downloader is None
    if not offline and not (home / entry.file).is_file():
        say(f"{name}: fetching {entry.url}; licence: {entry.licence}")
    try:
        return get_dataset(entry, folder=folder, downloader=downloader)
    except InputError as error:
        raise InputError(
            f"{error}; or put {entry.file}, from another machine, into {home}"
        ) from None


def _tokenizer(pretrained: Pretrained) -> Tokenizer:
    """Raises ValueError for a vocabulary that is missing or none."""
    source, prefix = pretrained.vocabulary, pretrained.prefix
    if isinstance(source, Path):
        try:
            if source.stat().st_size > TOKENIZER_CAP:
                raise ValueError(f"{source}: is larger than {TOKENIZER_CAP >> 20} MiB")
            content = source.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(f"{source}: cannot be read ({reason(error)})") from None
        try:
            return SubwordTokenizer(content, prefix=prefix, special=pretrained.special)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    return unigram_tokenizer(
        source.pieces,
        source.scores,
        begin=source.begin,
        end=source.end,
        padding=source.padding,
        unknown=source.unknown,
        replacements=source.replacements,
        prefix=prefix,
    )
