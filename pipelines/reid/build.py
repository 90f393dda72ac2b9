"""Models and optimisers of the task."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...base.errors import InputError
from ...models.layers.vit_trunk import SCRATCH, Trunk, build_trunk
from ...models.vision.cca import ConditionalEmbedder
from ...models.vision.dcal import DCAL

UNDECAYED = ("pos_embed", "cls_token", "reg_token", "dist_token", "conditions")


def build(options: Any, spec: dict[str, Any]) -> nn.Module:
    """DCAL, or the conditional embedder. Raises ValueError for options that do not fit together."""
    o = options
    trunk = _trunk(o, "random")
    if o.model == "cca":
        return ConditionalEmbedder(
            trunk, len(spec["attributes"]), vector=o.vector, layers=max(1, o.glca)
        )
    search = spec["goal"] == "search"
    return DCAL(
        trunk,
        len(spec["classes"]),
        local=o.local,
        glca=o.glca,
        pwca=o.pwca,
        neck=search if o.neck == "auto" else o.neck == "yes",
        heads=o.embedding,
        output="vectors" if search else "probabilities",
    )


def _trunk(o: Any, weights: str) -> Trunk:
    return build_trunk(
        o.backbone,
        image=tuple(o.size),
        weights=weights,
        patch=o.patch,
        width=o.width,
        depth=o.layers,
        heads=o.heads,
        drop_path=o.drop_path,
        attention=o.attention,
        ffn=o.ffn,
    )


def warm_start(model: Any, options: Any) -> None:
    """Weights of timm's backbone, of a new training only: a finished run has its own, and needs
    neither the file nor the network again. Raises InputError for weights that are missing or do not
    fit."""
    if options.backbone == SCRATCH or options.weights == "random":
        return
    try:
        begun = _trunk(options, options.weights)
    except ValueError as error:
        raise InputError(f"reid: these options make no model: {error}") from None
    model.trunk.load_state_dict(begun.state_dict())


def optimizer(model: nn.Module, options: Any) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum .9; no decay of what is no matrix, and of positions and
    tokens.
    """
    kept, free = [], []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            plain = weight.ndim < 2 or name.endswith(UNDECAYED)
            (free if plain else kept).append(weight)
    groups = [
        {"params": kept, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.lr)
