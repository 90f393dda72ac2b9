"""Attention by labels: each label weighs the tokens of a text itself and reads its logit from them.

Shapes: B batch, N tokens, L labels, d width.

    s_blt = scale q_l . h_bt,  lse_bl = log sum_t exp s_blt,  a_blt = exp(s_blt - lse_bl)
    u_blt = w_l . h_bt,  logit_bl = sum_t a_blt u_blt + b_l
    with g = d logit:  d u_blt = g_bl a_blt,  d s_blt = g_bl a_blt (u_blt - logit_bl + b_l),
    d q_l = scale sum_bt d s_blt h_bt,  d w_l = sum_bt d u_blt h_bt,
    d h_bt = sum_l (scale d s_blt q_l + d u_blt w_l)

Written as it reads, sum_t a h is a vector of width d for each label, B L d numbers, and autograd
holds scores and weights, 2 B L N more. Taking w_l into the sum leaves one number a label and token,
and an online softmax leaves not even that: inputs and two numbers a label are stored, and weights
are formed again in the backward pass.

Work: 4 B N L d flops forward, 12 B N L d backward (4 of them to form scores and evidence again).
The terms a_blt u_blt sum up to the logit, so they are an exact explanation of it;
`label_contributions` gives them out, which needs B L N numbers. On the CPU tiles of tokens and
labels stay in the cache. On the GPU a program owns some labels of a sample and walks its tokens;
backward, a kernel writes the slopes of a block of labels, and PyTorch's products do the rest."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_floating
from ..forms import Form, triton_refused
from ..precision import match_autocast, type_refused
from ..register import operator
from . import cpu, naive


class LabelContributions(NamedTuple):
    """Logits (B, L), and of what they are sums: `contributions.sum(-1) + bias`. weights,
    contributions: (B, L, N), both 0 behind the mask; all in float32 for half precision.
    """

    logits: Tensor
    weights: Tensor
    contributions: Tensor


def label_attention(
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Logit of each label: `sum_t softmax_t(scale query_l . h_t) (weight_l . h_t) + bias_l`.

    h: tokens (B, N, d); query, weight: (L, d); bias: (L,), by default 0; mask: bool (B, N), True =
    a token; what is behind it may be anything, NaN too; scale: by default 1 / sqrt(d). Returns
    (B, L). A sample without tokens gives the bias, and no gradient of the rest. Follows autocast
    like `F.linear`.

    Raises ValueError if shapes, types or devices do not fit. Source: CAML, Mullenbach et al., NAACL
    2018, arXiv 1802.05695, equations 3 to 5, there with scale 1."""
    operands = match_autocast(h, query, weight)
    scale = _checked_scale("label_attention", *operands, bias, mask, scale)
    pooled = torch.ops.headwise.label_attention(*operands, mask, scale)[0]
    return (pooled if bias is None else pooled + bias).to(operands[0].dtype)


def label_contributions(
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> LabelContributions:
    """What `label_attention` computes, token by token; arguments and errors are the same.

    In plain PyTorch on every device, with any number of derivatives: the results alone are 2 B L N
    numbers.

    >>> h = torch.tensor([[[1.0], [3.0]]])
    >>> label_contributions(h, torch.zeros(1, 1), torch.ones(1, 1)).contributions.tolist()
    [[[0.5, 1.5]]]
    """
    operands = match_autocast(h, query, weight)
    scale = _checked_scale("label_contributions", *operands, bias, mask, scale)
    weights, evidence = naive.label_maps(*operands, mask, scale)
    contributions = weights * evidence
    logits = contributions.sum(-1)
    return LabelContributions(logits if bias is None else logits + bias, weights, contributions)


def _checked_scale(
    operation: str,
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    scale: float | None,
) -> float:
    """The scale; ValueError if arguments do not fit."""
    tensors = h, query, weight, *(() if bias is None else (bias,))
    fit = h.ndim == 3 and query.ndim == 2 and query.shape == weight.shape
    fit = fit and h.shape[2] == query.shape[1] and h.shape[2] > 0
    if not fit or (bias is not None and bias.shape != query.shape[:1]):
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        raise ValueError(
            f"{operation}: h must be (B, N, d), query and weight (L, d), bias (L,), got {shapes}"
        )
    check_floating(operation, *tensors[:3])
    if mask is not None and (mask.dtype != torch.bool or mask.shape != h.shape[:2]):
        raise ValueError(
            f"{operation}: mask must be bool {tuple(h.shape[:2])}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    everything = (*tensors, *(() if mask is None else (mask,)))
    if len({x.device for x in everything}) > 1:
        devices = ", ".join(str(x.device) for x in everything)
        raise ValueError(f"{operation}: all tensors must be on one device, got {devices}")
    return h.shape[2] ** -0.5 if scale is None else scale


def forms(h: Tensor) -> list[Form]:
    """What can compute the logits of such tokens."""
    return [
        Form(
            "Triton kernel, a program for some labels of a sample",
            triton_refused(h) or type_refused(h),
        ),
        Form("PyTorch calls, by tiles of tokens and labels"),
    ]


def fits(h: Tensor) -> bool:
    """The Triton kernels sum in float32."""
    return not type_refused(h)


operator(
    "label_attention",
    cpu.forward,
    fake=lambda h, query, weight, mask, scale: cpu.room(h, query),
    results=("pooled", "lse"),
    fits=fits,
    export=naive.label_attention,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("h", "query", "weight"),
)
