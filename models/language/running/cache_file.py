"""A cache that a plan has cut as a file, so that a text is read once and asked about later.

One safetensors file: keys, values and positions of all parts, the ids of the text, and a header
that says which model, weights, plan and text they belong to. It holds the text itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from ....base.errors import fail, reason
from ....base.files import write_aside
from ..plans.grouping import Group
from .cache import PlanCache, PlanLayer, WindowLayer
from .parts import Part
from .reading import Reading

if TYPE_CHECKING:
    from .attach import Attached

FORMAT, VERSION = "headwise cache", 1
_MARKED = 16  # numbers of each weight that its mark is made of


def weights_mark(model: nn.Module) -> str:
    """SHA-256 of the names, shapes and first numbers of all weights of a model."""
    sha = hashlib.sha256()
    for name, weight in model.named_parameters():
        sha.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        sha.update(weight.detach().flatten()[:_MARKED].float().cpu().numpy().tobytes())
    return sha.hexdigest()


def text_sha256(tokens: Tensor, real: Tensor) -> str:
    """SHA-256 of texts: ids (B, T) where real (B, T) is true."""
    rows = [row[mask].tolist() for row, mask in zip(tokens, real)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def numbers_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and numbers of tensors, which lie in the memory of the CPU."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def save_cache(cache: PlanCache, path: str | Path) -> None:
    """Write a cache that has read a text as one safetensors file, in one step.

    Raises ValueError where it has read none, and InputError where the file cannot be written.
    """
    if cache.tokens is None or cache.real is None:
        raise ValueError("the cache has read no text yet")
    tensors: dict[str, Tensor] = {"tokens": cache.tokens, "real": cache.real}
    layers: list[object] = []
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, PlanLayer):
            layers.append(_part_tensors(layer, f"{number}", tensors))
        else:
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            tensors[f"{number}.keys"], tensors[f"{number}.values"] = layer.keys, layer.values
            layers.append(None)
    saved = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": cache.plan.facts.sha256,
        "weights": cache.weights(),
        "plan": cache.plan.digest(),
        "text": text_sha256(cache.tokens, cache.real),
        "numbers": numbers_sha256(saved),
        "layers": layers,
    }
    metadata = {"headwise": json.dumps(header)}
    write_aside(Path(path), lambda temporary: save_file(saved, temporary, metadata))


def _part_tensors(layer: PlanLayer, name: str, tensors: dict[str, Tensor]) -> list[int]:
    """Add the tensors of a layer; which group each part is of, -1 for all heads."""
    groups: list[int] = []
    for place, part in enumerate(layer.parts):
        everything = part.group is layer.plan.all_heads
        groups.append(-1 if everything else layer.plan.groups.index(part.group))
        for kind in ("keys", "values", "positions", "rows"):
            if (tensor := getattr(part, kind)) is not None:
                tensors[f"{name}.{place}.{kind}"] = tensor
    if layer.full is not None:
        tensors[f"{name}.full"] = layer.full
    return groups


def load_cache(path: str | Path, attached: Attached) -> PlanCache:
    """The cache in a file, for a model attached to the plan that it was written with.

    Raises ValueError, in one line with the path, for a file that is missing, damaged, or of another
    model, other weights or another plan.
    """
    path = Path(path)
    with _naming(path), safe_open(path, framework="pt") as file:
        header = _header((file.metadata() or {}).get("headwise"))
        _check_header(header, attached)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cache = _cache(header, dict(tensors), attached)
        # A file of an older version does not say it.
        if header.get("numbers", "") not in ("", numbers_sha256(tensors)):
            raise _Damaged("its numbers are not those that were written")
    return cache


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What is wrong with a file, with its path."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        yield
    except (OSError, SafetensorError, RecursionError) as error:
        raise fail(path, f"cannot be read as a cache ({reason(error)})") from None
    except ValueError as error:
        raise fail(path, reason(error, 300)) from None


def _header(text: str | None) -> dict[str, object]:
    header = json.loads(text) if text is not None else None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("no cache that this package has written")
    if (version := header.get("version")) != VERSION or isinstance(version, bool):
        raise ValueError(f"version {version!r} of caches is not known here")
    return header


def _check_header(header: Mapping[str, object], attached: Attached) -> None:
    if header.get("model") != attached.plan.facts.sha256:
        raise ValueError("the cache was written with another model")
    if header.get("plan") != attached.plan.digest():
        raise ValueError("the cache was written under another plan")
    if header.get("weights") != attached.weights():
        raise ValueError(
            "the cache was written with other weights of this model or in other precision"
        )


class _Damaged(ValueError):
    def __init__(self, what: str) -> None:
        super().__init__(f"the cache is damaged: {what}")


def _cache(
    header: Mapping[str, object], tensors: dict[str, Tensor], attached: Attached
) -> PlanCache:
    """The cache of tensors, of which none is trusted to fit the others."""
    tokens, real = tensors.pop("tokens", None), tensors.pop("real", None)
    if tokens is None or real is None or tokens.ndim != 2 or tokens.shape != real.shape:
        raise _Damaged("its text is missing")
    if tokens.dtype != torch.int64 or real.dtype != torch.bool or not tokens.numel():
        raise _Damaged("its text is not made of ids")
    if header.get("text") != text_sha256(tokens, real):
        raise _Damaged("its text is not the one that it was written for")
    layers = header.get("layers")
    cache = attached.cache()
    if not isinstance(layers, list) or len(layers) != len(cache.layers):
        raise _Damaged("layers are missing")
    weight = next(iter(attached.model.parameters()))
    loader = _Loader(tensors, real, cache, weight)
    for number, groups in enumerate(layers):
        loader.fill(number, groups)
    cache.tokens, cache.real = tokens.to(weight.device), real.to(weight.device)
    return cache


class _Loader:
    """Fills the layers of a cache with tensors of a file."""

    def __init__(
        self, tensors: dict[str, Tensor], real: Tensor, cache: PlanCache, like: Tensor
    ) -> None:
        self.tensors, self.cache, self.like = tensors, cache, like
        self.batch, self.columns = real.shape
        self.reading = Reading.of(
            self.batch, 0, self.columns, None if bool(real.all()) else real, real.device
        )

    def fill(self, number: int, groups: object) -> None:
        layer = self.cache.layers[number]
        facts = self.cache.plan.facts
        if isinstance(layer, PlanLayer):
            self._fill_parts(layer, number, groups)
            return
        assert isinstance(layer, DynamicLayer)
        held = self.columns
        if isinstance(layer, WindowLayer):
            held = min(held, layer.sliding_window - 1)
            layer.cumulative_length = self.columns
        shape = (self.batch, facts.kv_heads, held, facts.head_width)
        keys, values = (self._states(f"{number}.{kind}", shape) for kind in ("keys", "values"))
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values

    def _fill_parts(self, layer: PlanLayer, number: int, groups: object) -> None:
        plan = layer.plan
        if not isinstance(groups, list) or not groups:
            raise _Damaged(f"layer {number} is missing")
        if plan.routed:
            full = self._tensor(f"{number}.full", (self.batch,), torch.bool)
            layer.full = full.to(self.like.device)
        for place, group in enumerate(groups):
            if type(group) is not int or not -1 <= group < len(plan.groups):
                raise _Damaged(f"layer {number} has heads of no group")
            chosen = plan.all_heads if group < 0 else plan.groups[group]
            layer.parts.append(self._part(chosen, f"{number}.{place}"))
        self._check_complete(layer, number)
        layer.columns, layer.batch, layer.is_initialized = self.columns, self.batch, True
        first = layer.parts[0]
        layer.split = len(groups) > 1 or first.group is not plan.all_heads or first.rows is not None

    def _part(self, group: Group, name: str) -> Part:
        rows = self.tensors.get(f"{name}.rows")
        count = self.batch
        if rows is not None:
            count = rows.numel()
            rows = self._tensor(f"{name}.rows", (count,), torch.int64)
            if not bool(((rows >= 0) & (rows < self.batch)).all()):
                raise _Damaged(f"{name} names rows that it has not")
        held, positions = self.columns, None
        lengths = self.reading.lengths(rows)
        sizes = [group.rule.keeps(length) for length in lengths]
        if not group.rule.full:
            held = max(sizes, default=0)
            positions = self.tensors.get(f"{name}.positions")
            many = 1 if positions is not None and positions.shape[:1] == (1,) else count
            positions = self._tensor(f"{name}.positions", (many, held), torch.int64)
            self._check_positions(group, positions, lengths, name)
        shape = (count, len(group.heads), held, self.cache.plan.facts.head_width)
        keys, values = (self._states(f"{name}.{kind}", shape) for kind in ("keys", "values"))
        device = self.like.device
        rows = None if rows is None else rows.to(device)
        if positions is None:
            return Part(group, rows, keys, values)
        ragged = min(sizes) < held
        return Part(group, rows, keys, values, positions.to(device), trimmed=True, ragged=ragged)

    def _check_positions(
        self, group: Group, positions: Tensor, lengths: list[int], name: str
    ) -> None:
        """All rows must hold what the rule holds, in the order of the text."""
        for row, length in zip(positions.expand(len(lengths), -1), lengths):
            held = row[row >= 0]
            places = torch.arange(length)
            expected = places[group.rule.allowed(places[-1:], places)[0]]
            if not torch.equal(held, expected):
                raise _Damaged(f"{name} does not hold the tokens of its plan")

    def _check_complete(self, layer: PlanLayer, number: int) -> None:
        held = torch.zeros(self.batch, self.cache.plan.facts.kv_heads, dtype=torch.long)
        for part in layer.parts:
            rows = torch.arange(self.batch) if part.rows is None else part.rows.cpu()
            for row in rows.tolist():
                held[row, list(part.group.heads)] += 1
        if not bool((held == 1).all()):
            raise _Damaged(f"layer {number} does not hold each head once")

    def _states(self, name: str, shape: tuple[int, ...]) -> Tensor:
        states = self._tensor(name, shape, self.like.dtype)
        return states.to(self.like.device)

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            has = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise _Damaged(f"{name} has {has} in place of {dtype} {shape}")
        return tensor
