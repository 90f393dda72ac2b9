"""mmengine's checkpoint files, read without running code that they may hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint of mmengine (`state_dict`), on the CPU.

    Raises ValueError if the file holds no weights, or anything but tensors, numbers and mmengine's
    training history."""
    try:
        with checkpoint_types():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"{path}: no checkpoint that can be read without running its code: {reason}"
        ) from None
    weights = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError(f"{path}: a checkpoint without weights (state_dict)")
    return weights


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

    multiarray = import_module("numpy._core.multiarray")
    kinds = {type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")}
    allowed = [
        HistoryBuffer,
        (method, "builtins.getattr"),
        multiarray._reconstruct,
        multiarray.scalar,
        np.ndarray,
        np.dtype,
        *kinds,
    ]
    with torch.serialization.safe_globals(allowed):  # pyright: ignore[reportArgumentType]
        yield
