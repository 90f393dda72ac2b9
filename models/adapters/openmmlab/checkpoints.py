"""mmengine's checkpoint files, read without running code that they may hold.

A file may hold tensors, numbers, arrays of numbers and mmengine's training history, as numpy 1 and
numpy 2 write them. No function of numpy is called on a file's word: an array of objects whose bytes
come from a file would be a pointer that the file chooses.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint of mmengine (`state_dict`), on the CPU.

    Raises ValueError if the file holds no weights, or anything but tensors, numbers and mmengine's
    training history."""
    try:
        with checkpoint_types():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a crafted file may upset the reader in many ways
        raise ValueError(
            f"{path}: no checkpoint that can be read without running its code: {_cause(error)}"
        ) from None
    weights = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError(f"{path}: a checkpoint without weights (state_dict)")
    return weights


def _cause(error: Exception) -> str:
    """Why PyTorch's reader refused a file: the name that it does not know, or its first line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    unknown = re.search(r"Unsupported (?:global|class|operand)[^\n.]*(?:\.\w+)*", text)
    lines = text.splitlines() or [type(error).__name__]
    return (unknown[0] if unknown else lines[0])[:200]


class _NumberType:
    """In place of numpy.dtype: the types of numbers only."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in _NUMBERS:
            raise UnpicklingError(f"a checkpoint may not hold an array of type {code!r}")
        self.code, self.dtype = code, np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise UnpicklingError("a checkpoint may hold arrays of plain numbers only")
        self.dtype = np.dtype(f"{state[1]}{self.code}")


class _Array(np.ndarray):
    """An array that takes its numbers from a file, checked; it is stored again as a plain one."""

    def __new__(cls) -> "_Array":
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, kind, by_columns, content = state
        sizes = [n for n in shape if type(n) is int and n >= 0] if isinstance(shape, tuple) else []
        plain = isinstance(shape, tuple) and len(sizes) == len(shape)
        if not (plain and isinstance(kind, _NumberType) and isinstance(content, bytes)):
            raise UnpicklingError("a checkpoint may hold arrays of plain numbers only")
        if math.prod(sizes) * kind.dtype.itemsize != len(content):
            raise UnpicklingError("a checkpoint holds an array that is damaged")
        super().__setstate__((1, tuple(sizes), kind.dtype, bool(by_columns), content))  # pyright: ignore[reportArgumentType]

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


class _ArrayMark:
    """In place of numpy.ndarray: the name, which makes nothing."""

    def __init__(self) -> None:
        raise UnpicklingError("a checkpoint may not make an array itself")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    """In place of numpy's _reconstruct: `_Array.__setstate__` fills it."""
    if kind is not _ArrayMark or shape != (0,) or code != b"b":
        raise UnpicklingError("a checkpoint may hold arrays of plain numbers only")
    return _Array()


def _number(kind: _NumberType, content: bytes) -> np.generic:
    """In place of numpy's scalar."""
    if not isinstance(kind, _NumberType) or len(content) != kind.dtype.itemsize:
        raise UnpicklingError("a checkpoint holds a number that is damaged")
    return np.frombuffer(content, kind.dtype)[0]


@contextmanager
def checkpoint_types() -> Iterator[None]:
    """Inside, PyTorch's weights-only reader also takes what mmengine's Runner writes, so that its
    `resume` works.

    The reader's check stays on. mmengine's history names its own methods by getattr; here that
    gives these methods and nothing else."""
    from mmengine.logging.history_buffer import HistoryBuffer

    def method(owner: Any, name: str) -> Any:
        if owner is not HistoryBuffer or name not in ("mean", "max", "min", "current"):
            raise UnpicklingError(f"a checkpoint may not ask for {name} of {owner}")
        return getattr(owner, name)

    allowed: list[Any] = [HistoryBuffer, _Array, (method, "builtins.getattr")]
    allowed += [(_NumberType, "numpy.dtype"), (_ArrayMark, "numpy.ndarray")]
    for core in ("numpy._core", "numpy.core"):  # the names of numpy 2 and of numpy 1
        allowed += [
            (_empty_array, f"{core}.multiarray._reconstruct"),
            (_number, f"{core}.multiarray.scalar"),
        ]
    with torch.serialization.safe_globals(allowed):
        yield
