"""The table of all mechanisms. `headwise list attention` prints it; nothing here imports torch."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Fits = Literal["any tokens", "sequence", "grid"]


class Mechanism(NamedTuple):
    """A row of the table: where a mechanism is defined, and what a user has to know to choose it.

    module: below `models.attention`, or its full name for a registered mechanism; cls: name of the
    class; fits: "any tokens" (the order does not matter), "sequence" (ordered) or "grid" (cells of
    an image); cost: in N tokens, M tokens of the context and width D; kernel: which operator of
    `kernels` computes it; paper: its source; options: given to the class unless the caller gives
    others.
    """

    module: str
    cls: str
    fits: Fits
    cost: str
    kernel: str
    paper: str
    options: Mapping[str, object] = {}


# fmt: off
ATTENTION: dict[str, Mechanism] = {
    "agent": Mechanism(
        "agent", "AgentAttention", "sequence", "O(N A D)", "PyTorch's",
        "Han et al. 2024, arXiv 2312.08874"),
    "agent-grid": Mechanism(
        "agent", "GridAgentAttention", "grid", "O(N A D)", "PyTorch's",
        "Han et al. 2024, arXiv 2312.08874"),
    "agent-learned": Mechanism(
        "agent", "LearnedAgentAttention", "any tokens", "O(N A D)", "PyTorch's",
        "Han et al. 2024, arXiv 2312.08874"),
    "aggregated": Mechanism(
        "grid.aggregated", "AggregatedAttention", "grid", "O(N (w^2 + P) D)", "neighbourhood",
        "TransNeXt, Shi 2024, arXiv 2311.17132"),
    "combiner": Mechanism(
        "combiner", "Combiner", "sequence", "O(N (g + N/g) D)", "PyTorch's",
        "Ren et al. 2021, arXiv 2107.05768"),
    "contmix": Mechanism(
        "grid.contmix", "ContMix", "grid", "O(N w^2 D)", "neighbourhood",
        "OverLoCK, Lou and Yu 2025, arXiv 2502.20087"),
    "coordinate": Mechanism(
        "grid.coordinate", "CoordinateAttention", "grid", "O(N D)", "none needed",
        "Hou et al. 2021, arXiv 2103.02907"),
    "differential": Mechanism(
        "differential", "GroupedDifferentialAttention", "any tokens", "O(N M D)",
        "PyTorch's, differential_combine",
        "Grouped Differential Attention 2025, arXiv 2510.06949"),
    "fixed-sequence": Mechanism(
        "deconstructed.fixed", "FixedAttention", "sequence", "O(N^2 D)", "none",
        "arXiv 2510.11602", {"source": "sequence"}),
    "gaussian": Mechanism(
        "gaussian", "GaussianAdaptiveAttention", "any tokens", "O(N D)", "none needed",
        "GAAM, arXiv 2401.11143"),
    "induced": Mechanism(
        "query_pool", "InducedAttention", "any tokens", "O(N Q D)", "softmax_pool",
        "Set Transformer, arXiv 1810.00825"),
    "moh": Mechanism(
        "moh", "MixtureOfHeads", "any tokens", "O(N M D)", "gathered_heads",
        "MoH, Jin et al. 2024, arXiv 2410.11842"),
    "no-mixing": Mechanism(
        "deconstructed.no_mixing", "NoMixing", "any tokens", "O(N D^2)", "none",
        "MLP, arXiv 2510.11602"),
    "position-only": Mechanism(
        "deconstructed.fixed", "FixedAttention", "sequence", "O(N^2 D)", "none",
        "Tay et al., arXiv 2005.00743", {"source": "learned"}),
    "query-free": Mechanism(
        "deconstructed.query_free", "QueryFreeAttention", "any tokens", "O(M D^2)", "softmax_pool",
        "arXiv 2510.11602"),
    "random": Mechanism(
        "deconstructed.fixed", "FixedAttention", "sequence", "O(N^2 D)", "none",
        "RndEmbQK, arXiv 2510.11602"),
    "signed-root": Mechanism(
        "signed_root", "SignedRootAttention", "any tokens", "O(N M D)", "signed_root_attention",
        "GL-DMNet 2025, arXiv 2501.01648"),
    "softmax": Mechanism(
        "softmax", "SoftmaxAttention", "any tokens", "O(N M D)", "PyTorch's",
        "Vaswani et al. 2017, arXiv 1706.03762"),
    "squeeze": Mechanism(
        "squeeze", "SqueezeExcitation", "any tokens", "O(N D)", "none needed",
        "Hu et al. 2018, arXiv 1709.01507"),
    "star": Mechanism(
        "star", "STAR", "any tokens", "O(N D^2)", "softmax_pool, star_core",
        "SOFTS, Han et al. 2024, arXiv 2404.14197"),
    "static": Mechanism(
        "deconstructed.static", "StaticAttention", "any tokens", "O(N^2 D)", "PyTorch's",
        "StaticEmbQK, arXiv 2510.11602"),
    "tap": Mechanism(
        "grid.tap", "TAPAttention", "grid", "O(N^2 D)", "PyTorch's",
        "TAP and ADL, Guo et al. 2023, ICCV"),
    "taylor": Mechanism(
        "deconstructed.taylor", "TaylorAttention", "any tokens", "O(N d D)", "none",
        "Arora et al. 2024, arXiv 2402.18668"),
    "tensor": Mechanism(
        "tensor", "TensorAttention", "any tokens", "O(N M^2 D)", "tensor_attention",
        "Alman and Song 2024, arXiv 2310.04064"),
}
# fmt: on

ALIASES = {"attention": "softmax"}

# What some places of a model ask of a mechanism, and the mechanisms of the table that have it.
Feature = Literal["causal", "context", "weights"]
FEATURES: Mapping[Feature, tuple[str, ...]] = {
    "causal": (
        "combiner", "differential", "fixed-sequence", "moh", "position-only", "query-free",
        "random", "softmax", "static", "taylor",
    ),
    "context": (
        "agent-learned", "differential", "induced", "moh", "query-free", "signed-root", "softmax",
        "star", "taylor", "tensor",
    ),
    "weights": (
        "agent", "agent-grid", "agent-learned", "aggregated", "combiner", "contmix",
        "differential", "fixed-sequence", "moh", "position-only", "query-free", "random",
        "signed-root", "softmax", "static", "tap", "taylor", "tensor",
    ),
}  # fmt: skip
