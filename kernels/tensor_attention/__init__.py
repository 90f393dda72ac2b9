"""Third-order (Kronecker) attention: each token attends to pairs of keys, and no tensor of pairs by
tokens exists.

Shapes: B batch, H heads, N queries, M1 and M2 keys of the two sides, d width of keys, e width of
values.

    p_ijl = softmax over (j, l) of scale sum_d q_id k1_jd k2_ld,   out_ie = sum_jl p_ijl v1_je v2_le

Alman and Song, ICLR 2024, arXiv 2310.04064, where scale is 1/d; the values are multiplied as in
their column-wise Kronecker product. Work: 2 B H N M1 M2 (d + e) flops, cubic in tokens for any
exact form. Memory: inputs, output and log-sum-exp; the naive form holds B H N M1 M2 scores several
times. The backward pass computes the weights again."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_floating
from ..forms import Form, triton_refused
from ..precision import compute_type, widest
from ..register import operator
from . import cpu, naive


def _check(query: Tensor, sides: tuple[tuple[Tensor, Tensor, Tensor | None], ...]) -> None:
    check_floating("tensor_attention", query, *(x for side in sides for x in side[:2]))
    for key, value, mask in sides:
        if (
            query.ndim != 4
            or key.ndim != 4
            or key.shape[:2] != query.shape[:2]
            or key.shape[3] != query.shape[3]
        ):
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
    bool (B, M), True = a key; scale: by default 1/d. Returns (B, H, N, e); a row without a pair of
    keys is 0.

    Raises ValueError if shapes or types do not fit.
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
    """Near-linear approximation for bounded entries: exp is replaced by its Taylor polynomial of
    the given degree.

    (sum_d q k1 k2)^t is a product of the monomials f of degree t, f(q) . (f(k1) * f(k2)), so the
    sums over j and over l come apart: out = f(q) ((f(k1)^T v1) * (f(k2)^T v2)), normalised alike.
    Each monomial is computed once, so there are F = binomial(d + degree, degree), and time is O((N
    + M1 + M2) F e). Good while the scores stay near 0 (`approximation_error` says how good); an odd
    degree can make weights negative where scores are below -1. Arguments as in `tensor_attention`;
    degree: 0 to 3.

    Raises ValueError if shapes or types do not fit or for another degree.
    """
    _check(query, ((key1, value1, mask1), (key2, value2, mask2)))
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"tensor_attention_approximate: degree is 0 to 3, got {degree}")
    kind, factor = compute_type(query), 1 / query.shape[3] if scale is None else scale
    sides = []
    for key, value, mask in ((key1, value1, mask1), (key2, value2, mask2)):
        present = (
            key.new_ones(1, 1, 1, 1, dtype=torch.bool) if mask is None else mask[:, None, :, None]
        )
        counted = torch.nn.functional.pad(
            value.to(kind), (0, 1), value=1.0
        )  # its sums are those of the weights
        sides.append((key.to(kind).masked_fill(~present, 0.0), counted.masked_fill(~present, 0.0)))
    (first, value1_of), (second, value2_of) = sides
    summed = query.new_zeros((), dtype=kind)
    for of_query, of_first, of_second in zip(
        _monomials(query.to(kind) * factor, degree, divided=True),
        _monomials(first, degree),
        _monomials(second, degree),
    ):
        summed = summed + of_query @ (
            (of_first.transpose(2, 3) @ value1_of) * (of_second.transpose(2, 3) @ value2_of)
        )
    total = summed[..., -1:]
    return (summed[..., :-1] / torch.where(total == 0, 1.0, total)).to(value1.dtype)


def _monomials(x: Tensor, degree: int, *, divided: bool = False) -> list[Tensor]:
    """(..., d) -> for each p up to the degree all monomials of degree p (..., F); divided: by
    prod(exponents!).

    (sum_d a_d b_d c_d)^p / p! is the sum over them of a divided monomial of a times those of b and
    c. Those with x_i^r and no variable before i are x_i^r times all of degree p - r in the
    variables after i, which are at the end of the list."""
    width = x.shape[-1]
    powers = [x**r / (math.factorial(r) if divided else 1) for r in range(degree + 1)]
    monomials = [x.new_ones((*x.shape[:-1], 1)), x][: degree + 1]
    for p in range(2, degree + 1):
        blocks = []
        for i in range(width):
            for r in range(1, p + 1):
                behind = width - i - 1
                count = math.comb(behind + p - r - 1, p - r) if r < p and behind else int(r == p)
                lower = monomials[p - r]
                blocks.append(powers[r][..., i : i + 1] * lower[..., lower.shape[-1] - count :])
        monomials.append(torch.cat(blocks, -1))
    return monomials


@dataclass
class ApproximationError:
    """How far the approximation is from the exact form. relative: Frobenius norm of the difference
    over that of the exact output; bound: largest absolute entry of queries and keys; score: largest
    absolute score."""

    relative: float
    bound: float
    score: float

    def __str__(self) -> str:
        return (
            f"relative error {self.relative:.2e} at entries up to {self.bound:.2f} "
            f"(scores up to {self.score:.2f})"
        )


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
        float((query * key2[:, :, place, None] @ key1.mT).abs().max()) * abs(factor)
        for place in range(key2.shape[2])
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


def fake(
    query: Tensor,
    key1: Tensor,
    value1: Tensor,
    key2: Tensor,
    value2: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Memory for out (B, H, N, e) and lse (B, H, N)."""
    out = value1.new_empty((*query.shape[:3], value1.shape[3]))
    return out, query.new_empty(query.shape[:3], dtype=compute_type(query))


def _width(query: Tensor, value1: Tensor) -> int:
    return max(query.shape[3], value1.shape[3])


operator(
    "tensor_attention",
    cpu.forward,
    fake=fake,
    results=("out", "lse"),
    fits=lambda query, value1: _width(query, value1) <= widest(query, single=128, half=128),
    export=naive.tensor_attention,
    backward=cpu.backward,
    # In float32 the products in split precision do not fit the registers.
    backward_fits=lambda query, value1: _width(query, value1) <= widest(query, single=0, half=128),
    gradients=("query", "key1", "value1", "key2", "value2"),
)
