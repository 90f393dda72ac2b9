"""Which attention a language model of transformers uses, chosen for one model and a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def using_attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """A block in which all modules of a model use the attention that is registered under a name.

    They have copies of their configurations for so long: a configuration may be shared with
    another model, which must go on as it is. Blocks may be nested.
    """
    originals = _use_copies(model, name)
    try:
        yield
    finally:
        for module, config in originals.items():
            module.config = config  # type: ignore[assignment]


def _use_copies(model: PreTrainedModel, name: str) -> dict[nn.Module, object]:
    """Give all modules copies of their configurations that name an attention; what they had."""
    config = model.config
    text = config.get_text_config(decoder=True)
    copied = copy.copy(text)
    copied._attn_implementation = name
    copies = {id(text): copied}
    if text is not config:
        outer = copy.copy(config)
        outer.__dict__.update(
            {name: copied for name, value in vars(config).items() if value is text}
        )
        copies[id(config)] = outer
    originals: dict[nn.Module, object] = {}
    for module in model.modules():
        if (replacement := copies.get(id(getattr(module, "config", None)))) is not None:
            originals[module] = module.config
            module.config = replacement  # type: ignore[assignment]
    return originals
