"""A plan of attention as a file: one JSON, and beside it the weights of a router as safetensors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ....base.errors import fail, reason
from ....base.files import checksum, read_plain, write_aside, write_json
from .facts import ModelFacts
from .plan import MOST_TOKENS, Budget, Plan

FORMAT, VERSION = "headwise attention plan", 1
_JSON_CAP, _ROUTER_CAP = 16 << 20, 512 << 20  # bytes
_MOST_LAYERS, _MOST_HEADS = 1024, 1024
_LENGTHS = (512, 1024, 2048, 4096, 8192, 32768)
_MISSING = object()
Kind = TypeVar("Kind")


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan in one step, after the weights of its router.

    Raises InputError where a file cannot be written.
    """
    router = None
    if plan.router:
        weights = path.with_name(f"{path.stem}.router.safetensors")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plan.router.items()}
        write_aside(weights, lambda temporary: save_file(tensors, temporary))
        router = {"file": weights.name, "sha256": checksum(weights)}
    content: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "model": vars(plan.facts),
        "method": plan.method,
        # JSON has no infinity: a full head has null.
        "alpha": [[None if math.isinf(value) else value for value in row] for row in plan.alpha],
        "beta": plan.beta,
        "sink": plan.sink,
        "inherits": plan.inherits,
        "budget": None if plan.budget is None else vars(plan.budget),
        "routed": plan.routed,
        "router": router,
        "fitted_on": plan.fitted_on,
        "checked_to": plan.checked_to,
        # For the reader of the file only.
        "kept": {str(n): round(plan.kept(n), 6) for n in _LENGTHS if n <= plan.facts.positions},
    }
    write_json(path, content)


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises ValueError, in one line with the path, for a file that is missing, too large, damaged or
    no plan, and for weights of a router that are not those that were written with it.
    """
    try:
        return _plan(json.loads(read_plain(path, _JSON_CAP).decode("utf-8-sig")), path)
    except OSError as error:
        raise fail(path, f"cannot be read as a plan ({reason(error)})") from None
    except RecursionError:
        raise fail(path, "no plan of attention: nested too deeply") from None
    except ValueError as error:  # what json and the plan itself raise, too
        line = reason(error, 300)
        raise fail(path, line.removeprefix(f"{path}: ")) from None


def _plan(content: object, path: Path) -> Plan:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'no plan of attention: "format" is not "{FORMAT}"')
    if (version := content.get("version")) != VERSION or isinstance(version, bool):
        raise ValueError(f"version {version!r} of plans is not known here")
    facts = _facts(_entry(content, "model", dict))
    budget = _entry(content, "budget", (dict, type(None)))
    routed = _entry(content, "routed", list)
    if any(type(value) is not bool for value in routed):
        raise ValueError('"routed" must hold true or false for each layer')
    return Plan(
        facts=facts,
        method=_entry(content, "method", str),
        sink=_numbers(content, "sink", int),
        alpha=_numbers(content, "alpha", float),
        beta=_numbers(content, "beta", float),
        inherits=_numbers(content, "inherits", bool),
        budget=None if budget is None else _budget(budget),
        routed=tuple(routed),
        router=_router(_entry(content, "router", (dict, type(None))), path),
        fitted_on=_entry(content, "fitted_on", dict),
        checked_to=_entry(content, "checked_to", int),
    )


def _entry(content: dict[str, object], name: str, kind: type[Kind] | tuple[type, ...]) -> Kind:
    value = content.get(name, _MISSING)
    if value is _MISSING:
        raise ValueError(f'no plan of attention: "{name}" is missing')
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f'"{name}" has a {type(value).__name__} where a plan has something else')
    return value  # type: ignore[return-value]


def _facts(model: dict[str, object]) -> ModelFacts:
    windows: list[object] = _entry(model, "windows", list)
    layers: int = _entry(model, "layers", int)
    kv_heads: int = _entry(model, "kv_heads", int)
    if layers > _MOST_LAYERS or kv_heads > _MOST_HEADS:
        raise ValueError(f"{layers} layers of {kv_heads} heads are more than any model has")
    if any(w is not None and (type(w) is not int or w < 1) for w in windows):
        raise ValueError('"windows" must hold a number of tokens or null for each layer')
    return ModelFacts(
        architecture=_entry(model, "architecture", str),
        layers=layers,
        heads=_entry(model, "heads", int),
        kv_heads=kv_heads,
        head_width=_entry(model, "head_width", int),
        positions=_entry(model, "positions", int),
        sha256=_entry(model, "sha256", str),
        windows=tuple(windows),  # type: ignore[arg-type]
    )


def _budget(content: dict[str, object]) -> Budget:
    keys, sink, recent = (_entry(content, name, int) for name in ("keys", "sink", "recent"))
    return Budget(keys, sink, recent)


def _numbers(
    content: dict[str, object], name: str, kind: type[Kind]
) -> tuple[tuple[Kind, ...], ...]:
    rows: list[object] = _entry(content, name, list)
    if len(rows) > _MOST_LAYERS or not all(isinstance(row, list) for row in rows):
        raise ValueError(f'"{name}" must be a list of lists, one for each layer')
    return tuple(tuple(_number(value, name, kind) for value in row) for row in rows)  # type: ignore[union-attr]


def _number(value: object, name: str, kind: type[Kind]) -> Kind:
    if value is None and name == "alpha":
        return kind(math.inf)  # type: ignore[call-arg]
    numbers = {int: (int,), float: (int, float), bool: (bool,)}[kind]  # type: ignore[index]
    if type(value) not in numbers:
        raise ValueError(f'"{name}" holds {str(value)[:40]!r}, which is no {kind.__name__}')
    if kind is not bool and not abs(value) <= MOST_TOKENS:  # type: ignore[arg-type]
        raise ValueError(f'"{name}" holds {str(value)[:40]}, which is out of range')
    return kind(value)  # type: ignore[call-arg]


def _router(content: dict[str, object] | None, path: Path) -> dict[str, Tensor] | None:
    if content is None:
        return None
    name: str = _entry(content, "file", str)
    expected: str = _entry(content, "sha256", str)
    # A plan may come from others: its name of a file must not lead anywhere else.
    if name != Path(name).name or not name.endswith(".safetensors"):
        raise ValueError(f"the router's file must be a .safetensors beside the plan, not {name!r}")
    weights = path.with_name(name)
    if not weights.is_file():
        raise ValueError(f"the router's weights, {name}, are not beside the plan")
    held = read_plain(weights, _ROUTER_CAP)
    if checksum(weights) != expected:
        raise ValueError(
            f"the router's weights, {name}, are not those that the plan was written with"
        )
    try:
        return load(held)
    except SafetensorError as error:
        raise ValueError(f"the router's weights, {name}, are damaged ({reason(error)})") from None
