"""Plans as files: our JSON, MoA's JSON, the folder of DuoAttention."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from ...base.errors import InputError, fail, reason
from ...base.files import read_plain
from ...models.language.plans.facts import ModelFacts
from ...models.language.plans.formats import (
    GATES,
    read_duo_attention,
    read_moa,
    write_duo_attention,
    write_moa,
)
from ...models.language.plans.plan import Plan
from .planned import planned

_CAP = 16 << 20  # bytes
MOA = ".moa.json"


def read_any_plan(path: str, facts: ModelFacts) -> Plan:
    """The plan in a file: our JSON, MoA's, or DuoAttention's table of gates (or its folder).

    Raises `InputError` for what is none of them, and for a plan of another model.
    """
    file = Path(path)
    where = f"--plan {path}"
    if not file.exists():
        raise fail(where, "there is no such file")
    try:
        if file.is_dir() or file.name == GATES:
            return read_duo_attention(file if file.is_dir() else file.parent, facts)
        if file.suffix.lower() == ".tsv":
            raise fail(where, f"DuoAttention calls its table {GATES}; name it so, or its folder")
        if file.suffix.lower() != ".json":
            raise fail(where, f"must be a .json, or the folder of DuoAttention with {GATES}")
        if _is_moa(file):
            return read_moa(file, facts)
        plan = Plan.read(file)
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise fail(where, reason(error)) from None
    if plan.facts != facts:
        raise fail(
            where,
            f"is for another model: {plan.facts.architecture} of {plan.facts.layers} layers and "
            f"{plan.facts.kv_heads} heads of keys, not {facts.architecture} of {facts.layers} and "
            f"{facts.kv_heads} (or one with another configuration)",
        )
    return plan


def _is_moa(file: Path) -> bool:
    """Whether a JSON has the tables of MoA; what is no JSON is refused where it is read."""
    try:
        content = json.loads(read_plain(file, _CAP))
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "alphas" in content and "format" not in content


def write_plan(model: nn.Module, path: Path) -> None:
    """Write the plan of a model, in the format of the ending. Raises `InputError` for a plan that
    the format cannot say.
    """
    plan = planned(model).plan
    try:
        if path.name.lower().endswith(MOA):
            write_moa(plan, path)
        elif path.suffix.lower() == ".tsv":
            if path.name != GATES:
                raise InputError(f"--output {path}: DuoAttention reads a folder with {GATES}")
            write_duo_attention(plan, path.parent)
        else:
            plan.write(path)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--output {path}: {error}") from None
