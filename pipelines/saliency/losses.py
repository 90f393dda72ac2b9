"""Loss: cross-entropy and IoU of the four supervised maps.

Shapes: B scenes, Y x X pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.training.wrapped import call_method
from .augment import augment

WEIGHTS = (0.8, 0.6, 0.4, 0.2)  # of S_1 to S_4


def loss(model: nn.Module, batch: dict[str, Tensor], options: Any) -> Tensor:
    """sum_i w_i (BCE(S_i, G) + IoU(S_i, G)) (arXiv 2501.01648, equations 31 to 33), BCE as a mean
    over pixels.
    """
    image, depth, mask = augment(batch, options)
    found = call_method(model, "scales", image, depth)
    total = torch.stack([w * saliency_loss(x, mask) for w, x in zip(WEIGHTS, found)]).sum()
    plain: Any = getattr(model, "module", model)
    zero = plain.frozen_sum()
    return total if zero is None else total + zero


def saliency_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy, and 1 - sum(S G) / sum(S + G - S G) of each scene; both (B, 1, Y,
    X).
    """
    logits = logits.float()
    s = logits.sigmoid()
    both = (s * mask).sum((1, 2, 3))
    either = (s + mask - s * mask).sum((1, 2, 3)).clamp_min(1e-6)
    return F.binary_cross_entropy_with_logits(logits, mask) + (1 - both / either).mean()
