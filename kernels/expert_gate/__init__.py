"""Which experts a token uses, with which weights, and what the losses need to know of it; one pass
over the scores.

Shapes: T tokens, E experts, K active experts of a token; s (T, E) scores, b (E,) a bias of the
choice.

    p = softmax(s), sigmoid(s), or s itself;   q = p / sum_e p
    the K greatest of p + b are chosen;   w = c p_k, or c p_k / sum_k p_k if normalise
    statistics of the tokens that are not padding: n_ke, how many chose e as k-th; the means of q,
    of lse(s)^2 and of the entropy of q

    With G, m and l the gradients of w, of the mean of q and of that of lse^2; r = 1 / tokens:
    d p_k = c (G_k - sum_j G_j w_j / c) / sum_j p_j if normalise, else c G_k
    d p_e += r (m_e - m . q) / sum p
    d s = p (d p - p . d p) (softmax) or p (1 - p) d p (sigmoid);   d s += 2 r l lse softmax(s)

Work: T E (K + about 10) operations; T (E + 2 K + 1) numbers read or written each way, where the
composition of PyTorch calls makes about eight tensors (T, E). Partial sums are added in order and
counts are whole numbers: two runs are equal bit by bit. Sources: Shazeer et al., arXiv 1701.06538;
Fedus et al., arXiv 2101.03961; Zoph et al., arXiv 2202.08906 (z-loss)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from ..register import operator
from . import cpu

Score = Literal["softmax", "sigmoid", "given"]
LARGEST = 1024  # experts that a program of the Triton form holds


class Gate(NamedTuple):
    """What `expert_gate` returns. Gradients pass through weights, probability and log_sum."""

    weights: Tensor  # (T, K), 0 for padding
    chosen: Tensor  # int64 (T, K), by descending p + b; E for padding
    counts: Tensor  # int64 (K, E)
    probability: Tensor  # (E,)
    log_sum: Tensor  # (); 0 for score "given"
    entropy: Tensor  # (), in nats
    tokens: Tensor  # (), how many are not padding


def expert_gate(
    scores: Tensor,
    active: int,
    *,
    score: Score = "softmax",
    normalise: bool = False,
    scale: float = 1.0,
    bias: Tensor | None = None,
    present_mask: Tensor | None = None,
) -> Gate:
    """Choice, weights and statistics. scores: (T, E), float32 or float64; active: K; score: what
    the scores are, logits of a "softmax" or of a "sigmoid", or positive weights "given"; bias:
    (E,), for the choice alone, without a gradient; present_mask: bool (T,), False = padding. Which
    of two equal scores comes first may differ by device.

    Raises ValueError if shapes or names do not fit.
    """
    if scores.ndim != 2 or not 1 <= active <= scores.shape[1]:
        raise ValueError(
            f"expert_gate: needs scores (tokens, experts), "
            f"got {tuple(scores.shape)} and {active} active"
        )
    if score not in ("softmax", "sigmoid", "given"):
        raise ValueError(
            f"expert_gate: score must be 'softmax', 'sigmoid' or 'given', got {score!r}"
        )
    tokens, experts = scores.shape
    for name, tensor, size in (("bias", bias, experts), ("present_mask", present_mask, tokens)):
        if tensor is not None and tensor.shape != (size,):
            raise ValueError(f"expert_gate: {name} must be ({size},), got {tuple(tensor.shape)}")
    if scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expert_gate: scores must be float32 or float64, got {scores.dtype}")
    bias = None if bias is None else bias.detach().to(scores.dtype)
    gate = torch.ops.headwise.expert_gate(
        scores, bias, present_mask, active, score, normalise, scale
    )
    return Gate(*gate[:-1])


def forms(scores: Tensor) -> list[Form]:
    """What can compute the gate for such scores."""
    refused = triton_refused(scores)
    if scores.dtype == torch.float64:
        refused = "float64"
    elif scores.shape[1] > LARGEST:
        refused = f"more than {LARGEST} experts"
    return [Form("Triton kernel, one pass", refused), Form("PyTorch calls")]


def empty(
    scores: Tensor,
    bias: Tensor | None,
    present_mask: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    """Memory for the parts of `Gate` and the log-sum-exp of each row."""
    tokens, experts = scores.shape
    floats = [scores.new_empty(shape) for shape in ((experts,), (), (), (), (tokens,))]
    chosen, counts = (
        scores.new_empty(shape, dtype=torch.int64)
        for shape in ((tokens, active), (active, experts))
    )
    return scores.new_empty((tokens, active)), chosen, counts, *floats


def fits(scores: Tensor) -> bool:
    """The Triton kernels sum in float32 and hold the scores of a token together."""
    return scores.dtype != torch.float64 and scores.shape[1] <= LARGEST


operator(
    "expert_gate",
    cpu.forward,
    fake=empty,
    results=(*Gate._fields, "lse"),
    fits=fits,
    export=cpu.forward,
    backward=cpu.backward,
    backward_fits=fits,
    gradients=("scores",),
)
