"""Ensembles of decision trees as tensors, so that they are exported and stored like any model.

Shapes: B rows, P features, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Required, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier


class ForestSizes(TypedDict):
    """What is needed to build a forest without its tensors."""

    nodes: int
    leaves: int
    trees: int
    depth: int
    outputs: int


class BoostedTree(TypedDict, total=False):
    """A node of a tree as LightGBM describes it: a leaf, or a decision with two children."""

    leaf_value: float
    split_feature: Required[int]
    threshold: Required[float]
    left_child: Required[BoostedTree]
    right_child: Required[BoostedTree]


class Forest(nn.Module):
    """The sum over trees of the values of the leaves that a row falls into: (B, P) -> (B, K).

    feature, threshold, left, right: of each inner node of all trees, one after the other; a row
    goes left where its feature is at most the threshold; a negative child is the leaf -child - 1.
    root: of each tree; values (leaves, K); depth: most decisions on a way.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    root: Tensor
    values: Tensor

    def __init__(self, nodes: int, leaves: int, trees: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.depth = depth
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes, dtype=torch.float64))
        self.register_buffer("root", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("values", torch.zeros(leaves, outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """float32 (B, K)."""
        place = self.root.expand(x.shape[0], -1)
        x = x.double()
        for _ in range(self.depth):
            node = place.clamp(min=0)
            goes_left = x.gather(1, self.feature[node]) <= self.threshold[node]
            child = torch.where(goes_left, self.left[node], self.right[node])
            place = torch.where(place < 0, place, child)
        return self.values[-place - 1].sum(1).float()

    @property
    def sizes(self) -> ForestSizes:
        """What is needed to build it without its tensors."""
        return ForestSizes(
            nodes=len(self.feature),
            leaves=len(self.values),
            trees=len(self.root),
            depth=self.depth,
            outputs=self.values.shape[1],
        )


class _Nodes:
    """Nodes and leaves of trees that are joined."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.threshold: list[float] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.roots: list[int] = []
        self.values: list[Sequence[float]] = []
        self.depth = 0

    def leaf(self, values: Sequence[float]) -> int:
        self.values.append(values)
        return -len(self.values)

    def inner(self, feature: int, threshold: float, depth: int) -> int:
        self.depth = max(self.depth, depth + 1)
        self.feature.append(feature)
        self.threshold.append(threshold)
        self.left.append(0)
        self.right.append(0)
        return len(self.feature) - 1

    def forest(self) -> Forest:
        nodes = max(len(self.feature), 1)
        forest = Forest(nodes, len(self.values), len(self.roots), self.depth, len(self.values[0]))
        for name in ("feature", "left", "right", "threshold"):
            numbers = torch.tensor(getattr(self, name), dtype=getattr(forest, name).dtype)
            getattr(forest, name)[: len(numbers)] = numbers
        forest.root[:] = torch.tensor(self.roots)
        forest.values[:] = torch.tensor(np.array(self.values), dtype=torch.float64)
        return forest


def boosted_forest(trees: Sequence[BoostedTree], constant: float = 0.0) -> Forest:
    """The trees that `Booster.dump_model` of LightGBM describes; its sum is the raw score.

    constant: the value of a forest without trees.
    """
    nodes = _Nodes()

    def place_of(tree: BoostedTree, depth: int) -> int:
        if "leaf_value" in tree:
            return nodes.leaf([tree["leaf_value"]])
        node = nodes.inner(tree["split_feature"], tree["threshold"], depth)
        nodes.left[node] = place_of(tree["left_child"], depth + 1)
        nodes.right[node] = place_of(tree["right_child"], depth + 1)
        return node

    nodes.roots = [place_of(tree, 0) for tree in trees] or [nodes.leaf([constant])]
    return nodes.forest()


def random_forest(fitted: RandomForestClassifier, classes: int) -> Forest:
    """A random forest of scikit-learn, whose sum over trees is the probability of each class.

    classes: K; a class that the training lacked has the probability 0.
    """
    nodes, count = _Nodes(), len(fitted.estimators_)
    for estimator in fitted.estimators_:
        tree = estimator.tree_
        shares = np.zeros((tree.node_count, classes))
        shares[:, np.asarray(fitted.classes_, int)] = tree.value[:, 0] / tree.value[:, 0].sum(
            1, keepdims=True
        )

        def place_of(node: int, depth: int, tree=tree, shares=shares) -> int:
            if tree.children_left[node] < 0:
                return nodes.leaf((shares[node] / count).tolist())
            place = nodes.inner(int(tree.feature[node]), float(tree.threshold[node]), depth)
            nodes.left[place] = place_of(int(tree.children_left[node]), depth + 1)
            nodes.right[place] = place_of(int(tree.children_right[node]), depth + 1)
            return place

        nodes.roots.append(place_of(0, 0))
    return nodes.forest()
