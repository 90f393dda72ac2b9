"""Checkpoints that survive a kill at any moment.

A checkpoint is a directory: `model.safetensors`, `optimizer.safetensors` and `state.json`
(progress, the optimiser's numbers, and the checksum of the two tensor files). It is written under
another name, flushed, renamed, and only then named by `LAST`. Nothing in it is pickled."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ....base.errors import InputError
from ....base.files import checksum, flush, write_text

TENSORS = ("model.safetensors", "optimizer.safetensors")


def save(
    folder: Path,
    step: int,
    model: dict[str, Any],
    optimizer: dict[str, Any],
    progress: dict[str, Any],
) -> Path:
    """Write the checkpoint of `step` below `folder` and point `LAST` to it; returns its
    directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, aside = folder / f"step-{step:09d}", folder / f".step-{step:09d}.aside"
    sweep(folder)
    try:
        _write(aside, step, model, optimizer, progress)
    except (OSError, SafetensorError) as error:
        sweep(folder)
        raise InputError(
            f"{target}: the checkpoint cannot be written ({error}); the earlier ones are intact"
        ) from None
    if target.exists():  # written by an earlier try of the same step
        os.rename(target, folder / f".step-{step:09d}.old.aside")
    os.rename(aside, target)
    flush(folder)
    write_text(folder / "LAST", target.name)
    for path in _newest_first(folder):
        if (
            path.name > target.name
        ):  # damaged: a resumed run fell back from it, and must not keep it as the newest
            shutil.rmtree(path, ignore_errors=True)
    sweep(folder)
    return target


def _write(
    aside: Path,
    step: int,
    model: dict[str, Any],
    optimizer: dict[str, Any],
    progress: dict[str, Any],
) -> None:
    """Write all files of a checkpoint into `aside`, down to the disk."""
    aside.mkdir()
    tensors, numbers = _flatten(optimizer)
    # Cloned, since safetensors refuses tensors that share memory (tied weights).
    save_file(
        {name: value.detach().cpu().clone().contiguous() for name, value in model.items()},
        aside / TENSORS[0],
    )
    save_file(tensors, aside / TENSORS[1])
    sums = {name: checksum(aside / name) for name in TENSORS}
    state = json.dumps({"step": step, "progress": progress, "optimizer": numbers, "sha256": sums})
    (aside / "state.json").write_text(state)
    for name in (*TENSORS, "state.json"):
        flush(aside / name)
    flush(aside)


def sweep(folder: Path) -> None:
    """Remove what a killed writer left."""
    for leftover in folder.glob(".step-*.aside"):
        shutil.rmtree(leftover, ignore_errors=True)


def prune(folder: Path, keep: int, always: str | None) -> None:
    """Keep the newest `keep` checkpoints and the one named `always`."""
    for path in _newest_first(folder)[max(keep, 1) :]:
        if path.name != always:
            shutil.rmtree(path, ignore_errors=True)


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint: keys `step`, `progress`, `model`, `optimizer`. `InputError` if it is
    damaged.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        for name in TENSORS:
            if checksum(path / name) != state["sha256"][name]:
                raise InputError(f"{path / name}: checksum differs; the checkpoint is damaged")
        model, tensors = load_file(path / TENSORS[0]), load_file(path / TENSORS[1])
        optimizer = _unflatten(tensors, state["optimizer"])
        return {
            "step": state["step"],
            "progress": state["progress"],
            "model": model,
            "optimizer": optimizer,
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: the checkpoint is damaged ({type(error).__name__}: {error})"
        ) from None


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; older ones step in, with a warning, for a damaged
    newest.

    None where there is no checkpoint at all; `InputError` where there are some and all are damaged.
    """
    sweep(folder)
    candidates = _newest_first(folder)
    pointer = folder / "LAST"
    if candidates and not pointer.exists():
        warnings.warn(
            f"{pointer}: missing; taking the newest checkpoint that can be read", stacklevel=2
        )
    problems = []
    for path in candidates:
        try:
            return load(path)
        except InputError as error:
            problems.append(str(error))
            warnings.warn(f"{error}; falling back to the one before", stacklevel=2)
    if problems:
        raise InputError(f"{folder}: no checkpoint can be read; newest: {problems[0]}")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _flatten(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors by name and plain numbers."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for key, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
            else:
                numbers.setdefault(str(key), {})[name] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def _unflatten(tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[Any, dict[str, Any]] = {}
    for full, value in tensors.items():
        key, name = full.rsplit("/", 1)
        state.setdefault(int(key) if key.isdigit() else key, {})[name] = value
    for key, entry in rest["numbers"].items():
        state.setdefault(int(key) if key.isdigit() else key, {}).update(entry)
    return {"state": state, "param_groups": rest["param_groups"]}


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Model weights from a safetensors file; anything else is refused without being unpickled."""
    if path.exists() and not path.is_file():  # a pipe may never end
        raise InputError(f"{path}: is not a plain file")
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; the run has not finished training") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
