"""Reading GGUF files: what they say of a model, and its tensors as float32.

The format is that of ggml (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3: the letters
GGUF, a version, the number of tensors and of facts; the facts, each a name, a kind and a value; the
tensors, each a name, a shape, a kind of storage and a place; then their bytes. Nothing in a file is
run, and every count is compared with the bytes that are left before anything is read by it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...base.errors import one_line, reason, shown
from .gguf_blocks import KINDS, Kind

FILE_CAP = 1 << 36  # bytes
TEXT_CAP = 1 << 24  # bytes of one text
TENSORS_CAP = FACTS_CAP = 1 << 17
MAGIC, VERSIONS = b"GGUF", (2, 3)
_PART = 1 << 15  # blocks that are unpacked at once
_ALIGNMENT = "general.alignment"
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_FLAG, _TEXT, _LIST = 7, 8, 9
Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]


@dataclass(frozen=True)
class GgufTensor:
    """shape: as PyTorch says it, rows first; kind: of storage; start, size: of its bytes."""

    shape: tuple[int, ...]
    kind: Kind
    start: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """facts: what the file says of the model, by name; tensors: by name; content: its bytes."""

    path: Path
    facts: dict[str, Value]
    tensors: dict[str, GgufTensor]
    content: NDArray[np.uint8]

    def values(self, name: str) -> NDArray[np.float32]:
        """A tensor in its shape, float32. Raises ValueError for values that are not finite."""
        tensor = self.tensors[name]
        stored = self.content[tensor.start : tensor.start + tensor.size]
        blocks = stored.reshape(-1, tensor.kind.size)
        values = np.empty((len(blocks), tensor.kind.weights), np.float32)
        for start in range(0, len(blocks), _PART):  # the steps in between are as large as a part
            part = tensor.kind.unpack(np.asarray(blocks[start : start + _PART]))
            if not np.isfinite(part).all():
                raise ValueError(f"{self.path}: {name} holds values that are not finite")
            values[start : start + _PART] = part
        return values.reshape(tensor.shape)


def read_gguf(path: str | Path) -> GgufFile:
    """Facts and tensors of a file; the bytes of the tensors stay on the disk until they are read.

    Raises ValueError, one line, for a file that is missing, damaged, too large, of another version,
    or stored in a way that is not read here.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise ValueError("is no plain file")
        size = file.stat().st_size
        if size > FILE_CAP:
            raise ValueError(f"is larger than {FILE_CAP >> 30} GiB")
        content = np.memmap(file, np.uint8, "r") if size else np.zeros(0, np.uint8)
        fields = _Fields(content)
        version, tensors, facts = _beginning(fields)
        if version not in VERSIONS:
            raise ValueError(
                f"is of version {version}; {' and '.join(map(str, VERSIONS))} are read"
            )
        known = _facts(fields, facts)
        return GgufFile(file, known, _tensors(fields, tensors, known), content)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({reason(error)})") from None
    except (ValueError, struct.error) as error:
        raise ValueError(one_line(f"{path}: cannot be read as GGUF ({error})")) from None


class _Fields:
    """The bytes of a file, one field after another; what lies behind its end is an error."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self.content, self.place = content, 0

    def take(self, count: int) -> bytes:
        if count > len(self.content) - self.place:
            raise ValueError("ends too early; fetch it again")
        self.place += count
        return self.content[self.place - count : self.place].tobytes()

    def number(self, layout: str) -> int | float:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))[0]

    def count(self, layout: str = "Q") -> int:
        return int(self.number(layout))

    def text(self) -> str:
        size = self.count()
        if size > TEXT_CAP:
            raise ValueError(f"has a text of {size} bytes; {TEXT_CAP} at most")
        return self.take(size).decode("utf-8")

    def value(self, kind: int) -> Value:
        if kind != _LIST:
            return self._plain(kind)
        inner, count = self.count("I"), self.count()
        if inner in _NUMBERS:
            layout = np.dtype(_NUMBERS[inner]).newbyteorder("<")
            return np.frombuffer(self.take(count * layout.itemsize), layout).tolist()
        if count > len(self.content) - self.place:  # each takes a byte at least
            raise ValueError("ends too early; fetch it again")
        if inner == _FLAG:
            return [bool(byte) for byte in self.take(count)]
        if inner == _TEXT:
            return [self.text() for _ in range(count)]
        raise ValueError(f"has a list of kind {inner}")

    def _plain(self, kind: int) -> int | float | bool | str:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _FLAG:
            return bool(self.take(1)[0])
        if kind == _TEXT:
            return self.text()
        raise ValueError(f"has a value of kind {kind}")


def _beginning(fields: _Fields) -> tuple[int, int, int]:
    """Version, number of tensors, number of facts."""
    if fields.take(4) != MAGIC:
        raise ValueError(f"does not begin with {MAGIC.decode()}")
    version, tensors, facts = fields.count("I"), fields.count(), fields.count()
    if version >> 16:
        raise ValueError("is in the byte order of other machines")
    if tensors > TENSORS_CAP or facts > FACTS_CAP:
        raise ValueError(f"has {tensors} tensors and {facts} facts; {TENSORS_CAP} at most")
    return version, tensors, facts


def _facts(fields: _Fields, count: int) -> dict[str, Value]:
    facts: dict[str, Value] = {}
    for _ in range(count):
        name = fields.text()
        if name in facts:
            raise ValueError(f"says {shown(name)} twice")
        facts[name] = fields.value(fields.count("I"))
    return facts


def _tensors(fields: _Fields, count: int, facts: dict[str, Value]) -> dict[str, GgufTensor]:
    entries: list[tuple[str, tuple[int, ...], Kind, int]] = []
    for _ in range(count):
        name, dimensions = fields.text(), fields.count("I")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"{shown(name)} has {dimensions} dimensions")
        shape = tuple(fields.count() for _ in range(dimensions))[::-1]
        kind, place = fields.count("I"), fields.count()
        if kind not in KINDS:
            names = ", ".join(known.name for known in KINDS.values())
            raise ValueError(f"{shown(name)} is stored as kind {kind}; read are {names}")
        if shape[-1] % KINDS[kind].weights or 0 in shape:
            raise ValueError(f"{shown(name)} of {KINDS[kind].name} has the shape {shape}")
        entries.append((name, shape, KINDS[kind], place))
    alignment = facts.get(_ALIGNMENT, 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 16 or alignment % 8:
        raise ValueError(f"is aligned to {shown(alignment)} bytes")
    start = -(-fields.place // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, place in entries:
        size = math.prod(shape) // kind.weights * kind.size
        if place % alignment or start + place + size > len(fields.content):
            raise ValueError(
                f"{shown(name)} lies behind the end, or not at its place; fetch it again"
            )
        if name in tensors:
            raise ValueError(f"holds {shown(name)} twice")
        tensors[name] = GgufTensor(shape, kind, start + place, size)
    return tensors
