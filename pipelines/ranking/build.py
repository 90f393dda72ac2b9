"""Models and optimisers by option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...models.click import DIN, PLE, DCNv2, MMoE, SharedBottom, TokenMixer
from ...models.infnet import INFNet
from .logs import layout_of
from .options import RankingOptions

SPARSE_FROM = 100_000  # embeddings from which `--sparse auto` updates only those of a batch


def build(options: RankingOptions, spec: dict[str, Any]) -> nn.Module:
    """The model; `ValueError` for sizes that do not fit together."""
    layout, o = layout_of(spec), options
    shared: dict[str, Any] = {
        "width": o.width, "towers": o.towers, "dropout": o.dropout, "sparse": is_sparse(options, spec),
    }  # fmt: skip
    if o.model in ("infnet", "infnet-hub"):
        return INFNet(
            layout, **shared, blocks=o.layers, proxies=o.proxies, shared=o.shared_tasks, heads=o.heads,
            residual=o.residual, variant="hub" if o.model == "infnet-hub" else "proxy", gated=o.gated, cross=o.cross,
            task_tokens=o.task_tokens,
        )  # fmt: skip
    if o.model == "tokens":
        return TokenMixer(
            layout, **shared, layers=o.layers, heads=o.heads, attention=o.attention, ffn=o.ffn
        )
    if o.model == "mmoe":
        return MMoE(layout, **shared, experts=o.experts, hidden=o.hidden[0])
    if o.model == "ple":
        return PLE(layout, **shared, experts=max(1, o.experts // 2), hidden=o.hidden[0], layers=o.layers)
    if o.model == "din":
        return DIN(layout, **shared, targets=spec["targets"], bottom=o.hidden)
    if o.model == "dcnv2":
        return DCNv2(layout, **shared, layers=o.layers, bottom=o.hidden)
    return SharedBottom(layout, **shared, bottom=o.hidden)


def is_sparse(options: RankingOptions, spec: dict[str, Any]) -> bool:
    """Whether the gradient of the embeddings holds only the rows of a batch."""
    if options.sparse != "auto":
        return options.sparse == "yes"
    large = sum(one["codes"] for one in spec["fields"]) > SPARSE_FROM
    return large and options.devices * options.nodes == 1 and options.clip is None


def optimizer(model: nn.Module, options: RankingOptions) -> torch.optim.Optimizer:
    """Adam or Adagrad for the embeddings, Adam (AdamW with decay) for the rest."""
    table: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    sparse = False
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.sparse:
            sparse = True
    for name, weight in model.named_parameters():
        (table if name.endswith("embedding.table.weight") else rest).append(weight)
    share = (options.embedding_lr or options.lr) / options.lr
    if options.embedding_optimizer == "adagrad":
        first: torch.optim.Optimizer = torch.optim.Adagrad(table, lr=options.lr * share)
    else:
        first = (torch.optim.SparseAdam if sparse else torch.optim.Adam)(table, lr=options.lr * share)
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    second = kind(rest, lr=options.lr, weight_decay=options.weight_decay)
    first.param_groups[0]["share"] = share
    return Both(first, second)


class Both(torch.optim.Optimizer):
    """Two optimisers as one: their groups side by side, their states together."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        groups = [*first.param_groups, *second.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.parts = (first, second)
        self._share()

    def _share(self) -> None:
        """The parts work on the groups and on the state that this optimiser shows."""
        place = 0
        for part in self.parts:
            for index, group in enumerate(part.param_groups):
                own = self.param_groups[place]
                for key, value in group.items():
                    own.setdefault(key, value)
                part.param_groups[index] = own
                place += 1
            for key, value in part.state.items():
                self.state.setdefault(key, value)
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Groups and state anew, shared again with the parts."""
        super().load_state_dict(state_dict)
        for part, group in zip(self.parts, self.param_groups):
            part.param_groups = [group]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """A step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.parts[1].param_groups:
            for weight in group["params"]:
                # What no gradient reaches (a part of an ablation) has a state like all others, which a resumed run
                # looks for.
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        for part in self.parts:
            part.step()
        return loss
