"""How the experts of a model are used, while it works."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .layer import MoE
from .router import Routing


class RoutingWatch:
    """Counts over all forward passes made inside it: `with RoutingWatch(model) as watch: …;
    watch.figures()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [part for part in model.modules() if isinstance(part, MoE)]
        self.counts: list[Any] = [0 for _ in self.layers]
        self.entropy: list[Any] = [0.0 for _ in self.layers]
        self.hooks: list[Any] = []

    def __enter__(self) -> "RoutingWatch":
        for i, layer in enumerate(self.layers):
            self.hooks.append(layer.register_forward_hook(partial(self._add, i)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _add(self, i: int, layer: nn.Module, *_: Any) -> None:
        routing = layer.routing
        if isinstance(routing, Routing):
            self.counts[i] = self.counts[i] + routing.counts.sum(0)
            self.entropy[i] = self.entropy[i] + torch.stack(
                [routing.entropy * routing.tokens, routing.tokens]
            )

    def figures(self) -> dict[str, float]:
        """By layer and expert, from 1: moe1_load1 is the share of pairs that go to it;
        moe1_entropy, in nats, is the mean entropy of the router's probabilities. Empty without such
        layers or without a token."""
        found = {}
        for i, (counts, entropy) in enumerate(zip(self.counts, self.entropy), 1):
            if isinstance(counts, Tensor) and int(counts.sum()):
                found[f"moe{i}_entropy"] = float(entropy[0] / entropy[1])
                share = counts / counts.sum()
                found |= {f"moe{i}_load{e}": float(part) for e, part in enumerate(share, 1)}
        return found


def flip_rate(one: Routing, other: Routing) -> float:
    """Share of tokens whose set of experts differs between two passes over the same tokens, such as
    without and with noise on the inputs. Tokens without an expert (padding) do not count.

    Raises ValueError if the passes are not of the same tokens or choices.
    """
    if one.experts.shape != other.experts.shape:
        raise ValueError(
            f"flip_rate: choices {tuple(one.experts.shape)} and {tuple(other.experts.shape)} do not fit"
        )
    there = (one.experts < len(one.probability)).any(1)
    changed = (one.experts.sort(1).values != other.experts.sort(1).values).any(1)
    return float((changed & there).sum() / there.sum().clamp_min(1))
