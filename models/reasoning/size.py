"""Widths at which different networks have the same number of parameters."""

from __future__ import annotations

from dataclasses import replace

import torch

from .networks import ReasonerName, ReasonerOptions, build_reasoner


def parameters_of(name: ReasonerName, options: ReasonerOptions) -> int:
    """Parameters of a network; random draws that follow are as without it."""
    with torch.random.fork_rng(devices=[]):
        network = build_reasoner(name, options)
    return sum(weight.numel() for weight in network.parameters())


def width_for(name: ReasonerName, options: ReasonerOptions, parameters: int) -> int:
    """The width at which a network has the nearest number of parameters, in steps of twice the
    heads. Raises ValueError where the smallest has more than one and a half times as many.
    """
    step = 2 * options.heads

    def count(steps: int) -> int:
        return parameters_of(name, replace(options, width=steps * step))

    low, high = 1, 2
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    nearest = min((low, high), key=lambda steps: abs(count(steps) - parameters))
    if count(nearest) > 1.5 * parameters:
        raise ValueError(
            f"{name} with {options.heads} heads has {count(nearest):,} parameters at least, not "
            f"{parameters:,}"
        )
    return nearest * step
