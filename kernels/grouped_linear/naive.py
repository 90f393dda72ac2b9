"""The formula of the linear layers of many experts; exported programs hold it.

Shapes: S rows sorted by expert, E experts, D width of the input, F of the output.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..segments import segment_of

ACTIVATIONS = ("none", "relu", "gelu", "quick_gelu", "silu")


def grouped_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """(S, F). Every row passes through every expert: a graph has no sizes that data decide."""
    rows = input_rows(x, tokens, activation, gated)
    expert = segment_of(offsets, rows.shape[0])[:, None]
    out = rows.new_zeros((rows.shape[0], weight.shape[1]))
    for e in range(weight.shape[0]):
        through_e = F.linear(rows, weight[e], None if bias is None else bias[e])
        out = torch.where(expert == e, through_e, out)
    return out


def input_rows(x: Tensor, tokens: Tensor | None, activation: str, gated: bool) -> Tensor:
    """The rows that the experts read: gathered or activated, (S, D)."""
    return activate(x, activation, gated) if tokens is None else x.index_select(0, tokens)


def activate(h: Tensor, activation: str, gated: bool) -> Tensor:
    """act(h), or act(gate) * up of the two halves of h."""
    h, up = h.chunk(2, -1) if gated else (h, None)
    match activation:
        case "relu":
            h = F.relu(h)
        case "gelu":
            h = F.gelu(h)
        case "quick_gelu":
            h = h * torch.sigmoid(1.702 * h)
        case "silu":
            h = F.silu(h)
    return h if up is None else h * up
