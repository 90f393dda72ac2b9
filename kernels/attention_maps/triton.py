"""Triton form of attention that returns the weights of chosen heads.

Shapes: B batch, N queries, M keys, H heads, d width of a head, S chosen heads.

Output and log-sum-exp come from `read_kernel` of `attention_stats`. `maps_kernel` then computes the
weights again from queries, keys and log-sum-exp: a program owns a tile of a map, loops over the
heads that it averages, and writes it once. That is S N M numbers written, and 2 S N M d flops more
than attention alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..attention_stats import triton as stats_form
from ..attention_stats.triton import bytes_of
from ..attention_stats.triton_kernels import HIDDEN, _scores
from ..launching import launch, pair_and_block, power_of_two
from .cpu import empty


def tiles(width: int, single: bool) -> dict[str, int]:
    """Like those of the read-outs, but with room for a tile of sums next to the scores."""
    return stats_form.tiles(width, single) | ({"ROWS": 16} if single else {})


# Maps are written 16 bytes at a time where the keys are a multiple of 16, so the kernel is told.
@triton.jit(do_not_specialize=["queries", "mask_batch", "mask_head"])
def maps_kernel(
    query,
    key,
    mask,
    lse,
    chosen,
    out,
    queries,
    keys,
    heads,
    number,
    count,
    width,
    mask_batch,
    mask_head,
    mask_row,
    mask_key,
    scale,
    share,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
):  # pragma: no cover - device code
    key_blocks = tl.cdiv(keys, KEYS)
    which, block = pair_and_block(tl.cdiv(queries, ROWS) * key_blocks)
    batch, first = which // number, which % number * count
    n = block // key_blocks * ROWS + tl.arange(0, ROWS)
    m = block % key_blocks * KEYS + tl.arange(0, KEYS)
    d = tl.arange(0, WIDTH)
    alive = n < queries
    total = tl.zeros((ROWS, KEYS), tl.float32)
    for place in range(count):
        head = tl.load(chosen + first + place)
        head = tl.minimum(tl.maximum(head, 0), heads - 1)  # nobody has checked those on a GPU
        both = batch * heads + head
        at = both * queries + n
        q = tl.load(
            query + at[:, None] * width + d[None, :],
            mask=alive[:, None] & (d < width)[None, :],
            other=0.0,
        )
        tile = _scores(
            q,
            key,
            mask,
            both * keys * width,
            batch * mask_batch + head * mask_head,
            n,
            m,
            queries,
            keys,
            width,
            mask_row,
            mask_key,
            scale,
            MASKED,
            CAUSAL,
            WIDTH,
        )
        log_total = tl.load(lse + at, mask=alive, other=0.0)
        total += tl.exp(tile - tl.where(log_total == float("-inf"), -HIDDEN, log_total)[:, None])
    spot = (which * queries + n)[:, None] * keys + m[None, :]
    tl.store(out + spot, total * share, mask=alive[:, None] & (m < keys)[None, :])


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Tensor,
    mean: bool,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """As `cpu.attend`, by Triton."""
    output, maps = empty(query, key, value, len(heads), mean)
    batch, total, queries, width = query.shape
    keys = key.shape[2]
    if query.numel() == 0 or key.numel() == 0:
        return output.zero_(), maps.zero_()
    query, key = query.contiguous(), key.contiguous()
    output, lse, *_ = stats_form.stats(
        query, key, value, mask, None, None, scale, False, False, False, 0
    )
    marks, strides = bytes_of(mask, query, keys)
    flags: dict[str, int] = {
        "MASKED": mask is not None,
        "CAUSAL": False,
        "WIDTH": power_of_two(width),
    }
    flags |= tiles(flags["WIDTH"], query.dtype == torch.float32)
    count, number = (len(heads), 1) if mean else (1, len(heads))
    chosen = heads.to(query.device).contiguous()
    blocks = triton.cdiv(queries, flags["ROWS"]) * triton.cdiv(keys, flags["KEYS"])
    grid = (batch * number * blocks,)
    tensors, sizes = (
        (query, key, marks, lse, chosen, maps),
        (queries, keys, total, number, count, width),
    )
    launch(maps_kernel, grid, *tensors, *sizes, *strides, scale, 1 / count, **flags)
    return output, maps
