"""Two optimisers as one: sparse or adaptive steps for the embeddings, Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...models.clicks.click import Embedding
from ..engine.training.optimizer import adam
from .options import RankingOptions


def make_optimizer(model: nn.Module, options: RankingOptions) -> torch.optim.Optimizer:
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
    second = adam(rest, options)
    first.param_groups[0]["share"] = share
    return JointOptimizer(first, second)


def embedding_of(model: nn.Module) -> Embedding:
    """The table of all fields, also in a model that Fabric has wrapped."""
    return next(module for module in model.modules() if isinstance(module, Embedding))


class JointOptimizer(torch.optim.Optimizer):
    """Two optimisers as one, with the groups and the states of both."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        for part in self.parts:
            self.state.update(part.state)  # Adagrad has one from the start
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

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Load groups and state, and share them with the parts again."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss
