"""Attention and token-mixing mechanisms, one a file; all are called as `forward(x, context=None, *, mask=None)`.

x: (batch, tokens, width); context: tokens to attend to (x itself by default); mask: bool, True = may attend.
"""

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from .softmax import SoftmaxAttention
    from .star import STAR

# name -> (module, class, paper, cost); `headwise list attention` prints it.
ATTENTION: dict[str, tuple[str, str, str, str]] = {
    "softmax": ("softmax", "SoftmaxAttention", "Vaswani et al. 2017, arXiv 1706.03762", "quadratic in tokens"),
    "star": ("star", "STAR", "SOFTS, Han et al. 2024, arXiv 2404.14197", "linear in tokens"),
}
ALIASES = {"attention": "softmax"}
_CLASSES = {entry[1]: entry[0] for entry in ATTENTION.values()}

__all__ = ["ALIASES", "ATTENTION", "STAR", "SoftmaxAttention", "build_attention"]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_attention(name: str, width: int, heads: int = 8, **options: Any) -> "nn.Module":
    """Make the mechanism `name` of ATTENTION for tokens of `width`; heads is dropped where there are none.

    Raises ValueError for an unknown name or option, naming the nearest.
    """
    known = ALIASES.get(name, name)
    if known not in ATTENTION:
        near = difflib.get_close_matches(name, [*ATTENTION, *ALIASES], n=1, cutoff=0.0)
        raise ValueError(f"build_attention: no mechanism {name!r}; nearest is {near[0]!r} (of {', '.join(ATTENTION)})")
    module, cls = ATTENTION[known][:2]
    mechanism = getattr(import_module(f"{__name__}.{module}"), cls)
    accepted = [option for option in inspect.signature(mechanism).parameters if option != "width"]
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1, cutoff=0.0)
            hint = f"; nearest is {near[0]!r}" if near else ""
            raise ValueError(f"build_attention: {name!r} has no option {option!r}{hint}")
    if "heads" in accepted:
        options["heads"] = heads
    return mechanism(width, **options)
