"""Models and optimisers of the task, and the stages of its training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...base.errors import InputError
from ...models.vision.gldmnet import GLDMNet, build_gldmnet


def build(options: Any, *, weights: bool = False) -> GLDMNet:
    """GL-DMNet; weights: with those that the options name. Raises ValueError for options that do
    not fit together.
    """
    o = options
    return build_gldmnet(
        o.backbone,
        o.transformer,
        weights=o.weights if weights else "random",
        transformer_weights=o.transformer_weights if weights else "random",
        attention=o.attention,
        ffn=o.ffn,
        fusion=o.fusion,
        position=o.position,
        recall=o.recall,
        drop_path=o.drop_path,
    )


def warm_start(model: Any, options: Any) -> None:
    """Weights of timm's backbones, of a new training only: a finished run has its own, and needs
    neither the files nor the network again. Raises InputError for weights that are missing or do
    not fit."""
    if options.weights == options.transformer_weights == "random":
        return
    try:
        begun = build(options, weights=True)
    except ValueError as error:
        raise InputError(f"saliency: these options make no model: {error}") from None
    for name, given in (("encoder", options.weights), ("transformer", options.transformer_weights)):
        if given != "random":
            for own, other in zip(model.parts(name), begun.parts(name)):
                own.load_state_dict(other.state_dict())


def optimizer(model: nn.Module, options: Any) -> torch.optim.Optimizer:
    """Adam, or AdamW with weight decay, with a group for each part that may be held."""
    plain: Any = getattr(model, "module", model)
    kept = {
        name: [w for part in plain.parts(name) for w in part.parameters()]
        for name in ("encoder", "transformer")
    }
    known = {id(w) for weights in kept.values() for w in weights}
    kept["rest"] = [w for w in plain.parameters() if id(w) not in known]
    groups = [
        {"params": weights, "part": name, "share": 1.0} for name, weights in kept.items() if weights
    ]
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    return kind(groups, lr=options.lr, weight_decay=options.weight_decay)


def freeze(model: Any, optimizer: Any, options: Any, epoch: int) -> None:
    """First the encoders are held, then the transformer, then nothing (section IV-B of the
    paper).
    """
    held = []
    if epoch < options.frozen_encoder:
        held = ["encoder"]
    elif epoch < options.frozen_encoder + options.frozen_transformer:
        held = ["transformer"]
    model.freeze(*held)
    for group in optimizer.param_groups:
        # A share of 0 keeps Adam's momentum from moving what is held.
        own = options.encoder_share if group["part"] == "encoder" else 1.0
        group["share"] = 0.0 if group["part"] in held else own
