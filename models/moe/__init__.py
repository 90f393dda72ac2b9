"""Mixture-of-experts modules: router, experts, layer, losses, upcycling, gates of several tasks.

The names below can be imported from here; each is loaded at first use. The function `upcycle` has
the name of its module: `from headwise.models.moe.upcycle import upcycle`.
"""

from typing import TYPE_CHECKING, NamedTuple

from ...base.lazy import lazy_names

if TYPE_CHECKING:
    from .attention import AttentionExperts
    from .branches import mix_branches
    from .contrastive import alike_batches, refine_labels
    from .diverse import DiverseHead, consistency_loss, diversity_loss
    from .experts import Experts
    from .layer import MoE, MoE2d
    from .lora import MoELoRA
    from .losses import importance, load_balance, z_loss
    from .multi_gate import ExtractionLayer, LayeredExtraction, MultiGate, TaskExpertLayer
    from .router import Router, Routing
    from .upcycle import assemble, decompose, merge, upcycle_model
    from .watch import RoutingWatch, flip_rate
else:
    EXPORTS = {
        "attention": ("AttentionExperts",),
        "branches": ("mix_branches",),
        "contrastive": ("alike_batches", "refine_labels"),
        "diverse": ("DiverseHead", "consistency_loss", "diversity_loss"),
        "experts": ("Experts",),
        "layer": ("MoE", "MoE2d"),
        "lora": ("MoELoRA",),
        "losses": ("importance", "load_balance", "z_loss"),
        "multi_gate": ("ExtractionLayer", "LayeredExtraction", "MultiGate", "TaskExpertLayer"),
        "router": ("Router", "Routing"),
        "upcycle": ("assemble", "decompose", "merge", "upcycle_model"),
        "watch": ("RoutingWatch", "flip_rate"),
    }
    __getattr__, __dir__ = lazy_names(__name__, EXPORTS)


class Piece(NamedTuple):
    """A row of the table: where a class or function is defined, and what it is in one line."""

    module: str
    name: str
    summary: str


# `headwise list moe` prints it.
# fmt: off
MOE: dict[str, Piece] = {
    "moe": Piece("layer", "MoE",
        "a router and its experts in place of a feed-forward network (1701.06538, 2101.03961)"),
    "moe-2d": Piece("layer", "MoE2d",
        "the same on feature maps, experts of 1 x 1 convolutions"),
    "router": Piece("router", "Router",
        "K of E experts per token; noise, capacity, bias, mixing over tokens (2505.00792)"),
    "experts": Piece("experts", "Experts",
        "E feed-forward networks in one set of weights, K of them for each token"),
    "upcycle": Piece("upcycle", "upcycle",
        "a trained network as E equal experts, the same function at first (2212.05055)"),
    "assemble": Piece("upcycle", "assemble",
        "several trained networks as experts (2409.19291, 2403.07816)"),
    "decompose": Piece("upcycle", "decompose",
        "a trained network cut into finer experts, the same function at first (2507.17436)"),
    "alike-batches": Piece("contrastive", "alike_batches",
        "batches that earlier stages cannot tell apart (2409.19291)"),
    "merge": Piece("upcycle", "merge",
        "experts back into one dense network (2203.05482)"),
    "attention-experts": Piece("attention", "AttentionExperts",
        "attention layers weighted by each token (2408.08274)"),
    "mix-branches": Piece("branches", "mix_branches",
        "separately trained models as one with experts (2408.08274, 2403.07816)"),
    "multi-gate": Piece("multi_gate", "MultiGate",
        "one gate per task over shared experts (MMoE, KDD 2018)"),
    "layered-extraction": Piece("multi_gate", "LayeredExtraction",
        "shared experts and experts of each task (PLE, RecSys 2020)"),
    "task-experts": Piece("multi_gate", "TaskExpertLayer",
        "experts by task and token with a memory of tasks (2307.15324)"),
    "diverse": Piece("diverse", "DiverseHead",
        "three experts for frequent, even and rare classes (MDCS, 2308.09922)"),
    "moe-lora": Piece("lora", "MoELoRA",
        "low-rank experts next to a frozen layer (2106.09685, 2404.15159)"),
}
# fmt: on

__all__ = [
    "MOE",
    "AttentionExperts",
    "DiverseHead",
    "Experts",
    "ExtractionLayer",
    "LayeredExtraction",
    "MoE",
    "MoE2d",
    "MoELoRA",
    "MultiGate",
    "Piece",
    "Router",
    "Routing",
    "RoutingWatch",
    "TaskExpertLayer",
    "alike_batches",
    "assemble",
    "consistency_loss",
    "decompose",
    "diversity_loss",
    "flip_rate",
    "importance",
    "load_balance",
    "merge",
    "mix_branches",
    "refine_labels",
    "upcycle_model",
    "z_loss",
]
