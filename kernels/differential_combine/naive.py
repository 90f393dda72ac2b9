"""The formula of the end of differential attention, all rows at once."""

from torch import Tensor

from ..precision import compute_type


def difference(rows: Tensor, lam: Tensor, signal: int) -> tuple[Tensor, Tensor]:
    """y (t, R, G, W) and the noise heads (t, R, W) of some rows (t, S + R, W), in the type of the
    sums.
    """
    kind = compute_type(rows)
    a, b = rows[:, :signal].to(kind), rows[:, signal:].to(kind)
    return a.unflatten(1, (b.shape[1], -1)) - lam.to(kind) * b[:, :, None], b


def differential_combine(
    rows: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """(out (T, S, W), r (T, S)) of rows (T, S + R, W); r is empty without a norm."""
    y = difference(rows, lam, signal)[0].flatten(1, 2).contiguous()
    if weight is None:
        return y.to(rows.dtype), y.new_empty((0,))
    r = (y.square().mean(-1) + eps).rsqrt()
    return (y * r[..., None] * (weight.to(y.dtype) * scale)).to(rows.dtype), r
