"""Several tasks on shared experts: MMoE, PLE, TaskExpert.

Shapes: ... any leading dimensions (batch, or batch and tokens), D width, S tasks, E experts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .experts import Experts


class MultiGate(nn.Module):
    """f_s(x) = sum_e g_se(x) expert_e(x), g_s = softmax(W_s x): one gate per task (MMoE, Ma et al.,
    KDD 2018).

    width: D; tasks: S; experts: E; hidden: width of an expert, by default 4 D; activation: of the
    experts.
    """

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
        """(..., D) -> (..., S, E): the share of each expert in the features of each task."""
        return torch.einsum("...d,sed->...se", x, self.gates).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., S, D)."""
        return torch.einsum("...se,...ed->...sd", self.shares(x), self.experts.all_outputs(x))


class ExtractionLayer(nn.Module):
    """A layer of PLE: each task has experts, and gates these and the shared ones, never those of
    another task.

    Progressive layered extraction (Tang et al., RecSys 2020, equations 1-7). width: D; tasks: S;
    per_task: experts of each task; shared: experts of all tasks; hidden, activation: of an expert;
    last: this is the top layer, which has no shared output.
    """

    def __init__(
        self,
        width: int,
        tasks: int,
        *,
        per_task: int = 2,
        shared: int = 2,
        hidden: int | None = None,
        activation: str = "relu",
        last: bool = False,
    ) -> None:
        super().__init__()
        if min(tasks, per_task, shared) < 1:
            raise ValueError(
                f"ExtractionLayer: needs tasks and experts, got {tasks}, {per_task}, {shared}"
            )
        self.special = nn.ModuleList(
            Experts(width, per_task, hidden, activation=activation) for _ in range(tasks)
        )
        self.common = Experts(width, shared, hidden, activation=activation)
        self.gates = nn.ModuleList(
            nn.Linear(width, per_task + shared, bias=False) for _ in range(tasks)
        )
        self.gate = None if last else nn.Linear(width, tasks * per_task + shared, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (..., S + 1, D), the last of them shared -> (..., S + 1, D), or (..., S, D) from
        the last layer.
        """
        *task_inputs, shared_input = inputs.unbind(-2)
        common = self.common.all_outputs(shared_input)
        special = [experts.all_outputs(x) for experts, x in zip(self.special, task_inputs)]  # type: ignore[operator]
        features = [
            _gated(gate(x), torch.cat([outputs, common], -2))
            for gate, x, outputs in zip(self.gates, task_inputs, special)
        ]
        if self.gate is not None:
            features.append(_gated(self.gate(shared_input), torch.cat([*special, common], -2)))
        return torch.stack(features, -2)


def _gated(scores: Tensor, outputs: Tensor) -> Tensor:
    """Sum of the outputs (..., E, D), weighted by the softmax of the scores (..., E)."""
    return torch.einsum("...e,...ed->...d", scores.softmax(-1), outputs)


class LayeredExtraction(nn.Module):
    """PLE: `depth` extraction layers over one input; options as in `ExtractionLayer`."""

    def __init__(self, width: int, tasks: int, *, depth: int = 2, **options: Any) -> None:
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

        g_s = softmax(W_s x + U_s m_s)  over E + 1
        f_s = sum_e g_se expert_e(x) + g_s,E+1 read(m_s)
        m_s' = m_s + write(f_s)

    TaskExpert (Ye and Xu, ICCV 2023, arXiv 2307.15324). Readings, because the text at hand does not
    say sizes and the update of the memory: experts are low-rank 1 x 1 networks (`rank`), read and
    write are linear layers that tasks share, the memory starts at 0 and grows by addition, the gate
    sees token and memory. What a task writes reaches no other task.

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
        features = torch.einsum("...se,...ed->...sd", share[..., :-1], self.experts.all_outputs(x))
        features = features + share[..., -1:] * self.read(memory)
        return features, memory + self.write(features)
