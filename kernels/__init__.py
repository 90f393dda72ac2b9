"""Custom operators: one operator a file, with its maths, its PyTorch reference and its Triton kernel.

Names resolve on first use, so that the table can be printed without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decompositions import plain_decompositions
    from .linear import gelu_linear
    from .pooling import softmax_draw, softmax_pool
    from .star import star_core

# name -> (module, function, one line); `headwise list kernels` prints it.
KERNELS: dict[str, tuple[str, str, str]] = {
    "softmax_pool": ("pooling", "softmax_pool", "softmax-weighted mean over a padded or ragged axis, one pass"),
    "softmax_draw": ("pooling", "softmax_draw", "one row drawn from that softmax, in the same pass"),
    "gelu_linear": ("linear", "gelu_linear", "linear(gelu(h)) that keeps only h for the backward pass"),
    "star_core": ("star", "star_core", "STAR's stochastic core; its backward touches the drawn rows only"),
}
_NAMES = {name: module for name, (module, _, _) in KERNELS.items()} | {"plain_decompositions": "decompositions"}

__all__ = ["KERNELS", "gelu_linear", "plain_decompositions", "softmax_draw", "softmax_pool", "star_core"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        # No file bears the name of its operator: a loaded submodule would hide the function of the same name.
        function = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
        globals()[name] = function
        return function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
