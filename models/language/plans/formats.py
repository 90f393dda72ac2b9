"""Plans of other programs: DuoAttention's gates of heads and MoA's elastic rules.

DuoAttention (arXiv 2410.10819) writes a folder: `full_attention_heads.tsv`, a gate between 0 and 1
for each layer (line) and head of keys and values, and `config.json` with its sink and window. MoA
(arXiv 2406.14909) writes one JSON: `alphas` and `betas`, layer by query head, for windows of
alpha + beta n tokens at a length of n.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from ....base.errors import fail, reason
from ....base.files import read_plain, write_json, write_text
from .facts import ModelFacts
from .plan import Plan

GATES, SETTINGS = "full_attention_heads.tsv", "config.json"
MOA_SINK = 64  # MoA's sink is one block
_CAP = 16 << 20  # bytes


def read_duo_attention(
    folder: str | Path,
    facts: ModelFacts,
    *,
    keep: float | None = None,
    sink: int | None = None,
    window: int | None = None,
) -> Plan:
    """The plan of a folder of DuoAttention.

    keep: the share of heads that stay full, those with the largest gates (the earlier head where
    gates are equal; the original draws lots); None: those with a gate of .5 or more. sink, window:
    of all other heads, by default those in `config.json`. Gates of layers that the model itself
    gives a window are not used.

    Raises ValueError, in one line, for a file that does not fit the model.
    """
    folder = Path(folder)
    gates = _gates(folder / GATES, facts)
    settings = _settings(folder / SETTINGS) if sink is None or window is None else {}
    sink = _size(settings, "sink_size", folder) if sink is None else sink
    window = _size(settings, "recent_size", folder) if window is None else window
    planned = torch.tensor([facts.planned(layer) for layer in range(facts.layers)])
    full = gates >= 0.5
    if keep is not None:
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must be a share of heads between 0 and 1, not {keep}")
        ranked = gates[planned].flatten()
        chosen = torch.zeros_like(ranked, dtype=torch.bool)
        chosen[ranked.sort(descending=True, stable=True).indices[: round(keep * len(ranked))]] = (
            True
        )
        full = torch.zeros_like(gates, dtype=torch.bool)
        full[planned] = chosen.view(-1, facts.kv_heads)
    return Plan.of_heads(
        facts,
        full,
        sink=sink,
        window=window,
        method="duo-attention",
        fitted_on={"gates": GATES, "keep": keep},
    )


def write_duo_attention(plan: Plan, folder: str | Path) -> None:
    """Write a plan as a folder of DuoAttention: gates of 1 and 0.

    Raises ValueError for a plan that it cannot say: with heads that inherit keys, a router, or more
    than one sink and window. Layers that the model itself gives a window are written as full.
    """
    _only_windows(plan, "DuoAttention")
    rows, cut = [], set()
    for layer in range(plan.facts.layers):
        rules = plan.rules(layer)
        rows.append("\t".join("1.0" if rule.full else "0.0" for rule in rules))
        cut |= {rule for rule in rules if not rule.full}
    if len(cut) > 1 or any(rule.beta or rule.alpha != rule.window(1 << 40) for rule in cut):
        raise ValueError(
            "DuoAttention has one sink and one fixed window for all heads, not several"
        )
    rule = cut.pop() if cut else None
    folder = Path(folder)
    write_text(folder / GATES, "\n".join(rows) + "\n")
    sizes = (0, 1) if rule is None else (rule.sink, rule.window(1 << 40))
    write_json(folder / SETTINGS, {"sink_size": sizes[0], "recent_size": sizes[1]})


def read_moa(path: str | Path, facts: ModelFacts, *, sink: int = MOA_SINK) -> Plan:
    """The plan in a JSON of MoA, whose windows are by query head.

    Query heads that share keys get the largest alpha and the largest beta of their group, since a
    key is needed as soon as one of them attends to it: where they differ, the cache is larger than
    MoA's. A beta of 1 or more without a negative alpha makes a head full. MoA's smallest window of
    one block of 64 tokens, and its rounding to blocks, are not taken over.

    Raises ValueError, in one line, for a file that does not fit the model.
    """
    path = Path(path)
    try:
        content = json.loads(read_plain(path, _CAP).decode())
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
    except (ValueError, RecursionError) as error:
        raise fail(path, f"not readable as JSON ({reason(error)})") from None
    if not isinstance(content, dict):
        raise fail(path, 'no plan of MoA: "alphas" and "betas" are missing')
    alphas, betas = (_table(content.get(name), name, facts, path) for name in ("alphas", "betas"))
    full = (alphas >= 0) & (betas >= 1)
    return Plan.of_tables(
        facts,
        method="moa",
        sink=sink,
        alpha=alphas.masked_fill(full, math.inf),
        beta=betas.clamp(max=1),
        fitted_on={"rules": path.name},
    )


def write_moa(plan: Plan, path: str | Path) -> None:
    """Write a plan as a JSON of MoA: the rule of each head of keys for all query heads that share
    it, full heads as 0 + 1 n. The sink is not part of that format; MoA takes 64 tokens.

    Raises ValueError for a plan that it cannot say: with heads that inherit keys or a router.
    """
    _only_windows(plan, "MoA")
    shared = plan.facts.heads // plan.facts.kv_heads
    tables: dict[str, list[list[float]]] = {"alphas": [], "betas": []}
    for layer in range(plan.facts.layers):
        pairs = [(0.0, 1.0) if r.full else (r.alpha, r.beta) for r in plan.rules(layer)]
        tables["alphas"].append([alpha for alpha, _ in pairs for _ in range(shared)])
        tables["betas"].append([beta for _, beta in pairs for _ in range(shared)])
    write_json(Path(path), tables)


def _only_windows(plan: Plan, program: str) -> None:
    if plan.inheriting or any(plan.routed):
        raise ValueError(f"{program} has no heads that inherit keys and no router")


def _gates(path: Path, facts: ModelFacts) -> Tensor:
    try:
        lines = read_plain(path, _CAP).decode().split("\n")
    except (OSError, ValueError) as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
    rows = [line.split("\t") for line in lines if line.strip()]
    shape = (facts.layers, facts.kv_heads)
    if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise fail(path, f"must have {shape[0]} lines of {shape[1]} gates for this model")
    try:
        gates = torch.tensor([[float(gate) for gate in row] for row in rows], dtype=torch.float64)
    except ValueError as error:
        raise fail(path, f"holds a gate that is no number ({reason(error)})") from None
    if not bool(gates.isfinite().all()):
        raise fail(path, "holds a gate that is no finite number")
    return gates.clamp(0, 1)


def _settings(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(read_plain(path, _CAP).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise fail(path, f"cannot be read ({reason(error)})") from None
    return settings if isinstance(settings, dict) else {}


def _size(settings: dict[str, object], name: str, folder: Path) -> int:
    size = settings.get(name)
    if not isinstance(size, int) or isinstance(size, bool):
        raise fail(folder / SETTINGS, "names no sink_size and recent_size; give sink and window")
    return size


def _table(rows: object, name: str, facts: ModelFacts, path: Path) -> Tensor:
    """Numbers by layer and query head -> the largest of each group, float64 (L, KV)."""
    shape = (facts.layers, facts.heads)
    if not isinstance(rows, list) or len(rows) != shape[0]:
        raise fail(path, f'"{name}" must have {shape[0]} layers for this model')
    numbers: list[list[float]] = []
    for row in rows:
        if not isinstance(row, list) or len(row) != shape[1]:
            raise fail(path, f'"{name}" must have {shape[1]} heads in each layer for this model')
        if any(type(value) not in (int, float) or not abs(value) < 1e12 for value in row):
            raise fail(path, f'"{name}" holds something that is no finite number')
        numbers.append([float(value) for value in row])
    table = torch.tensor(numbers, dtype=torch.float64)
    return table.unflatten(1, (facts.kv_heads, -1)).amax(2)
