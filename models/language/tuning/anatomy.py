"""The parts of a causal language model of Hugging Face by the names that papers give them.

Shapes: D width, I hidden units of a feed-forward network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

ATTENTION, FEED_FORWARD = ("q", "k", "v", "o"), ("gate", "up", "down")
_HOME = {
    **{name: ("self_attn", f"{name}_proj") for name in ATTENTION},
    **{name: ("mlp", f"{name}_proj") for name in FEED_FORWARD},
}


class Place(NamedTuple):
    """Where a linear layer of a model is: `parent.attribute` is `linear`; name: its full name, as
    of `named_modules`; layer: number of its layer, from 0; kind: q, k, v, o, gate, up or down.
    """

    parent: nn.Module
    attribute: str
    linear: nn.Linear
    name: str
    layer: int
    kind: str


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of a causal language model, the lowest first. Raises ValueError for a model that
    has none by that name.
    """
    find = getattr(model, "get_decoder", None)
    layers = getattr(find() if callable(find) else model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ValueError(f"{type(model).__name__}: has no list of decoder layers to tune in parts")
    return layers


def layer_range(span: tuple[float, float, bool] | None, count: int) -> range:
    """The layers that a range names, of `count`.

    span: first, last, and whether they are in percent: the layers l with first <= 100 l / count <
    last, at least one; else both are numbers, included; None: all.

    Raises ValueError for a number that no layer has.

    >>> layer_range((25, 50, True), 30)
    range(8, 15)
    """
    if span is None:
        return range(count)
    first, last, percent = span
    if percent:
        start = min(math.ceil(first * count / 100), count - 1)
        return range(start, max(start + 1, math.ceil(last * count / 100)))
    if last >= count:
        raise ValueError(f"there is no layer {last:g}; the last of {count} is {count - 1}")
    return range(int(first), int(last) + 1)


def linear_places(model: nn.Module, layers: Sequence[int], kinds: Sequence[str]) -> Iterator[Place]:
    """The linear layers of some kinds in some layers, in order. A layer that something has been put
    around, as its attribute `linear`, is looked for inside; one that a conversion has replaced is
    left out.

    Raises ValueError where a layer has no part of that name.
    """
    prefix = {id(part): name for name, part in model.named_modules()}
    for number in layers:
        layer = decoder_layers(model)[number]
        for kind in kinds:
            home, attribute = _HOME[kind]
            parent = getattr(layer, home, None)
            if getattr(parent, "replaces_linears", False):
                continue
            part = getattr(parent, attribute, None)
            if parent is None or part is None:
                raise ValueError(
                    f"{type(model).__name__}: layer {number} has no {home}.{attribute}, so that "
                    f"the module {kind!r} cannot be tuned by itself"
                )
            if getattr(part, "replaces_linears", False):
                continue
            if not isinstance(part, nn.Linear):
                parent, attribute, part = part, "linear", getattr(part, "linear", None)
            if not isinstance(part, nn.Linear):
                raise ValueError(f"{type(model).__name__}: {home}.{attribute} is no linear layer")
            yield Place(parent, attribute, part, f"{prefix[id(parent)]}.{attribute}", number, kind)
