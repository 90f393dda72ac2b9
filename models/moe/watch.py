"""How the experts of a model are used."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..recomputation import is_recomputation
from .layer import MoE
from .router import Routing


class RoutingWatch:
    """Counts of all forward passes inside a block: `with RoutingWatch(model) as watch: …`, then
    `watch.figures()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [part for part in model.modules() if isinstance(part, MoE)]
        # By layer: counts (E,) of pairs, and [sum of entropies, number of tokens].
        self.totals: list[tuple[Tensor, Tensor] | None] = [None for _ in self.layers]
        self.hooks: list[RemovableHandle] = []

    def __enter__(self) -> "RoutingWatch":
        for i, layer in enumerate(self.layers):
            self.hooks.append(layer.register_forward_hook(partial(self._add, i)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _add(self, i: int, layer: nn.Module, *_: object) -> None:
        routing = layer.routing
        if isinstance(routing, Routing) and not is_recomputation():
            counts = routing.counts.sum(0)
            entropy = torch.stack([routing.entropy * routing.tokens, routing.tokens])
            past = self.totals[i]
            self.totals[i] = (
                (counts, entropy) if past is None else (past[0] + counts, past[1] + entropy)
            )

    def figures(self) -> dict[str, float]:
        """By layer and expert, numbered from 1: moe1_load1 is the expert's share of all (token,
        choice) pairs; moe1_entropy is the mean entropy of the router's probabilities, in nats.

        Empty without such layers or without a token.
        """
        figures = {}
        for i, total in enumerate(self.totals, 1):
            if total is not None and int(total[0].sum()):
                counts, entropy = total
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
