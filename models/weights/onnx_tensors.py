"""The tensors of an ONNX file, read without the onnx package; its graph is never run.

The file is a message of protocol buffers: fields of a number and a wire type, of which the few that
hold float tensors and the inputs of nodes are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...base.files import read_plain

FILE_CAP = 1 << 30  # bytes
FLOAT = 1  # the data type float32
_GRAPH = 7  # of a model
_NODE, _INITIALISER = 1, 5  # of a graph
_INPUT, _NODE_NAME = 1, 3  # of a node
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13  # of a tensor
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
Field = tuple[int, "int | memoryview"]


class OnnxTensors(NamedTuple):
    """tensors: the float32 initialisers by name; inputs: the names of each node's inputs."""

    tensors: dict[str, Tensor]
    inputs: dict[str, list[str]]


def read_onnx(path: str | Path) -> OnnxTensors:
    """Tensors and nodes of a file. Raises ValueError for a file that is missing, damaged or too
    large, and for tensors that are stored outside of it.
    """
    try:
        content = memoryview(read_plain(Path(path), FILE_CAP))
    except InputError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    result = OnnxTensors({}, {})
    try:
        for number, graph in _fields(content):
            for part, message in _fields(_message(graph)) if number == _GRAPH else ():
                if part == _INITIALISER:
                    name, tensor = _tensor(_message(message))
                    if tensor is not None:
                        result.tensors[name] = tensor
                elif part == _NODE:
                    name, inputs = _node(_message(message))
                    result.inputs[name] = inputs
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: cannot be read as an ONNX file ({error})") from None
    if not result.tensors:
        raise ValueError(f"{path}: holds no tensors")
    return result


def _node(message: memoryview) -> tuple[str, list[str]]:
    name, inputs = "", list[str]()
    for number, value in _fields(message):
        if number == _INPUT:
            inputs.append(_text(value))
        elif number == _NODE_NAME:
            name = _text(value)
    return name, inputs


def _tensor(message: memoryview) -> tuple[str, Tensor | None]:
    """Name and values of an initialiser; None for one that is not float32."""
    name, kind, shape, raw = "", 0, list[int](), memoryview(b"")
    for number, value in _fields(message):
        if number == _DIMS:  # one by one, or packed into one field
            shape.extend([value] if isinstance(value, int) else _varints(value))
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number == _RAW:
            raw = _message(value)
        elif number == _EXTERNAL:
            raise ValueError(f"tensor {name!r} is stored in another file")
    if kind != FLOAT:
        return name, None
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"tensor {name!r} of shape {shape} has {len(raw)} bytes")
    values = np.frombuffer(raw, "<f4").astype(np.float32)
    return name, torch.from_numpy(values).reshape(shape)


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a message was expected, and a number is there")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message: number and value, an int or the bytes of it."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place + size > len(message):
            raise ValueError("ends too early")
        yield number, message[place : place + size]
        place += size


def _varints(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _varint(message, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of up to ten bytes at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError(f"a number without end at byte {place}")
