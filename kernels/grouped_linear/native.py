"""`torch.nn.functional.grouped_mm` for the products of many experts: where it is taken, and what is
done around it. Nothing is read back from a device.

Shapes: T tokens, K experts of a token, S = T K rows sorted by expert, E experts, D width of the
input, F of the output.

Its kernels leave two things to the caller, which are done here: rows after the last expert's are
not written, and on some GPUs the weight gradient of an expert without rows is not 0
(pytorch/pytorch issues 154557 and 172439)."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..segments import segment_of
from .naive import activate, input_rows
from .slopes import activate_backward, sum_of_copies

LEAST_ROWS = 64  # an expert, on a GPU; fewer are limited by reading the weights, with any kernel


def refused(x: Tensor, weight: Tensor, rows: int) -> str:
    """Why `grouped_mm` is not taken for these tensors and S rows; "" where it is."""
    if not hasattr(F, "grouped_mm"):
        return "this PyTorch has no grouped_mm"
    if x.is_cpu and x.shape[0] >= 128 * weight.shape[0]:
        return (
            "on the CPU it is a loop; with 128 rows per expert ours is faster, "
            "as it activates them in the cache"
        )
    if not x.is_cpu:
        if x.device.type != "cuda":
            return f"no grouped_mm on {x.device.type}"
        if x.dtype != torch.bfloat16 or not fast(x.device):
            return (
                "its tensor-core kernel takes bfloat16 on compute capability 9 and 10; "
                f"for {x.dtype} on {x.device} it reads the offsets back"
            )
        if rows < LEAST_ROWS * weight.shape[0]:
            return f"fewer than {LEAST_ROWS} rows an expert, which reading the weights limits"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"no grouped_mm in {x.dtype}"
    if any(size * x.element_size() % 16 for size in weight.shape[1:]):
        sizes = f"{weight.shape[1]} and {weight.shape[2]}"
        return f"rows of {sizes} numbers are no multiples of 16 bytes"
    if weight.data_ptr() % 16 or not weight.is_contiguous():
        return "the weights are not contiguous"
    return ""


@cache
def fast(device: torch.device) -> bool:
    """Whether this GPU has the kernel that keeps the offsets on the device."""
    if torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device)[0] in (9, 10)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor) -> Tensor:
    """x_s W_e + b_e for the rows s of each expert e, 0 for rows of none: x (S, D), weight
    (E, D, F).
    """
    out = F.grouped_mm(x.contiguous(), weight, offs=offsets[1:])
    expert = segment_of(offsets, x.shape[0])
    if bias is not None:
        out += bias.index_select(0, expert.clamp_max(bias.shape[0] - 1))
    return out.masked_fill_((expert == weight.shape[0])[:, None], 0.0)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    tokens: Tensor | None,
    activation: str,
    gated: bool,
) -> Tensor:
    """See `grouped_linear`: (S, F)."""
    rows = input_rows(x, tokens, activation, gated)
    return product(rows, weight.transpose(1, 2), bias, offsets)


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
    grad = grad.contiguous()
    idle = (offsets.diff() == 0)[:, None]

    def over_rows(rows: Tensor) -> Tensor:
        out = F.grouped_mm(grad.t(), rows, offs=offsets[1:])
        return out.masked_fill_(idle[..., None], 0.0)

    d_rows = product(grad, weight, None, offsets)
    d_weight = over_rows(input_rows(x, tokens, activation, gated).contiguous())
    d_bias = weight.new_empty((0,))
    if bias is not None:
        # The sum over an expert's rows as a product with ones: its order is fixed, that of atomic
        # additions is not. Eight columns, since rows must be multiples of 16 bytes.
        d_bias = over_rows(grad.new_ones((grad.shape[0], 8)))[..., 0].contiguous()
    if place is not None:
        return sum_of_copies(d_rows, place, x), d_weight, d_bias
    x = x.contiguous()
    d_x = torch.empty_like(x)
    gate = x.chunk(2, -1)[0] if gated else x
    activate_backward(d_rows, x, activation, gated, d_x, activate(gate, activation, False))
    none = segment_of(offsets, x.shape[0]) == weight.shape[0]
    return d_x.masked_fill_(none[:, None], 0.0), d_weight, d_bias
