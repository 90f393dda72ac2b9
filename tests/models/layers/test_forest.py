"""Trees as tensors against the libraries that fitted them."""

import lightgbm
import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from headwise.models.layers.forest import Forest, boosted_forest, random_forest


def test_a_forest_is_lightgbm_s() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 5)).astype(np.float32).round(1)  # values on thresholds, too
    y = (x[:, 0] * x[:, 1] + 0.3 * generator.normal(size=400) > 0).astype(int)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_leaves": 7, "num_threads": 1},
        lightgbm.Dataset(x, y),
        30,
    )
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    forest = boosted_forest(trees)
    raw = booster.predict(x, raw_score=True)
    np.testing.assert_allclose(forest(torch.from_numpy(x))[:, 0].numpy(), raw, rtol=1e-5, atol=1e-6)
    assert forest.sizes["trees"] == 30
    assert forest.sizes["leaves"] == sum(tree.num_leaves for tree in [_Count(t) for t in trees])


class _Count:
    """Leaves of a tree of LightGBM."""

    def __init__(self, tree: dict) -> None:
        children = [tree[side] for side in ("left_child", "right_child") if side in tree]
        self.num_leaves = sum(_Count(child).num_leaves for child in children) or 1


def test_a_forest_without_trees_is_a_constant() -> None:
    forest = boosted_forest([], -0.7)
    assert forest(torch.zeros(2, 3)).flatten().tolist() == pytest.approx([-0.7, -0.7])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_random_forest_is_scikit_learn_s(classes: int) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4)).astype(np.float32).round(1)
    y = (x[:, 0] + x[:, 1] > 0).astype(int) * (classes - 1)  # of three classes one is missing
    fitted = RandomForestClassifier(20, max_features=2, random_state=0).fit(x, y)
    forest = random_forest(fitted, classes)
    probability = forest(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        probability[:, fitted.classes_], fitted.predict_proba(x), rtol=1e-5, atol=1e-6
    )
    assert probability.sum(1) == pytest.approx(np.ones(300), abs=1e-5)
    again = Forest(**forest.sizes)
    again.load_state_dict(forest.state_dict())
    assert torch.equal(again(torch.from_numpy(x)), forest(torch.from_numpy(x)))


def test_a_forest_is_exported() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 4)).astype(np.float32)
    forest = random_forest(RandomForestClassifier(3, random_state=0).fit(x, x[:, 0] > 0), 2)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(forest, (torch.from_numpy(x),), dynamic_shapes=({0: rows},))
    assert torch.equal(program.module()(torch.from_numpy(x[:7])), forest(torch.from_numpy(x[:7])))
