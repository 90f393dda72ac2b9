"""Models and optimisers by option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...models.clicks.click import DIN, PLE, DCNv2, Embedding, MMoE, SharedBottom, TokenMixer
from ...models.clicks.infnet import INFNet
from .data import layout_of
from .options import RankingOptions

SPARSE_FROM = 100_000  # embeddings from which `--sparse auto` updates only those of a batch


def build(options: RankingOptions, spec: dict[str, Any]) -> nn.Module:
    """The model; `ValueError` for sizes that do not fit together."""
    layout, o = layout_of(spec), options
    shared: dict[str, Any] = {
        "width": o.width,
        "towers": o.towers,
        "dropout": o.dropout,
        "sparse": is_sparse(options, spec),
    }
    if o.model in ("infnet", "infnet-hub"):
        return INFNet(
            layout,
            **shared,
            blocks=o.layers,
            proxies=o.proxies,
            shared=o.shared_tasks,
            heads=o.heads,
            residual=o.residual,
            variant="hub" if o.model == "infnet-hub" else "proxy",
            gated=o.gated,
            cross=o.cross,
            task_tokens=o.task_tokens,
        )
    if o.model == "tokens":
        return TokenMixer(
            layout, **shared, layers=o.layers, heads=o.heads, attention=o.attention, ffn=o.ffn
        )
    if o.model == "mmoe":
        return MMoE(layout, **shared, experts=o.experts, hidden=o.hidden[0])
    if o.model == "ple":
        return PLE(
            layout, **shared, experts=max(1, o.experts // 2), hidden=o.hidden[0], layers=o.layers
        )
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
    embedding = embedding_of(model).table
    table = [embedding.weight]
    rest = [weight for weight in model.parameters() if weight is not embedding.weight]
    share = (options.embedding_lr or options.lr) / options.lr
    if options.embedding_optimizer == "adagrad":
        first: torch.optim.Optimizer = torch.optim.Adagrad(table, lr=options.lr * share)
    else:
        first = (torch.optim.SparseAdam if embedding.sparse else torch.optim.Adam)(
            table, lr=options.lr * share
        )
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    second = kind(rest, lr=options.lr, weight_decay=options.weight_decay)
    first.param_groups[0]["share"] = share
    return Both(first, second)


def embedding_of(model: nn.Module) -> Embedding:
    """The table of all fields, also in a model that Fabric has wrapped."""
    return next(one for one in model.modules() if isinstance(one, Embedding))


class Both(torch.optim.Optimizer):
    """Two optimisers as one: their groups side by side, their states together."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        for part in self.parts:
            self.state.update(part.state)  # Adagrad's stands from the start
        self._share()
        self._begin()

    def _begin(self) -> None:
        """Give every weight the state of step 0. A resumed run looks for all of them; torch would
        make them by dense gradients, which a sparse table does not take, and not at all where one
        optimiser has some from the start."""
        rates = [group["lr"] for group in self.param_groups]
        for part, group in zip(self.parts, self.param_groups):
            group["lr"] = 0.0
            layout = torch.sparse_coo if isinstance(part, torch.optim.SparseAdam) else torch.strided
            for weight in group["params"]:
                if weight not in self.state:
                    weight.grad = torch.zeros_like(weight, layout=layout)
        self.step()
        for state in self.state.values():
            state["step"] = state["step"] * 0
        for group, rate in zip(self.param_groups, rates):
            group["lr"] = rate
        self.zero_grad(set_to_none=True)

    def _share(self) -> None:
        """The parts, of one group each, work on the groups and on the state that this optimiser
        shows.
        """
        for part, group in zip(self.parts, self.param_groups):
            part.param_groups = [group]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Groups and state anew, shared again with the parts."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """A step of each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss
