"""Attention and token-mixing mechanisms, one a file; all are called as `forward(x, context=None, *,
mask=None)`.

x: (batch, tokens, width); context: tokens to attend to (x itself by default); mask: bool, True =
may attend."""

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Mechanism(NamedTuple):
    """A row of the table. fits: "any tokens" (their order unseen), "sequence" (ordered), "grid"
    (cells of an image).
    """

    module: str
    cls: str
    paper: str
    cost: str
    kernel: str
    fits: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


# `headwise list attention` prints it; the contract test of tests/models runs every row.
ATTENTION: dict[str, Mechanism] = {
    "agent": Mechanism(
        "agent",
        "AgentAttention",
        "Han et al. 2024, arXiv 2312.08874",
        "O(N A D)",
        "PyTorch's",
        "sequence",
    ),
    "agent-grid": Mechanism(
        "agent",
        "GridAgentAttention",
        "Han et al. 2024, arXiv 2312.08874",
        "O(N A D)",
        "PyTorch's",
        "grid",
    ),
    "agent-learned": Mechanism(
        "agent",
        "LearnedAgentAttention",
        "Han et al. 2024, arXiv 2312.08874",
        "O(N A D)",
        "PyTorch's",
        "any tokens",
    ),
    "aggregated": Mechanism(
        "aggregated",
        "AggregatedAttention",
        "TransNeXt, Shi 2024, arXiv 2311.17132",
        "O(N (w^2 + P) D)",
        "neighbourhood",
        "grid",
    ),
    "combiner": Mechanism(
        "combiner",
        "Combiner",
        "Ren et al. 2021, arXiv 2107.05768",
        "O(N (g + N/g) D)",
        "PyTorch's",
        "sequence",
    ),
    "contmix": Mechanism(
        "contmix",
        "ContMix",
        "OverLoCK, Lou and Yu 2025, arXiv 2502.20087",
        "O(N w^2 D)",
        "neighbourhood",
        "grid",
    ),
    "coordinate": Mechanism(
        "coordinate",
        "CoordinateAttention",
        "Hou et al. 2021, arXiv 2103.02907",
        "O(N D)",
        "none needed",
        "grid",
    ),
    "differential": Mechanism(
        "differential",
        "GroupedDifferentialAttention",
        "Grouped Differential Attention 2025, arXiv 2510.06949",
        "O(N M D)",
        "PyTorch's, differential_combine",
        "any tokens",
    ),
    "fixed-sequence": Mechanism(
        "fixed",
        "FixedAttention",
        "arXiv 2510.11602",
        "O(N^2 D)",
        "none",
        "sequence",
        {"source": "sequence"},
    ),
    "gaussian": Mechanism(
        "gaussian",
        "GaussianAdaptiveAttention",
        "GAAM, arXiv 2401.11143",
        "O(N D)",
        "none needed",
        "any tokens",
    ),
    "induced": Mechanism(
        "query_pool",
        "InducedAttention",
        "Set Transformer, arXiv 1810.00825",
        "O(N Q D)",
        "softmax_pool",
        "any tokens",
    ),
    "moh": Mechanism(
        "moh",
        "MixtureOfHeads",
        "MoH, Jin et al. 2024, arXiv 2410.11842",
        "O(N M D)",
        "gathered_heads",
        "any tokens",
    ),
    "no-mixing": Mechanism(
        "no_mixing", "NoMixing", "MLP, arXiv 2510.11602", "O(N D^2)", "none", "any tokens"
    ),
    "position-only": Mechanism(
        "fixed",
        "FixedAttention",
        "Tay et al., arXiv 2005.00743",
        "O(N^2 D)",
        "none",
        "sequence",
        {"source": "learned"},
    ),
    "query-free": Mechanism(
        "query_free",
        "QueryFreeAttention",
        "arXiv 2510.11602",
        "O(M D^2)",
        "softmax_pool",
        "any tokens",
    ),
    "random": Mechanism(
        "fixed", "FixedAttention", "RndEmbQK, arXiv 2510.11602", "O(N^2 D)", "none", "sequence"
    ),
    "signed-root": Mechanism(
        "signed_root",
        "SignedRootAttention",
        "GL-DMNet 2025, arXiv 2501.01648",
        "O(N M D)",
        "signed_root_attention",
        "any tokens",
    ),
    "softmax": Mechanism(
        "softmax",
        "SoftmaxAttention",
        "Vaswani et al. 2017, arXiv 1706.03762",
        "O(N M D)",
        "PyTorch's",
        "any tokens",
    ),
    "squeeze": Mechanism(
        "squeeze",
        "SqueezeExcitation",
        "Hu et al. 2018, arXiv 1709.01507",
        "O(N D)",
        "none needed",
        "any tokens",
    ),
    "star": Mechanism(
        "star",
        "STAR",
        "SOFTS, Han et al. 2024, arXiv 2404.14197",
        "O(N D^2)",
        "softmax_pool, star_core",
        "any tokens",
    ),
    "static": Mechanism(
        "static",
        "StaticAttention",
        "StaticEmbQK, arXiv 2510.11602",
        "O(N^2 D)",
        "PyTorch's",
        "any tokens",
    ),
    "tap": Mechanism(
        "tap", "TAPAttention", "TAP and ADL, Guo et al. 2023, ICCV", "O(N^2 D)", "PyTorch's", "grid"
    ),
    "taylor": Mechanism(
        "taylor",
        "TaylorAttention",
        "Arora et al. 2024, arXiv 2402.18668",
        "O(N d D)",
        "none",
        "any tokens",
    ),
    "tensor": Mechanism(
        "tensor",
        "TensorAttention",
        "Alman and Song 2024, arXiv 2310.04064",
        "O(N M^2 D)",
        "tensor_attention",
        "any tokens",
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
    """Make the mechanism `name` of ATTENTION for tokens of `width`; heads is dropped where there
    are none.

    Raises ValueError for an unknown name or option, naming the nearest.
    """
    known = ALIASES.get(name, name)
    if known not in ATTENTION:
        near = difflib.get_close_matches(name, [*ATTENTION, *ALIASES], n=1, cutoff=0.0)
        raise ValueError(
            f"build_attention: no mechanism {name!r}; nearest is {near[0]!r} (of {', '.join(ATTENTION)})"
        )
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
