"""Read-outs of softmax attention by PyTorch's fused attention, on a GPU, where that is ahead.

Shapes: B batch, N queries, M keys, H heads, K heads of keys, d width of a head, e width of a value.

What is linear in the weights p is a column of the values of one fused call: [v, marks] gives output
and key mass. Backward, the gradient towards the weights is a product, too,

    g_i . v_j - gH_i log p_ij + gm_i mark_j =
        [g_i, -gH_i scale q_i, gm_i] . [v_j, k_j, mark_j] + c_i
    delta_i = g_i . output_i - gH_i (lse_i - entropy_i) + gm_i mass_i - glse_i

and c_i, equal for all keys, changes no gradient of a softmax. So one fused call gives all
gradients. Rounding gH_i scale q_i changes that of the entropy as another rounding of the queries
would.

Which form is ahead follows from the tensor cores' rates in the constants, by roofline, not
measured: the time is that of the columns, at the width that the kernel pads to. Forward, [v, k,
marks] would give the entropy as lse - scale q . sum_j p_ij k_j, too, but at three times the
products for heads of 64, and in bfloat16 the difference cancels where the entropy is low: the
Triton kernel keeps it. Column masses and the largest weights are not linear in p for a fused
call."""

import torch
from torch import Tensor

from .. import fused_attention as fused

# Shares of the tensor cores' rate: of the flash kernel, forward and backward, of our kernel and of
# PyTorch calls by blocks.
FLASH, FLASH_BACKWARD, KERNEL, BLOCKS = 0.4, 0.22, 0.15, 0.04
DELTA = 3  # columns of `fused_attention.through_weights`


def _refused(
    query: Tensor,
    mask: Tensor | None,
    keys: Tensor | None,
    queries_are_keys: bool,
    scale: float,
    causal: bool,
) -> str:
    """What holds forward and backward."""
    if query.dtype != torch.bfloat16:
        name = str(query.dtype).removeprefix("torch.")
        return f"{name}; bfloat16 alone holds all products"
    if mask is not None and (mask.shape[1:3] != (1, 1) or scale <= 0):
        return "a mask of pairs"
    if causal and not queries_are_keys:
        return "causal, and not as many queries as keys"
    if keys is not None and keys.ndim == 3 and keys.shape[1] > 1:
        return "a set of keys for each head"
    return ""


def _slow(columns: int, width: int, rate: float, usual: float) -> str:
    """Why products with that many columns are not ahead of those as wide as queries and values."""
    side = fused.side(columns)
    if 2 * side / rate < width / usual:
        return ""
    return f"{side} columns, of which {width // 2} are needed, are behind by roofline"


def refused(
    query: Tensor,
    value: Tensor | None,
    *,
    top: int = 0,
    entropy: bool = False,
    columns: bool = False,
    keys: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float = 1.0,
) -> str:
    """Why the fused form does not compute the read-outs; "" where it does. keys: (B, M) or (B, H
    or 1, M).
    """
    if top or entropy or columns:
        return "entropy, column masses and the largest weights have no fused form that is ahead"
    if value is None:
        return "no values"
    count = max(query.shape[3] + (mask is not None), value.shape[3] + (keys is not None))
    same = query.shape[2] == value.shape[2]
    return (
        fused.refused(query, count)
        or _refused(query, mask, keys, same, scale, causal)
        or _slow(count, query.shape[3] + value.shape[3], FLASH, KERNEL)
    )


def backward_refused(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    *,
    entropy: bool = False,
    columns: bool = False,
    keys: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float = 1.0,
) -> str:
    """Why the fused form does not compute the gradients that the read-outs send back; "" where it
    does. keys: as in `refused`, None without a gradient of the key mass.
    """
    if columns:
        return "the gradient of a column mass needs another pass"
    of_value = 0 if value is None else value.shape[3]
    marks = of_value + query.shape[3] * entropy + (keys is not None)
    count, same = (
        max(query.shape[3] + (mask is not None), marks + DELTA),
        query.shape[2] == key.shape[2],
    )
    return (
        fused.refused(query, count, fused.MOST_WIDTH_BACKWARD)
        or _refused(query, mask, keys, same, scale, causal)
        or _slow(count, query.shape[3] + of_value, FLASH_BACKWARD, BLOCKS)
    )


def _columns(keys: Tensor, key: Tensor) -> Tensor:
    """Numbers of the keys (B, 1, M) as a column of the values (B, K, M, 1)."""
    return keys[..., None].expand(*key.shape[:3], 1).to(key.dtype)


def _shared(x: Tensor, heads: int) -> Tensor:
    """(B, K, M, .) for each head (B, H, M, .)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _summed(x: Tensor, kv: int, like: Tensor) -> Tensor:
    """(B, H, M, .) summed over the heads that share keys: (B, K, M, .)."""
    if x.shape[1] == kv:
        return x.to(like.dtype).contiguous()
    return x.unflatten(1, (kv, -1)).sum(2, dtype=torch.float32).to(like.dtype)


def stats(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    keys: Tensor | None,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.stats`: output, lse and, with `keys`, the key mass; (0,) for the others."""
    heads, width = query.shape[1], value.shape[3]
    if mask is not None:
        value = value.masked_fill(~mask[:, :, 0, :, None], 0.0)  # NaN there, too
    columns = value if keys is None else torch.cat([value, _columns(keys, key)], -1)
    q, k = fused.with_hidden(query, key, mask)
    mixed, lse = fused.attend(q, _shared(k, heads), _shared(columns, heads), scale, causal)
    lse = lse.clone(memory_format=torch.contiguous_format)
    if mask is not None:
        bare = lse <= 0.1 * scale * fused.HIDDEN
        mixed = mixed.masked_fill(bare[..., None], 0.0)
        lse.masked_fill_(bare, -torch.inf)
    absent = [lse.new_empty((0,)) for _ in range(3)]
    places = torch.empty((0,), dtype=torch.int64, device=query.device)
    mass = absent[2] if keys is None else mixed[..., width].to(lse.dtype).contiguous()
    output = mixed[..., :width].contiguous()
    return output, lse, absent[0], absent[1], mass, lse.new_empty((0,)), places


def backward(
    grad: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    grad_mass: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    mask: Tensor | None,
    keys: Tensor | None,
    output: Tensor,
    lse: Tensor,
    entropy: Tensor,
    mass: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, (0,) where that is None."""
    (_, heads, _, width), kv = query.shape, key.shape[1]
    bare, kind = lse == -torch.inf, query.dtype
    known = lse.masked_fill(bare, 0.0)
    delta = torch.zeros_like(lse)
    towards: list[Tensor] = []
    columns: list[Tensor] = []
    if grad is not None and value is not None:
        towards.append(grad.to(kind))
        shown = value if mask is None else value.masked_fill(~mask[:, :, 0, :, None], 0.0)
        columns.append(shown)
        delta += (grad.to(lse.dtype) * output).sum(-1)
    if grad_entropy is not None:
        towards.append((query.to(lse.dtype) * (-scale * grad_entropy)[..., None]).to(kind))
        shown = key if mask is None else key.masked_fill(~mask[:, :, 0, :, None], 0.0)
        columns.append(shown)
        delta -= grad_entropy * (known - entropy)
    if grad_mass is not None:
        assert keys is not None
        # A gradient of the mass rounded as that of the output is, which its part of delta matches.
        rounded = grad_mass[..., None].to(kind)
        towards.append(rounded)
        columns.append(_columns(keys, key))
        delta += rounded[..., 0].to(lse.dtype) * mass
    if grad_lse is not None:
        delta -= grad_lse.masked_fill(bare, 0.0)
    if not towards:
        towards.append(query.new_zeros((*query.shape[:3], 1)))
        columns.append(key.new_zeros((*key.shape[:3], 1)))
    q, k = fused.with_hidden(query, key, mask)
    d_query, d_key, d_columns = fused.through_weights(
        torch.cat(towards, -1),
        _shared(torch.cat(columns, -1), heads),
        delta,
        q,
        _shared(k, heads),
        lse.masked_fill(bare, torch.inf),
        scale,
        causal,
    )
    d_value = query.new_zeros((0,) if value is None else value.shape)
    if grad is not None and value is not None:
        d_value = _summed(d_columns[..., : value.shape[3]], kv, value)
    d_query = d_query[..., :width].to(kind).contiguous()
    return d_query, _summed(d_key[..., :width], kv, key), d_value
