"""Where the copies of each token go: pairs of token and expert, sorted by expert.

Shapes: T tokens, K experts of a token, S = T K pairs, E experts.

Everything stays on the device: the host reads no count, so that it never waits for a GPU. The sort
is stable, so the tokens of an expert keep their order and two runs are equal bit by bit."""

from typing import NamedTuple

import torch
from torch import Tensor


class Dispatch(NamedTuple):
    """Pairs sorted by expert. Expert e has the rows from offsets[e] to offsets[e + 1]; the rows
    after the last expert's belong to none.
    """

    order: Tensor  # int64 (S,): the pair t K + k that a row holds
    place: Tensor  # int64 (T, K): the row that holds a pair
    offsets: Tensor  # int32 (E + 1,)

    @property
    def tokens(self) -> Tensor:
        """int64 (S,): the token that a row holds."""
        return self.order // max(1, self.place.shape[1])


def dispatch(chosen: Tensor, experts: int) -> Dispatch:
    """Sort pairs by expert. chosen: int64 (T, K), from 0 to E; E = no expert (dropped or padding).

    Raises ValueError if shape or type do not fit and, on the CPU, for other numbers of experts.

    >>> dispatch(torch.tensor([[1], [0], [1]]), 2).order.tolist()
    [1, 0, 2]
    """
    if chosen.ndim != 2 or experts < 1:
        raise ValueError(
            f"dispatch: needs (tokens, choices) and an expert, "
            f"got {tuple(chosen.shape)} and {experts}"
        )
    if chosen.dtype != torch.int64:
        raise ValueError(f"dispatch: choices must be int64, got {chosen.dtype}")
    # Not where there are no numbers yet: fake tensors, and while a program is written.
    real = type(chosen) is Tensor and chosen.is_cpu and not torch.compiler.is_compiling()
    if real and chosen.numel() and not 0 <= int(chosen.amin()) <= int(chosen.amax()) <= experts:
        raise ValueError(f"dispatch: choices must be from 0 to {experts}, which is no expert")
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    rows = torch.arange(flat.shape[0], device=flat.device)
    place = torch.empty_like(flat).scatter_(0, order, rows).view(chosen.shape)
    starts = torch.arange(experts + 1, device=flat.device)
    return Dispatch(order, place, torch.searchsorted(flat[order], starts).to(torch.int32))
