"""The optimiser that most pipelines take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from ..options import TrainOptions


def adam(
    weights: Iterable[nn.Parameter] | Sequence[Mapping[str, object]], options: TrainOptions
) -> torch.optim.Optimizer:
    """Adam, or AdamW with weight decay, of weights or of groups of them."""
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    return kind(weights, lr=options.lr, weight_decay=options.weight_decay)  # pyright: ignore
