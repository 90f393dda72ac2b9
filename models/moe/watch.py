"""How the experts of a model are used."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .layer import MoE
from .router import Routing


class RoutingWatch:
    """Counts of all forward passes inside a block: `with RoutingWatch(model) as watch: …`, then
    `watch.figures()`.
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
        """By layer and expert, numbered from 1: moe1_load1 is the expert's share of all (token,
        choice) pairs; moe1_entropy is the mean entropy of the router's probabilities, in nats.

        Empty without such layers or without a token.
        """
        figures = {}
        for i, (counts, entropy) in enumerate(zip(self.counts, self.entropy), 1):
            if isinstance(counts, Tensor) and int(counts.sum()):
                figures[f"moe{i}_entropy"] = float(entropy[0] / entropy[1])
                share = counts / counts.sum()
                figures |= {f"moe{i}_load{e}": float(part) for e, part in enumerate(share, 1)}
        return figures


def flip_rate(first: Routing, second: Routing) -> float:
    """Share of tokens whose set of experts differs between two passes over the same tokens, for
    example without and with noise on the inputs. Tokens without an expert (padding) do not count.

    Raises ValueError if the numbers of tokens or choices differ.
    """
    before, after = first.experts, second.experts
    if before.shape != after.shape:
        raise ValueError(
            f"flip_rate: choices {tuple(before.shape)} and {tuple(after.shape)} do not fit"
        )
    present = (before < len(first.probability)).any(1)
    changed = (before.sort(1).values != after.sort(1).values).any(1)
    return float((changed & present).sum() / present.sum().clamp_min(1))
