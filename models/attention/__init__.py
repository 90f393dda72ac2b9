"""Attention and token-mixing mechanisms, one a file; all are called as `forward(x, context=None, *, mask=None)`.

x: (batch, tokens, width); context: tokens to attend to (x itself by default); mask: bool, True = may attend.
"""

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Mechanism(NamedTuple):
    """A row of the table. fits: "any tokens" (their order unseen), "sequence" (ordered), "grid" (cells of an image)."""

    module: str
    cls: str
    paper: str
    cost: str
    kernel: str
    fits: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


# `headwise list attention` prints it; the contract test of tests/models runs every row.
ATTENTION: dict[str, Mechanism] = {
    "differential": Mechanism(
        "differential",
        "GroupedDifferentialAttention",
        "Grouped Differential Attention 2025, arXiv 2510.06949",
        "O(N M D)",
        "PyTorch's, differential_combine",
        "any tokens",
    ),
    "softmax": Mechanism(
        "softmax", "SoftmaxAttention", "Vaswani et al. 2017, arXiv 1706.03762", "O(N M D)", "PyTorch's", "any tokens"
    ),
    "star": Mechanism(
        "star", "STAR", "SOFTS, Han et al. 2024, arXiv 2404.14197", "O(N D^2)", "softmax_pool, star_core", "any tokens"
    ),
}
ALIASES = {"attention": "softmax"}
_CLASSES = {row.cls: row.module for row in ATTENTION.values()}

__all__ = ["ALIASES", "ATTENTION", "Mechanism", "build_attention"]


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
    row = ATTENTION[known]
    mechanism = getattr(import_module(f"{__name__}.{row.module}"), row.cls)
    accepted = [option for option in inspect.signature(mechanism).parameters if option != "width"]
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1, cutoff=0.0)
            hint = f"; nearest is {near[0]!r}" if near else ""
            raise ValueError(f"build_attention: {name!r} has no option {option!r}{hint}")
    if "heads" in accepted:
        options["heads"] = heads
    return mechanism(width, **row.options | options)
