"""Several tasks on shared experts: MMoE, PLE, TaskExpert.

Shapes: ... any leading dimensions (batch, or batch and tokens), D width, S tasks, E experts.
"""

import torch
from torch import Tensor, nn

from .experts import Experts


class MultiGate(nn.Module):
    """f_s(x) = sum_e g_se(x) expert_e(x), g_s = softmax(W_s x): one gate a task (MMoE, Ma et al.,
    KDD 2018).

    width: D; tasks: S; experts: E; hidden: of an expert, by default 4 D; activation: of the
    experts."""

    def __init__(
        self,
        width: int,
        tasks: int,
        *,
        experts: int = 4,
        hidden: int | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.experts = Experts(width, experts, hidden, activation=activation)
        self.gates = nn.Parameter(
            torch.empty(tasks, experts, width).uniform_(-(width**-0.5), width**-0.5)
        )

    def shares(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., S, E): how much each task takes of each expert."""
        return torch.einsum("...d,sed->...se", x, self.gates).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., S, D)."""
        return torch.einsum("...se,...ed->...sd", self.shares(x), self.experts.every(x))


class ExtractionLayer(nn.Module):
    """A layer of PLE: each task gates its own and the shared experts, and never those of another
    task.

    Progressive layered extraction (Tang et al., RecSys 2020, equations 1-7). own, common: experts
    of a task and of all. last: the top layer, which hands no shared input on."""

    def __init__(
        self,
        width: int,
        tasks: int,
        *,
        own: int = 2,
        common: int = 2,
        hidden: int | None = None,
        activation: str = "relu",
        last: bool = False,
    ) -> None:
        super().__init__()
        if min(tasks, own, common) < 1:
            raise ValueError(
                f"ExtractionLayer: needs tasks and experts, got {tasks}, {own}, {common}"
            )
        self.tasks, self.own, self.last = tasks, own, last
        self.special = nn.ModuleList(
            Experts(width, own, hidden, activation=activation) for _ in range(tasks)
        )
        self.common = Experts(width, common, hidden, activation=activation)
        self.gates = nn.ModuleList(nn.Linear(width, own + common, bias=False) for _ in range(tasks))
        self.gate = None if last else nn.Linear(width, tasks * own + common, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (..., S + 1, D), the last one shared -> (..., S + 1, D), or (..., S, D) from the
        last layer.
        """
        *each, shared = inputs.unbind(-2)
        common = self.common.every(shared)
        special = [experts.every(x) for experts, x in zip(self.special, each)]  # type: ignore[operator]
        found = [
            torch.einsum("...e,...ed->...d", gate(x).softmax(-1), torch.cat([mine, common], -2))
            for gate, x, mine in zip(self.gates, each, special)
        ]
        if self.gate is not None:
            every = torch.cat([*special, common], -2)
            found.append(torch.einsum("...e,...ed->...d", self.gate(shared).softmax(-1), every))
        return torch.stack(found, -2)


class LayeredExtraction(nn.Module):
    """PLE: `depth` extraction layers over one input; options as in `ExtractionLayer`. (..., D) ->
    (..., S, D).
    """

    def __init__(self, width: int, tasks: int, *, depth: int = 2, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        if depth < 1:
            raise ValueError(f"LayeredExtraction: needs a layer, got depth {depth}")
        self.tasks = tasks
        self.layers = nn.ModuleList(
            ExtractionLayer(width, tasks, last=i == depth - 1, **options) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., S, D)."""
        inputs = x[..., None, :].expand(*x.shape[:-1], self.tasks + 1, -1)
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


class TaskExpertLayer(nn.Module):
    """Experts of a feature map, gated by each task for each token, with a memory of each task as
    one more expert.

        g_s = softmax(W_s x + U_s m_s)  over E + 1,   f_s = sum_e g_se expert_e(x) + g_s,E+1 read(m_s)
        m_s' = m_s + write(f_s)

    TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324). Readings, since sizes and the update of the
    memory could not be read: experts are low-rank 1 x 1 networks (`rank`), read and write are
    linear layers that tasks share, the memory starts at 0 and grows by addition, the gate sees
    token and memory. What a task writes reaches no other task.

    width: D; tasks: S; experts: E; rank: inner width of an expert, by default D / 4.
    """

    def __init__(
        self, width: int, tasks: int, *, experts: int = 5, rank: int | None = None
    ) -> None:
        super().__init__()
        rank = max(1, width // 4) if rank is None else rank
        self.experts = Experts(width, experts, rank)
        bound = width**-0.5
        self.gates = nn.Parameter(torch.empty(tasks, experts + 1, width).uniform_(-bound, bound))
        self.recall = nn.Parameter(torch.zeros(tasks, experts + 1, width))
        self.read = nn.Linear(width, width)
        self.write = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: (..., D); memory: (..., S, D), by default 0 -> features (..., S, D), memory (..., S,
        D).
        """
        if memory is None:
            memory = x.new_zeros(*x.shape[:-1], len(self.gates), x.shape[-1])
        scores = torch.einsum("...d,sed->...se", x, self.gates) + torch.einsum(
            "...sd,sed->...se", memory, self.recall
        )
        share = scores.softmax(-1)
        features = torch.einsum("...se,...ed->...sd", share[..., :-1], self.experts.every(x))
        features = features + share[..., -1:] * self.read(memory)
        return features, memory + self.write(features)
