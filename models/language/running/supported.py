"""Which language models a plan of attention can be used on, and where their attention is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch import nn

from ..plans.facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def attention_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The attention module of each layer of a causal language model, in their order.

    Raises ValueError, in one line, for a model whose attention is more than a softmax over keys
    that a plan may forget, or does not go through the attention interface of transformers.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if reason := _unsupported(model, config):
        raise ValueError(f"{name} has {reason}, which a plan cannot honour; use another model")
    layers = ModelFacts.of(model).layers
    modules = [
        module
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "is_causal")
    ]
    modules.sort(key=lambda module: int(module.layer_idx))  # type: ignore[arg-type]
    if [module.layer_idx for module in modules] != list(range(layers)):
        raise ValueError(f"{name} has no attention module in each of its {layers} layers")
    for module in modules:
        if getattr(module, "sinks", None) is not None:
            raise ValueError(f"{name} has learnt sinks (s_aux), which a plan cannot honour")
        if not module.is_causal:
            raise ValueError(f"{name} attends to later tokens, which a plan cannot honour")
        # A module that calls its own attention would not notice a plan.
        if not hasattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS"):
            raise ValueError(f"{name} does not use the attention interface of transformers")
    return modules


def _unsupported(model: PreTrainedModel, config: PreTrainedConfig) -> str:
    def entry(name: str) -> object:
        return getattr(config, name, None)

    if entry("is_encoder_decoder") or getattr(model.config, "is_encoder_decoder", False):
        return "an encoder and a decoder"
    if entry("attn_logit_softcapping") is not None:
        return "a cap on its scores (softcap)"
    if entry("kv_lora_rank") is not None:
        return "keys of low rank (MLA)"
    if entry("alibi") or entry("position_embedding_type") == "alibi" or config.model_type == "mpt":
        return "positions by ALiBi"
    if entry("num_kv_shared_layers") or entry("kv_sharing_modes"):
        return "keys that layers share"
    if entry("attention_chunk_size") is not None:
        return "attention within chunks"
    return ""


def text_decoder(model: PreTrainedModel) -> nn.Module:
    """The module that reads the tokens: the one that a call of the model passes its mask to."""
    decoder = model.get_decoder()
    return model if decoder is None else decoder
