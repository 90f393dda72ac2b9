"""The launch of a Triton kernel, and the sides of its tiles."""

from collections.abc import Callable
from typing import Protocol


class Kernel(Protocol):
    """What `triton.jit` makes of a function."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]: ...


def launch(kernel: Kernel, grid: tuple[int, ...], *arguments: object, **constants: int) -> None:
    """Run the kernel on a grid of programs. constants: sizes of tiles, flags, `num_warps`,
    `num_stages`.

    Triton types its constants as `constexpr`, which no call gives; here they are plain numbers.
    """
    kernel[grid](*arguments, **constants)


def power_of_two(size: int, least: int = 16) -> int:
    """The side of a tile that holds `size` numbers: the next power of 2, at least `least`.

    16 is the least side of a matrix product.

    >>> power_of_two(3), power_of_two(16), power_of_two(17), power_of_two(5, 1)
    (16, 16, 32, 8)
    """
    return max(least, 1 << max(0, size - 1).bit_length())
