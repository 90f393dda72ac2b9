"""Tiny language models with random weights, and what their attention is by the eager form."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny(kind: str = "llama", layers: int = 3, **options: object) -> PreTrainedModel:
    """A model of a kind: llama, qwen3, or gemma3 with a window of 8 in all layers but each third."""
    torch.manual_seed(0)
    shape = {**SHAPE, "num_hidden_layers": layers, **options}
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape))
    else:
        types = ["full_attention" if i % 3 == 2 else "sliding_attention" for i in range(layers)]
        config = Gemma3TextConfig(**shape, sliding_window=8, layer_types=types)
        model = Gemma3ForCausalLM(config)
    return model.eval()


def plain_maps(model: PreTrainedModel, ids: Tensor, present: Tensor | None = None) -> list[Tensor]:
    """Attention (B, H, T, T) of each layer by transformers' eager form."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        result = model(ids, attention_mask=present, output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return list(result.attentions)


def padded_ids(side: str = "left") -> tuple[Tensor, Tensor]:
    """Two texts of 20 and 13 tokens as a batch, and which tokens are real."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 64, (2, 20), generator=generator)
    present = torch.ones(2, 20, dtype=torch.bool)
    padding = slice(0, 7) if side == "left" else slice(13, 20)
    ids[1, padding], present[1, padding] = 0, False
    return ids, present
