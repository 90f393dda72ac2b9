"""Vectors of words as safetensors: one matrix of (words, width)."""

from __future__ import annotations

from pathlib import Path

from ...base.errors import reason
from ..text.encoder import StaticEncoder


def read_static_vectors(path: str | Path) -> StaticEncoder:
    """An encoder of the vectors of a file, float32, in evaluation mode.

    Raises ValueError, one line, for a file that is missing or damaged, or holds anything else.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except Exception as error:  # of the system, or safetensors
        raise ValueError(f"{path}: cannot be read as vectors ({reason(error, 120)})") from None
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    vectors = next(iter(tensors.values())) if len(tensors) == 1 else None
    if vectors is None or vectors.ndim != 2 or not vectors.numel():
        raise ValueError(f"{path}: must hold one matrix of (words, width), and holds {shapes}")
    if not vectors.is_floating_point():
        raise ValueError(f"{path}: must hold floats, and holds {vectors.dtype}")
    encoder = StaticEncoder(*vectors.shape)
    encoder.load_state_dict({"words.weight": vectors.float()})
    return encoder.eval()
