"""Which experts a token uses, with which weights, and what the losses need to know of it; one pass
over the scores.

Shapes: T tokens, E experts, K active experts of a token; s (T, E) scores, b (E,) a bias of the
choice.

    p = softmax(s), sigmoid(s), or s itself;   K greatest of p + b;   w = c p_k, or c p_k / sum_k p_k if normalise
    statistics of the tokens that are there: n_ke how many chose e as k-th, mean of p / sum_e p, mean of lse(s)^2,
    mean entropy of p / sum_e p

    with G the gradient of w, m that of the mean, l that of the mean square, r = 1 / tokens that are there:
    d p_k = c (G_k - sum_j G_j w_j / c) / sum_j p_j if normalise, else c G_k;   d p_e += r (m_e - m . q) / sum p,
    q = p / sum p;   d s = p (d p - p . d p) (softmax) or p (1 - p) d p (sigmoid);   d s += 2 r l lse softmax(s)

Work: T E (K + about 10) operations; T (E + 2 K + 1) numbers read or written each way, where the
composition of PyTorch calls makes about eight tensors (T, E). Counts are summed by program and then
in order: two runs are equal bit by bit. Sources: Shazeer et al., arXiv 1701.06538; Fedus et al.,
arXiv 2101.03961; Zoph et al., arXiv 2202.08906 (z-loss)."""

import sys
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..forms import Form, triton_refused

Score = Literal["softmax", "sigmoid", "given"]
LARGEST = 1024  # experts that a program of the Triton form holds


class Gate(NamedTuple):
    """What `expert_gate` gives. Gradients pass through weights, probability and log_sum."""

    weights: Tensor  # (T, K), 0 for padding
    chosen: Tensor  # int64 (T, K), by falling p + b; E for padding
    counts: Tensor  # int64 (K, E)
    probability: Tensor  # (E,)
    log_sum: Tensor  # (); 0 for score "given"
    entropy: Tensor  # (), in nats
    tokens: Tensor  # (), how many are there


def expert_gate(
    scores: Tensor,
    active: int,
    *,
    score: Score = "softmax",
    normalise: bool = False,
    scale: float = 1.0,
    bias: Tensor | None = None,
    there: Tensor | None = None,
) -> Gate:
    """Choice, weights and statistics. scores: (T, E), float32 or float64; active: K; score: what
    the scores are, logits of a "softmax" or of a "sigmoid", or positive weights "given"; bias:
    (E,), for the choice alone, without a gradient; there: bool (T,), False = padding. Which of two
    equal scores comes first may differ by device.

    Raises ValueError if shapes or names do not fit.
    """
    if scores.ndim != 2 or not 1 <= active <= scores.shape[1]:
        raise ValueError(
            f"expert_gate: needs scores (tokens, experts), got {tuple(scores.shape)} and {active} active"
        )
    if score not in ("softmax", "sigmoid", "given"):
        raise ValueError(
            f"expert_gate: score must be 'softmax', 'sigmoid' or 'given', got {score!r}"
        )
    for name, part, shape in (("bias", bias, scores.shape[1:]), ("there", there, scores.shape[:1])):
        if part is not None and part.shape != shape:
            raise ValueError(f"expert_gate: {name} must be {tuple(shape)}, got {tuple(part.shape)}")
    if scores.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expert_gate: scores must be float32 or float64, got {scores.dtype}")
    bias = None if bias is None else bias.detach().to(scores.dtype)
    found = torch.ops.headwise.expert_gate(scores, bias, there, active, score, normalise, scale)
    return Gate(*found[:-1])


def forms(scores: Tensor) -> list[Form]:
    """What can compute the gate for such scores."""
    refused = triton_refused(scores)
    if scores.dtype == torch.float64:
        refused = "float64"
    elif scores.shape[1] > LARGEST:
        refused = f"more than {LARGEST} experts"
    return [Form("Triton kernel, one pass", refused), Form("PyTorch calls")]


def forward(
    scores: Tensor,
    bias: Tensor | None,
    there: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    """The seven parts of `Gate` and the log-sum-exp of each row (T,), in plain PyTorch."""
    tokens, experts = scores.shape
    lse = scores.logsumexp(1) if score != "given" else scores.new_zeros(tokens)
    p = probabilities(scores, lse, score)
    chosen = (p if bias is None else p + bias).topk(active, sorted=True).indices
    weights = p.gather(1, chosen)
    if normalise:
        weights = weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    weights = weights * scale
    number = scores.new_full((), tokens) if there is None else there.sum().to(scores.dtype)
    share = 1 / number.clamp_min(1)
    q = p if score == "softmax" else p / _total(p)
    if there is None:
        mean, entropy, log_sum = q.sum(0), torch.special.entr(q).sum(), lse.square().sum()
    else:
        weights, chosen = (
            weights.masked_fill(~there[:, None], 0.0),
            chosen.masked_fill(~there[:, None], experts),
        )
        real = there.to(p.dtype)
        # Padding may hold anything, so it is put out before it is weighed.
        q, logs = q.masked_fill(~there[:, None], 0.0), lse.masked_fill(~there, 0.0)
        mean, entropy, log_sum = real @ q, real @ torch.special.entr(q).sum(1), logs.square().sum()
    # One bin for each choice and expert, and one for padding.
    bins = chosen + (experts + 1) * torch.arange(active, device=chosen.device)
    counts = torch.zeros(active * (experts + 1), dtype=torch.int64, device=chosen.device)
    counts = counts.scatter_add(
        0, bins.flatten(), torch.ones_like(bins).flatten()
    )  # not in place: it is exported, too
    counts = counts.view(active, experts + 1)[:, :experts].contiguous()
    return weights, chosen, counts, mean * share, log_sum * share, entropy * share, number, lse


def backward(
    d_weights: Tensor,
    d_mean: Tensor,
    d_log: Tensor,
    scores: Tensor,
    chosen: Tensor,
    lse: Tensor,
    number: Tensor,
    score: str,
    normalise: bool,
    scale: float,
) -> Tensor:
    """Gradient of the scores (T, E), in plain PyTorch."""
    experts = scores.shape[1]
    there = (chosen[:, :1] < experts).to(scores.dtype)
    p = probabilities(scores, lse, score)
    place = chosen.clamp_max(experts - 1)
    grad = d_weights * there * scale
    if normalise:
        taken = p.gather(1, place)
        total = taken.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        grad = (grad - (grad * taken).sum(1, keepdim=True) / total) / total
    share = there / number.clamp_min(1)
    if score == "softmax":
        d_p = share * d_mean
    else:
        total = _total(p)
        d_p = share * (d_mean - (p @ d_mean)[:, None] / total) / total
    d_p = d_p.scatter_add(1, place, grad)
    if score == "given":
        return d_p.masked_fill(there == 0, 0.0)
    soft = p if score == "softmax" else (scores - lse[:, None]).exp()
    d = p * (d_p - (p * d_p).sum(1, keepdim=True)) if score == "softmax" else p * (1 - p) * d_p
    return (d + share * (2 * d_log * lse[:, None]) * soft).masked_fill(there == 0, 0.0)


def probabilities(scores: Tensor, lse: Tensor, score: str) -> Tensor:
    """(T, E): what is weighed."""
    if score == "softmax":
        return (scores - lse[:, None]).exp()
    return scores.sigmoid() if score == "sigmoid" else scores


def _total(p: Tensor) -> Tensor:
    return p.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)


@torch.library.custom_op("headwise::expert_gate", mutates_args=())
def _gate(
    scores: Tensor,
    bias: Tensor | None,
    there: Tensor | None,
    active: int,
    score: str,
    normalise: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return forward(scores, bias, there, active, score, normalise, scale)  # type: ignore[return-value]


@_gate.register_fake
def _(scores, bias, there, active, score, normalise, scale):  # type: ignore[no-untyped-def]
    tokens, experts = scores.shape
    weights, one = scores.new_empty((tokens, active)), scores.new_empty(())
    whole = {"dtype": torch.int64}
    counts = scores.new_empty((active, experts), **whole)
    return (
        weights,
        scores.new_empty((tokens, active), **whole),
        counts,
        scores.new_empty((experts,)),
        one,
        scores.new_empty(()),
        scores.new_empty(()),
        scores.new_empty((tokens,)),
    )


@torch.library.custom_op("headwise::expert_gate_backward", mutates_args=())
def _gate_backward(
    d_weights: Tensor,
    d_mean: Tensor,
    d_log: Tensor,
    scores: Tensor,
    chosen: Tensor,
    lse: Tensor,
    number: Tensor,
    score: str,
    normalise: bool,
    scale: float,
) -> Tensor:
    return backward(d_weights, d_mean, d_log, scores, chosen, lse, number, score, normalise, scale)


@_gate_backward.register_fake
def _(d_weights, d_mean, d_log, scores, chosen, lse, number, score, normalise, scale):  # type: ignore[no-untyped-def]
    return scores.new_empty(scores.shape)


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
def _device(scores: Tensor):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    """The Triton form, the plain one where it cannot take the scores: see `forms`."""
    if scores.dtype == torch.float64 or scores.shape[1] > LARGEST or find_spec("triton") is None:
        return sys.modules[__name__]
    from . import triton as expert_gate_triton

    return expert_gate_triton


@_gate.register_kernel("cuda")
def _(scores, bias, there, active, score, normalise, scale):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(scores).forward(scores, bias, there, active, score, normalise, scale)


@_gate_backward.register_kernel("cuda")
def _(d_weights, d_mean, d_log, scores, *rest):  # type: ignore[no-untyped-def]  # pragma: no cover
    return _device(scores).backward(d_weights, d_mean, d_log, scores, *rest)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    scores, _, _, _, ctx.score, ctx.normalise, ctx.scale = inputs
    _, chosen, counts, _, _, entropy, number, lse = output
    ctx.mark_non_differentiable(chosen, counts, entropy, number, lse)
    ctx.save_for_backward(scores, chosen, lse, number)


def _gradient(ctx, d_weights, _chosen, _counts, d_mean, d_log, *_rest):  # type: ignore[no-untyped-def]
    scores, chosen, lse, number = ctx.saved_tensors
    d_scores = torch.ops.headwise.expert_gate_backward(
        d_weights, d_mean, d_log, scores, chosen, lse, number, ctx.score, ctx.normalise, ctx.scale
    )
    return d_scores, None, None, None, None, None, None


_gate.register_autograd(_gradient, setup_context=_save)
