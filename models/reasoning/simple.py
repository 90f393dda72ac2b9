"""Answers that look at no scene, and the blend of such a model with a network.

Shapes: B trials, R nodes, O objects; inputs as in `tokens`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.blend import BlendedClassifier
from .networks import ANSWERS
from .tokens import MOST_NODES, OPERATORS, SWITCH, tree_tables


class ConstantAnswer(nn.Module):
    """The shares of the answers, whatever is asked. logits: (138,)."""

    logits: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(ANSWERS))

    def forward(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """Logits (B, 138); the inputs only say how many there are."""
        # Both inputs take part, so that an exported graph has them.
        zero = (rules[:, :1, 0] + scenes[:, :1, 0]) * 0
        return self.logits + zero.to(self.logits.dtype)


class ConstantByForm(nn.Module):
    """The answers of a form of question: the mean of the answers of the operators on which a rule
    may end, each weighted by the chance that the rule comes to it.

    shares: (10, 138), the shares of the answers of each operator, from 1; those of conditions say
    how often they are true. For a rule of one node it is the answers of its operator, for a tree
    the mixture of the answers of its ends.
    """

    shares: Tensor
    ways: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((OPERATORS + 1, ANSWERS), 1 / ANSWERS))
        self.register_buffer("ways", _ways(), persistent=False)

    def forward(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """Logarithms of probabilities (B, 138)."""
        shares = self.shares[rules[..., 0]]  # (B, R, 138)
        true = shares[..., 0] / (shares[..., 0] + shares[..., 1]).clamp_min(1e-9)
        ways = self.ways[: rules.shape[1], : rules.shape[1]]
        # A node is reached where each condition above it gives the branch that leads to it.
        taken = torch.where(ways == 1, true[:, None], torch.where(ways == 2, 1 - true[:, None], 1))
        operators = rules[..., 0]
        ends = (operators > 0) & (operators < SWITCH) & ~self._has_branches(operators)
        chance = taken.prod(-1) * ends
        mixed = (chance[..., None] * shares).sum(1)
        nothing = scenes[:, :1, 0].to(mixed.dtype) * 0
        return mixed.clamp_min(1e-9).log() + nothing

    def _has_branches(self, operators: Tensor) -> Tensor:
        """Whether nodes stand below each node, (B, R): a longer rule has nodes at later places."""
        count = (operators > 0).sum(1, keepdim=True)
        place = torch.arange(operators.shape[1], device=operators.device)
        first_end = torch.where(
            count == 1, 0, torch.where(count == 4, 2, torch.where(count == 10, 6, 14))
        )
        return place < first_end


def _ways() -> Tensor:
    """Of each node (22) and each condition above it (22): 1 where the node is in its branch for
    true, 2 in that for false, 0 elsewhere.
    """
    places, _ = tree_tables()
    ways = torch.zeros(MOST_NODES, MOST_NODES, dtype=torch.long)
    for node, (level, *branches, _) in enumerate(places.tolist()):
        number = 0
        for above in range(level):
            ways[node, 2 ** (above + 1) - 2 + number] = branches[above]
            number = 2 * number + branches[above] - 1
    return ways


class BlendedAnswers(BlendedClassifier):
    """The mean of the probabilities of a network and of a model that looks at no scene."""

    def forward(self, rules: Tensor, scenes: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Logits (B, 138)."""
        return self.blend(self.model(rules, scenes), self.simple(rules, scenes))
