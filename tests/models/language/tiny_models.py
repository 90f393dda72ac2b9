"""Tiny random language models, one of each kind that plans are for."""

from functools import cache

import torch
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

WORDS = 61
KINDS = ("llama", "qwen3", "gemma3", "mistral")
_SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 48,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "attn_implementation": "sdpa",
}


def tiny_model(kind: str, seed: int = 0, **changes: object) -> nn.Module:
    """A random model in evaluation mode; its attention is sharp, so that a wrong key is noticed."""
    sizes = {**_SIZES, **changes}
    torch.manual_seed(seed)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    elif kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**{"sliding_window": None, **sizes}))
    else:
        types = ["sliding_attention", "full_attention", "full_attention"]
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(**{"layer_types": types, "sliding_window": 6, **sizes})
        )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3 if "_proj" in name else 1.0)
    return model.eval()


@cache
def shared_model(kind: str) -> nn.Module:
    """As `tiny_model`, made once; leave it as it is."""
    return tiny_model(kind)


def texts(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids (batch, length), none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, WORDS, (batch, length), generator=generator)
