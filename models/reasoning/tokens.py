"""Tokens of a rule and of a scene, and which of them are there.

Shapes: B trials, R nodes, O objects, D width. Inputs are rules (B, R, 5), of each node its
operator, colour and letter of its first object, colour and letter of its second; and scenes (B, O,
4), of each object its colour, letter, row and column. All count from 1 but for rows and columns;
operator 0 and colour 0 mean that there is nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

OPERATORS, COLOURS, LETTERS, SIDE, LEVELS = 9, 10, 26, 10, 4
SWITCH = OPERATORS
MOST_NODES = 22
"""Nodes of a rule with four levels of questions."""


def tree_tables() -> tuple[Tensor, Tensor]:
    """Where the nodes of a rule are in its tree, int64 (22, 5): the level from 0, the branch taken
    at each of three switches on the way (1 true, 2 false, 0 none), and whether it is a switch; and
    bool (22, 22): which nodes are the same or joined by an edge.
    """
    places, joined = [], torch.eye(MOST_NODES, dtype=torch.bool)
    for level in range(LEVELS):
        for is_switch in (0, 1):
            for number in range(2**level):
                if is_switch and level == LEVELS - 1:
                    continue
                branches = [1 + (number >> (level - 1 - k) & 1) for k in range(level)]
                places.append([level, *branches, *([0] * (3 - level)), is_switch])
                here = len(places) - 1
                if is_switch:
                    parent = here - 2**level
                elif level:
                    parent = 3 * 2 ** (level - 1) - 2 + number // 2
                else:
                    continue
                joined[here, parent] = joined[parent, here] = True
    return torch.tensor(places), joined


class TrialTokens(nn.Module):
    """Embeddings of nodes and objects; an answer token stands before the nodes.

    width: D. Colours and letters have the same vectors in rules and in scenes; those of the second
    object of a node go through a matrix of their own.
    """

    places: Tensor
    joined: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.operators = nn.Embedding(OPERATORS + 1, width)
        self.colours = nn.Embedding(COLOURS + 1, width)
        self.letters = nn.Embedding(LETTERS + 1, width)
        self.rows = nn.Embedding(SIDE, width)
        self.columns = nn.Embedding(SIDE, width)
        self.second = nn.Linear(width, width)
        self.levels = nn.Embedding(LEVELS, width)
        self.branches = nn.ModuleList(nn.Embedding(3, width) for _ in range(LEVELS - 1))
        self.answer = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.answer)
        places, joined = tree_tables()
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("joined", joined, persistent=False)

    def forward(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens of answer and nodes (B, 1 + R, D), which are there, bool (B, 1 + R); tokens of
        objects (B, O, D), which are there, bool (B, O).
        """
        operators, first, second = rules[..., 0], rules[..., 1:3], rules[..., 3:5]
        nodes = self.operators(operators) + self._object(first)
        has_second = (second > 0).any(-1)[..., None]
        nodes = nodes + torch.where(has_second, self.second(self._object(second)), 0.0)
        places = self.places[: rules.shape[1]]
        in_tree = self.levels(places[:, 0])
        for depth, branch in enumerate(self.branches):
            in_tree = in_tree + branch(places[:, 1 + depth])
        nodes = nodes + in_tree
        answer = self.answer.expand(rules.shape[0], 1, -1)
        present = operators > 0
        present = torch.cat([torch.ones_like(present[:, :1]), present], 1)
        cells = self.rows(scenes[..., 2]) + self.columns(scenes[..., 3])
        objects = self._object(scenes[..., :2]) + cells
        return torch.cat([answer, nodes], 1), present, objects, scenes[..., 0] > 0

    def _object(self, pair: Tensor) -> Tensor:
        return self.colours(pair[..., 0]) + self.letters(pair[..., 1])

    def tree_mask(self, present: Tensor) -> Tensor:
        """Which of answer and nodes may attend to which, bool (B, 1 + R, 1 + R): a node to itself
        and to those that it is joined to in the tree; the answer to all, and all to the answer.
        """
        nodes = present.shape[1] - 1
        joined = torch.nn.functional.pad(self.joined[:nodes, :nodes], (1, 0, 1, 0), value=True)
        return joined & present[:, None]
