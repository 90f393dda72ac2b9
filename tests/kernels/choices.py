"""Choices of experts that the tests of operators for experts share."""

import torch
from torch import Tensor


def random_choices(tokens: int, experts: int, active: int, dropped: bool = False) -> Tensor:
    """int64 (tokens, active), without repetition; dropped: some are E, no expert, among them all
    of the first third of the tokens and all of expert 1.
    """
    torch.manual_seed(1)
    chosen = torch.rand(tokens, experts).argsort(1)[:, :active]
    if dropped:
        chosen = torch.where(chosen == 1, experts, chosen)
        chosen[: tokens // 3] = experts
    return chosen
