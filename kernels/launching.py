"""What the Triton forms share: how a kernel is compiled and launched, its grid, its tiles.

A grid is one axis of pairs times blocks (a pair: one head of one sample; a block: some of its
rows), because the second axis of CUDA ends at 65,535. Blocks run fastest, so that programs that
read the same keys run side by side and find them in the cache.

Only `triton.py` files import this module: it needs Triton."""

from collections.abc import Callable
from typing import Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_PROGRAMS = (2**31 - 1, 2**16 - 1, 2**16 - 1)  # of each axis of a grid, on CUDA

# Sizes that change with each batch. A kernel is compiled once for all of their values; of the
# others it is told which are 1 and which are multiples of 16, and compiled for each such case.
CHANGING = (
    "samples", "batch", "rows", "columns", "tokens", "queries", "keys", "count", "bags", "splits",
    "first", "second", "height", "mask_b", "mask_h", "mask_n", "mask_batch", "mask_head",
)  # fmt: skip
kernel = triton.jit(do_not_specialize=list(CHANGING))
"""The decorator of a kernel that is launched; functions that kernels call take `triton.jit`."""


def precision() -> str:
    """How products of float32 use the tensor cores: as three products of TF32 on NVIDIA; ROCm has
    no such products but instructions for float32.
    """
    return "ieee" if torch.version.hip else "tf32x3"


PRECISION = tl.constexpr(precision())


class Kernel(Protocol):
    """What `triton.jit` makes of a function."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]: ...


def launch(function: Kernel, grid: tuple[int, ...], *arguments: object, **constants: int) -> None:
    """Run a kernel on a grid of programs. constants: sizes of tiles, flags, `num_warps`,
    `num_stages`.

    Triton types its constants as `constexpr`, which no call gives; here they are plain numbers.

    Raises ValueError for a grid that CUDA cannot launch.
    """
    if any(programs > most for programs, most in zip(grid, MOST_PROGRAMS)):
        name = getattr(function, "__name__", "a kernel")
        raise ValueError(
            f"{name}: a grid of {grid} programs is more than a "
            f"GPU can launch, {MOST_PROGRAMS}; split the batch"
        )
    function[grid](*arguments, **constants)


@triton.jit
def pair_and_block(blocks):  # pragma: no cover - device code
    """Which pair (64 bits, since offsets are multiples of it) and which block this program has."""
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), program % blocks


def power_of_two(size: int, least: int = 16) -> int:
    """The side of a tile that holds `size` numbers: the next power of 2, at least `least`.

    16 is the least side of a matrix product.

    >>> power_of_two(3), power_of_two(16), power_of_two(17), power_of_two(5, 1)
    (16, 16, 32, 8)
    """
    return max(least, 1 << max(0, size - 1).bit_length())


def contiguous(*tensors: Tensor) -> list[Tensor]:
    """The tensors without gaps between their numbers, for kernels that take no strides."""
    return [x.contiguous() for x in tensors]
