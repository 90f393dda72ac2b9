"""Which attention a language model of transformers uses, chosen for one model and a while.

Nothing global is patched: one attention function is registered under a name of this package, once;
a model is told to use it by copies of its configurations, and gets its own back at the end.

Shapes: B rows, H heads, KV heads of keys and values, T queries, S keys, d width of a head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "headwise"


class Attending(Protocol):
    """What takes the place of the attention of some modules."""

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """query (B, H, T, d) and key (B, KV, S, d) after the positions are applied, value as key;
        mask: bool (B, 1, T, S), no later key, no padding, within the layer's window if it has one,
        or None where only causality matters: T = S, or T = 1. Returns (B, T, H, d).
        """
        ...


# By attention module, so that nothing is written on the modules of somebody's model.
_ACTIVE: WeakKeyDictionary[nn.Module, Attending] = WeakKeyDictionary()


def layer_of(module: nn.Module) -> int:
    """The number of an attention module's layer, from 0."""
    layer = module.layer_idx
    assert isinstance(layer, int)
    return layer


@contextmanager
def using_attention(
    model: PreTrainedModel, modules: Sequence[nn.Module], attending: Attending
) -> Iterator[None]:
    """A block in which `attending` stands for the attention of `modules`, all those of a model.

    The modules have copies of their configurations for so long: a configuration may be shared with
    another model, which must go on as it is. Blocks may be nested.
    """
    _register()
    past = {module: _ACTIVE[module] for module in modules if module in _ACTIVE}
    originals = _use_copies(model)
    _ACTIVE.update(dict.fromkeys(modules, attending))
    try:
        yield
    finally:
        for module in modules:
            del _ACTIVE[module]
        _ACTIVE.update(past)
        for module, config in originals.items():
            module.config = config  # type: ignore[assignment]


def _use_copies(model: PreTrainedModel) -> dict[nn.Module, object]:
    """Give all modules copies of their configurations that name our attention; what they had."""
    config = model.config
    text = config.get_text_config(decoder=True)
    copied = copy.copy(text)
    copied._attn_implementation = NAME
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


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """What transformers calls."""
    attending = _ACTIVE.get(module)
    if attending is None:
        raise ValueError("this copy of an attached model has no plan; copy it outside of the block")
    for name in ("softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise ValueError(f"a plan cannot honour attention with {name}; use another model")
    if options.get("output_attentions"):
        raise ValueError("weights of attention are not available under a plan")
    return attending(module, query, key, value, attention_mask, scaling, dropout), None
