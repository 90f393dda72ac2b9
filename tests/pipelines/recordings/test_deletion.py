"""Deletion against a model whose answer is known: it reads one token of each recording."""

import numpy as np
import pytest
import torch

from headwise.pipelines.recordings.deletion import check_deletion, importance_factors, shares_of


class ReadsOneToken(torch.nn.Module):
    """Logits of class 1 are the sum of the first feature of the tokens that are there, which is 4
    in the token that matters and 0 in the others.
    """

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right, self.mean = right, torch.zeros(1, 2)

    def importance(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weight = tokens[..., 0] if self.right else -tokens[..., 0]
        return (weight * mask).softmax(1) * mask

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        total = (tokens[..., 0] * mask).sum(1)
        return torch.stack([torch.zeros_like(total), total], 1)


class Part:
    """Recordings of 10 and of 5 tokens, of which one token matters."""

    def __init__(self) -> None:
        self.groups = np.repeat(np.arange(4), 5)

    def __len__(self) -> int:
        return 20

    def __getitems__(self, rows):
        tokens, mask = torch.zeros(len(rows), 10, 2), torch.ones(len(rows), 10, dtype=torch.bool)
        for k, row in enumerate(rows):
            mask[k, (5 if row % 2 else 10) :] = False
            tokens[k, row % 5, 0] = 4.0
        labels = torch.ones(len(rows), dtype=torch.int64)
        return {"tokens": tokens, "mask": mask, "labels": labels}


def log_p(total: float) -> float:
    return float(-np.log1p(np.exp(-total)))


@pytest.mark.parametrize("right", [True, False])
def test_deleting_what_matters_first_loses_the_class_at_once(right) -> None:
    found = check_deletion(ReadsOneToken(right), Part(), torch.device("cpu"), draws=40)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.intact, log_p(4))
    first, last = ("highest first", "lowest first") if right else ("lowest first", "highest first")
    np.testing.assert_allclose(found.curves[first], log_p(0))
    np.testing.assert_allclose(found.curves[last][:, :-1], log_p(4))
    chance = [log_p(4) + share * (log_p(0) - log_p(4)) for share in (0.1, 0.2, 0.4, 0.6, 0.8)]
    assert found.curves["random"][::2].mean(0) == pytest.approx(chance, abs=0.06)
    assert (found.gains > 0).all() == right
    assert (" sooner than by chance" in found.sentence) == right
    assert ("LATER" in found.sentence) != right


def test_importance_is_that_of_the_tokens_that_are_there() -> None:
    found = check_deletion(ReadsOneToken(True), Part(), torch.device("cpu"), draws=1)  # type: ignore[arg-type]
    assert [len(values) for values in found.importance[:2]] == [10, 5]
    assert all(values.sum() == pytest.approx(1) for values in found.importance)
    assert [int(values.argmax()) for values in found.importance[:6]] == [0, 1, 2, 3, 4, 0]


def test_factors_go_from_0_to_1_and_shares_of_layers_leave_one() -> None:
    factors = importance_factors([np.array([0.2, 0.5, 0.3]), np.array([0.2, 0.3, 0.5])], None)
    np.testing.assert_allclose(factors, [0, 1, 1])
    stretched = importance_factors([np.linspace(0, 1, 40) / 20, np.linspace(0, 1, 10) / 5], 5)
    np.testing.assert_allclose(np.diff(stretched), 0.25, atol=0.02)
    assert shares_of(4) == [0.25, 0.5, 0.75]
    assert shares_of(1)[0] == 0.1
