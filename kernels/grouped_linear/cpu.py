"""Plain PyTorch form of the linear layers of many experts.

Shapes: S rows sorted by expert, E experts, D width of the input, F of the output.
"""

from itertools import pairwise

import torch
from torch import Tensor

from . import native
from .naive import activate
from .slopes import activate_backward, sum_of_copies


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """See `grouped_linear`: (S, F)."""
    pairs = x.shape[0] if tokens is None else tokens.shape[0]
    if pairs and not native.refused(x, weight, pairs):
        return native.forward(x, weight, bias, offsets, tokens, activation, gated)
    out, ends = x.new_empty((pairs, weight.shape[1])), offsets.tolist()
    out[ends[-1] :] = 0.0
    # Expert by expert, so that what is gathered or activated is used while it is in the cache.
    for e, (a, b) in enumerate(pairwise(ends)):
        if tokens is None:
            rows = activate(x[a:b], activation, gated)
        else:
            rows = x.index_select(0, tokens[a:b])
        if bias is None:
            torch.mm(rows, weight[e].t(), out=out[a:b])
        else:
            torch.addmm(bias[e], rows, weight[e].t(), out=out[a:b])
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    place: Tensor | None,
    activation: str,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty without one)."""
    pairs = grad.shape[0]
    at_once = pairs > 0 and not native.refused(x, weight, pairs)
    if at_once and not x.is_cpu:
        return native.backward(grad, x, weight, bias, offsets, tokens, place, activation, gated)
    grad, ends = grad.contiguous(), offsets.tolist()
    d_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    d_bias = weight.new_empty((0,) if bias is None else bias.shape)
    # The gradient of all input rows: by one call, expert by expert below, or, where the rows were
    # activated, as part of the gradient of x.
    d_rows = native.product(grad, weight, None, offsets) if at_once else None
    if tokens is not None and d_rows is None:
        d_rows = x.new_empty((grad.shape[0], weight.shape[2]))
        d_rows[ends[-1] :] = 0.0
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format) if tokens is None else None
    if d_x is not None:
        d_x[ends[-1] :] = 0.0
    for e, (a, b) in enumerate(pairwise(ends)):
        g = grad[a:b]
        if bias is not None:
            torch.sum(g, 0, out=d_bias[e])
        if a == b:
            d_weight[e].zero_()
        elif d_x is None:
            assert tokens is not None
            assert d_rows is not None
            torch.mm(g.t(), x.index_select(0, tokens[a:b]), out=d_weight[e])
            if not at_once:
                torch.mm(g, weight[e], out=d_rows[a:b])
        else:
            h = x[a:b]
            gate, up = h.chunk(2, -1) if gated else (h, None)
            activated = activate(gate, activation, False)
            torch.mm(g.t(), activated if up is None else activated * up, out=d_weight[e])
            d_a = g @ weight[e] if d_rows is None else d_rows[a:b]
            activate_backward(d_a, h, activation, gated, d_x[a:b], activated)
    if d_x is None:
        assert place is not None
        assert d_rows is not None
        d_x = sum_of_copies(d_rows, place, x)
    return d_x, d_weight, d_bias
