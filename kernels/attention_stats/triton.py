"""Triton form of the read-outs of softmax attention: the forward pass.

Shapes: B batch, N queries, M keys, H heads, K heads of keys, d width of a head, e width of a value.

`read_kernel`: a program owns a block of queries of one head and walks the keys, keeping running
maximum t, sum l of e = exp(s - t), weighted values, weights on a key set, and u = sum e (s - t),
which moves to a new maximum t' as exp(t - t') (u + (t - t') l); then entropy = log l - u / l
(online softmax: Milakov and Gimelshein, arXiv 1805.02867). `column_kernel`: a program owns a block
of keys and walks the queries; weights come from lse. `top_kernel`: a program owns a block of
queries and keeps their largest scores; of a tile of keys the largest is taken as long as it is
larger than the smallest of any query of the block, which soon happens rarely.

Hidden scores are -1e30 as in the plain form. Tiles are fixed: the interpreter cannot run a tuned
kernel."""

import torch
import triton
from torch import Tensor

from ..launching import launch, power_of_two
from . import cpu
from .triton_kernels import column_kernel, read_kernel, top_kernel


def tiles(width: int, single: bool) -> dict[str, int]:
    """Queries and keys of a tile and warps for a width, in single or half precision: nothing spills
    on sm_90.
    """
    rows = (32 if width <= 64 else 16) if single else (64 if width <= 128 else 32)
    return {"ROWS": rows, "KEYS": 32, "num_warps": 8, "num_stages": 2}


def bytes_of(
    mask: Tensor | None, query: Tensor, keys: int
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Bytes of the mask, broadcast to (B, H, N, M), and their strides; of None, any tensor."""
    if mask is None:
        return query, (0, 0, 0, 0)
    marks = mask.expand(*query.shape[:3], keys).view(torch.uint8)
    return marks, (marks.stride(0), marks.stride(1), marks.stride(2), marks.stride(3))


def stats(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    scale: float,
    causal: bool,
    entropy: bool,
    columns: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.stats`, by Triton."""
    out = cpu.empty(query, key, value, keys, entropy, columns, top)
    output, lse, spread, mass, key_mass, top_values, top_indices = out
    query, key = query.contiguous(), key.contiguous()
    batch, heads, queries, width = query.shape
    count = key.shape[2]
    if query.numel() == 0 or key.numel() == 0:
        for tensor, start in zip(out, (0, -torch.inf, 0, 0, 0, 0, -1)):
            tensor.fill_(start)
        return out
    marks, strides = bytes_of(mask, query, count)
    sizes = (queries, count, heads, heads // key.shape[1], width)
    value_width = 0 if value is None else value.shape[-1]
    flags: dict[str, int] = {
        "MASKED": mask is not None,
        "CAUSAL": causal,
        "WIDTH": power_of_two(width),
    }
    flags |= tiles(max(flags["WIDTH"], power_of_two(value_width)), query.dtype == torch.float32)
    reading: dict[str, int] = flags | {
        "VALUE": value is not None,
        "NUMBERS": keys is not None,
        "ENTROPY": entropy,
    }
    reading["VALUE_WIDTH"] = power_of_two(value_width)
    counting: dict[str, int] = flags | {"WEIGHTED": weights is not None}
    by_query = (batch * heads * triton.cdiv(queries, flags["ROWS"]),)
    numbers = query if keys is None else keys.contiguous()
    steps = (
        (0, 0)
        if keys is None
        else (numbers.stride(0), numbers.stride(1) if keys.shape[1] > 1 else 0)
    )
    values = query if value is None else value.contiguous()
    tensors = query, key, values, marks, numbers, output, lse, spread, key_mass
    factors = *sizes, value_width, *strides, *steps, scale
    launch(read_kernel, by_query, *tensors, *factors, **reading)
    if columns:
        by_key = (batch * heads * triton.cdiv(count, flags["KEYS"]),)
        tensors = query, key, marks, lse, lse if weights is None else weights.contiguous(), mass
        launch(column_kernel, by_key, *tensors, *sizes, *strides, scale, **counting)
    if top:
        slots = power_of_two(top, 1)
        best = query.new_empty((batch, heads, queries, slots), dtype=torch.float32)
        place = torch.empty_like(best, dtype=torch.int32)
        flags["TOP"] = slots
        launch(
            top_kernel, by_query, query, key, marks, best, place, *sizes, *strides, scale, **flags
        )
        best, order = best.sort(-1, descending=True)
        top_indices.copy_(place.gather(-1, order)[..., :top])
        top_values.copy_(
            (best - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp_()[..., :top]
        )
    return out
