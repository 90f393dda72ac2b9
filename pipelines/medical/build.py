"""Models and optimisers of the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...base.errors import InputError
from ...models.layers.encoders import fitting, read_weights
from ...models.vision.medusa import Medusa, build_medusa


def build(options: Any, spec: dict[str, Any], *, weights: bool = False) -> Medusa:
    """The classifier; weights: with those that the options name. Raises ValueError for options that
    do not fit.
    """
    o = options
    return build_medusa(
        o.backbone,
        len(spec["classes"]),
        weights=o.weights if weights else "random",
        attention=o.attention,
        sees=o.sees,
        form=o.form,
        body_width=o.body_width,
        head_width=o.head_width,
        dropout=o.dropout,
    )


def warm_start(model: Any, options: Any, spec: dict[str, Any]) -> None:
    """Weights of the backbone and of the body, of a new training only. Raises InputError for
    weights that are missing or do not fit."""
    try:
        if options.weights != "random":
            model.backbone.load_state_dict(build(options, spec, weights=True).backbone.state_dict())
        if options.body is not None:
            found, missing = fitting(model.body, read_weights(Path(options.body)))
            if missing:
                raise ValueError(
                    f"{options.body}: weights of another body; it lacks {missing[0]}; --body-width must "
                    "be the same"
                )
            model.body.load_state_dict(found, strict=False)
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"medical: {error}") from None


def optimizer(model: nn.Module, options: Any) -> torch.optim.Optimizer:
    """AdamW, or Adam without weight decay; a body that was trained before has its own share of the
    learning rate.
    """
    plain: Any = getattr(model, "module", model)
    body = (
        list(plain.body.parameters()) if options.body is not None and plain.body is not None else []
    )
    known = {id(weight) for weight in body}
    groups = [{"params": [w for w in plain.parameters() if id(w) not in known], "share": 1.0}]
    if body:
        groups.append({"params": body, "share": options.body_share})
    kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
    return kind(groups, lr=options.lr, weight_decay=options.weight_decay)
