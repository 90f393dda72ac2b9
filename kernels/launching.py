"""The launch of a Triton kernel."""

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
