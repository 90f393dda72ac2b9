"""Third-order (Kronecker) attention: each token attends to pairs of keys, and no tensor of pairs by
tokens exists.

Shapes: B batch, H heads, N queries, M1 and M2 keys of the two sides, d width of keys, e width of
values.

    p_ijl = softmax over (j, l) of scale sum_d q_id k1_jd k2_ld,   out_ie = sum_jl p_ijl v1_je v2_le

Alman and Song, ICLR 2024, arXiv 2310.04064, where scale is 1/d; the values are multiplied as their
column-wise Kronecker product asks. Work: 2 B H N M1 M2 (d + e) flops, cubic in tokens whatever one
does exactly; memory: inputs, output and log-sum-exp, where the plain form holds B H N M1 M2 scores
several times. Backward makes the weights again."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..forms import Form, triton_refused
from . import cpu as plain


def _check(query: Tensor, sides: tuple[tuple[Tensor, Tensor, Tensor | None], ...]) -> None:
    for key, value, mask in sides:
        if key.ndim != 4 or key.shape[:2] != query.shape[:2] or key.shape[3] != query.shape[3]:
            raise ValueError(
                f"tensor_attention: keys {tuple(key.shape)} do not fit queries {tuple(query.shape)}"
            )
        if value.shape[:3] != key.shape[:3] or value.shape[3] != sides[0][1].shape[3]:
            raise ValueError(
                f"tensor_attention: values {tuple(value.shape)} do not fit keys {tuple(key.shape)}"
            )
        if mask is not None and (
            mask.dtype != torch.bool or mask.shape != (key.shape[0], key.shape[2])
        ):
            raise ValueError(
                f"tensor_attention: mask must be bool (batch, keys), got {tuple(mask.shape)}"
            )


def tensor_attention(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    *,
    mask1: Tensor | None = None,
    mask2: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Exact third-order attention, in tiles.

    query: (B, H, N, d); key1, value1: (B, H, M1, d or e); key2, value2: (B, H, M2, d or e); masks:
    bool (B, M), True = a key; scale: by default 1/d. Returns (B, H, N, e); without a pair of keys a
    row is 0.

    Raises ValueError if shapes do not fit.
    """
    _check(query, ((key1, value1, mask1), (key2, value2, mask2)))
    factor = 1 / query.shape[3] if scale is None else scale
    return torch.ops.headwise.tensor_attention(
        query, key1, value1, key2, value2, mask1, mask2, factor
    )[0]


def tensor_attention_approximate(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    degree: int,
    *,
    mask1: Tensor | None = None,
    mask2: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """The near-linear approximation for bounded entries: exp is replaced by its Taylor polynomial
    of that degree.

    (sum_d q k1 k2)^t is a product of the monomials f of degree t, f(q) . (f(k1) * f(k2)), so the
    sums over j and over l come apart: out = f(q) ((f(k1)^T v1) * (f(k2)^T v2)), normalised alike.
    Each monomial is made once, so there are F = binomial(d + degree, degree), and time is O((N + M1
    + M2) F e). Good while the scores stay near 0 (`approximation_error` says how good); an odd
    degree can make weights negative where scores are below -1. Arguments as in `tensor_attention`;
    degree: 0 to 3.

    Raises ValueError if shapes do not fit or for another degree.
    """
    _check(query, ((key1, value1, mask1), (key2, value2, mask2)))
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"tensor_attention_approximate: degree is 0 to 3, got {degree}")
    kind, factor = plain.compute_type(query), 1 / query.shape[3] if scale is None else scale
    sides = []
    for key, value, mask in ((key1, value1, mask1), (key2, value2, mask2)):
        there = (
            key.new_ones(1, 1, 1, 1, dtype=torch.bool) if mask is None else mask[:, None, :, None]
        )
        counted = torch.nn.functional.pad(
            value.to(kind), (0, 1), value=1.0
        )  # its sums are those of the weights
        sides.append((key.to(kind).masked_fill(~there, 0.0), counted.masked_fill(~there, 0.0)))
    (first, value1_of), (second, value2_of) = sides
    summed = query.new_zeros((), dtype=kind)
    for asked, one, two in zip(
        _monomials(query.to(kind) * factor, degree, divided=True),
        _monomials(first, degree),
        _monomials(second, degree),
    ):
        summed = summed + asked @ (
            (one.transpose(2, 3) @ value1_of) * (two.transpose(2, 3) @ value2_of)
        )
    total = summed[..., -1:]
    return (summed[..., :-1] / torch.where(total == 0, 1.0, total)).to(value1.dtype)


def _monomials(x: Tensor, degree: int, *, divided: bool = False) -> list[Tensor]:
    """(..., d) -> for each p up to the degree all monomials of degree p (..., F); divided: by
    prod(exponents!).

    (sum_d a_d b_d c_d)^p / p! is the sum over them of a divided monomial of a times those of b and
    c. Those with x_i^r and no variable before i are x_i^r times all of degree p - r in the
    variables behind i, which stand at the end."""
    width = x.shape[-1]
    powers = [x**r / (math.factorial(r) if divided else 1) for r in range(degree + 1)]
    made = [x.new_ones((*x.shape[:-1], 1)), x][: degree + 1]
    for p in range(2, degree + 1):
        blocks = []
        for i in range(width):
            for r in range(1, p + 1):
                behind = width - i - 1
                count = math.comb(behind + p - r - 1, p - r) if r < p and behind else int(r == p)
                blocks.append(
                    powers[r][..., i : i + 1] * made[p - r][..., made[p - r].shape[-1] - count :]
                )
        made.append(torch.cat(blocks, -1))
    return made


@dataclass
class ApproximationError:
    """How far the approximation is from the exact form. relative: Frobenius norm of the difference
    over that of the exact output; bound: largest absolute entry of queries and keys; score: largest
    absolute score."""

    relative: float
    bound: float
    score: float

    def __str__(self) -> str:
        return f"relative error {self.relative:.2e} at entries up to {self.bound:.2f} (scores up to {self.score:.2f})"


@torch.no_grad()
def approximation_error(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    degree: int,
    *,
    scale: float | None = None,
) -> ApproximationError:
    """Compare the approximation with the exact form (cubic time) on these inputs."""
    exact = tensor_attention(query, key1, value1, key2, value2, scale=scale)
    near = tensor_attention_approximate(query, key1, value1, key2, value2, degree, scale=scale)
    factor = 1 / query.shape[3] if scale is None else scale
    largest = max(
        float((query * key2[:, :, one : one + 1] @ key1.transpose(2, 3)).abs().max()) * abs(factor)
        for one in range(key2.shape[2])
    )
    bound = max(float(part.abs().max()) for part in (query, key1, key2))
    return ApproximationError(float((near - exact).norm() / exact.norm()), bound, largest)


def forms(*tensors: Tensor, width: int | None = None) -> list[Form]:
    """What can compute the exact form for such tensors; width: of a head, by default that of the
    tensors.
    """
    refused = triton_refused(*tensors)
    widest = max(x.shape[-1] for x in tensors) if width is None else width
    if not refused and (widest > 128 or any(x.dtype == torch.float64 for x in tensors)):
        refused = "float64 and heads wider than 128 are not supported"
    return [
        Form("Triton kernel, online softmax over pairs", refused),
        Form("PyTorch, tiles of pairs"),
    ]


@torch.library.custom_op("headwise::tensor_attention", mutates_args=())
def _attend(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return plain.forward(query, key1, value1, key2, value2, mask1, mask2, scale)


@_attend.register_fake
def _(query, key1, value1, key2, value2, mask1, mask2, scale):  # type: ignore[no-untyped-def]
    out = value1.new_empty((*query.shape[:3], value1.shape[3]))
    return out, query.new_empty(query.shape[:3], dtype=plain.compute_type(query))


@torch.library.custom_op("headwise::tensor_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> list[Tensor]:
    return plain.backward(grad, query, key1, value1, key2, value2, mask1, mask2, out, lse, scale)


@_backward.register_fake
def _(grad, query, key1, value1, key2, value2, mask1, mask2, out, lse, scale):  # type: ignore[no-untyped-def]
    return [part.new_empty(part.shape) for part in (query, key1, value1, key2, value2)]


# Triton is imported at the first call with a CUDA tensor: it is optional, and nobody on a CPU pays
# for it.
@_attend.register_kernel("cuda")
def _(query, key1, value1, key2, value2, mask1, mask2, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(query, value1, False)
    return (device or plain).forward(query, key1, value1, key2, value2, mask1, mask2, scale)


@_backward.register_kernel("cuda")
def _(grad, query, key1, value1, key2, value2, mask1, mask2, out, lse, scale):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    device = _device(query, value1, True)
    return (device or plain).backward(
        grad, query, key1, value1, key2, value2, mask1, mask2, out, lse, scale
    )


def _device(query: Tensor, value: Tensor, backward: bool):  # type: ignore[no-untyped-def]  # pragma: no cover - needs a GPU
    """The Triton form, None where it cannot take the tensors: without Triton, float64, heads wider
    than 128, and the backward pass in float32, whose products in split precision do not fit the
    registers."""
    from importlib.util import find_spec

    half = query.dtype in (torch.float16, torch.bfloat16)
    wide = max(query.shape[3], value.shape[3]) > 128
    if (
        find_spec("triton") is None
        or wide
        or not (half or (query.dtype == torch.float32 and not backward))
    ):
        return None
    from . import triton as tensor_attention_triton

    return tensor_attention_triton


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx, grad, _):  # type: ignore[no-untyped-def]
    if grad is None:
        return (None,) * 8
    made = torch.ops.headwise.tensor_attention_backward(grad, *ctx.saved_tensors, ctx.scale)
    return *made, None, None, None


_attend.register_autograd(_gradient, setup_context=_save)
