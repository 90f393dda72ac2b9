"""Tiny language models as GGUF files, converted the other way by plain loops."""

from pathlib import Path

import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from .gguf_files import floats, gguf_bytes, write

# Byte pairs of "gpt2": a few letters, the blank and the new line, and what they make together.
LETTERS = ["Ġ", "Ċ", *"abcdefghijklmnopqrstuvwxyz0123456789.,<|>_"]
MERGES = ["t h", "th e", "Ġ a", "Ġ the", "Ġ Ġ", "1 2", "Ġ 1"]
MADE = [merge.replace(" ", "") for merge in MERGES]
GPT2 = ["<|end|>", "<|start|>", *LETTERS, *MADE]
SHARED = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": len(GPT2),
    "max_position_embeddings": 128,
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
LLAMA = {**NAMES, "post_attention_layernorm": "ffn_norm"}
GEMMA = {
    **NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTSIDE = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


def random_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that are multiples of 1/64, so that the 1 added to norms is exact."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            values = torch.randn(weight.shape, generator=generator) * 0.2
            weight.copy_((values * 64).round() / 64)
    return model.eval()


def llama(tied: bool = True) -> LlamaForCausalLM:
    config = LlamaConfig(
        **SHARED, tie_word_embeddings=tied, rms_norm_eps=1e-5, rope_theta=500.0, bos_token_id=1,
        eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return random_weights(LlamaForCausalLM(config))


def gemma3() -> Gemma3ForCausalLM:
    sizes = {**SHARED, "num_hidden_layers": 7, "query_pre_attn_scalar": 8, "sliding_window": 4}
    config = Gemma3TextConfig(**sizes, rms_norm_eps=1e-6, rope_theta=1e6, bos_token_id=1)
    return random_weights(Gemma3ForCausalLM(config))


def tokenizer_facts(cut: str = "smollm") -> dict[str, object]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut,
        "tokenizer.ggml.tokens": GPT2,
        "tokenizer.ggml.token_type": [3, 3, *([1] * (len(GPT2) - 2))],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}<|start|>{{ m['content'] }}{% endfor %}",
    }


def model_facts(kind: str, model: torch.nn.Module) -> dict[str, object]:
    config = model.config
    facts = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": 500.0 if kind == "llama" else 1e6,
    }
    if kind == "llama":
        facts |= {"rope.dimension_count": config.head_dim, "vocab_size": config.vocab_size}
    else:
        facts |= {"attention.key_length": 8, "attention.value_length": 8}
        facts["attention.sliding_window"] = config.sliding_window
    return {"general.architecture": kind, **{f"{kind}.{name}": v for name, v in facts.items()}}


def neighbours(weight: np.ndarray, head: int) -> np.ndarray:
    """Rows of each head as GGUF has them: 0, D/2, 1, D/2 + 1, ..."""
    order = []
    for start in range(0, len(weight), head):
        for k in range(head // 2):
            order += [start + k, start + head // 2 + k]
    return weight[order]


def model_tensors(kind: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    tensors = {}
    for name, value in model.state_dict().items():
        parts, weight = name.removesuffix(".weight").split("."), value.numpy()
        if parts[0] == "lm_head" and model.config.tie_word_embeddings:
            continue
        if kind == "gemma3" and "norm" in parts[-1]:
            weight = weight + 1
        if "layers" in parts:
            inner = (LLAMA if kind == "llama" else GEMMA)[".".join(parts[3:])]
            if kind == "llama" and inner in ("attn_q", "attn_k"):
                weight = neighbours(weight, model.config.head_dim)
            tensors[f"blk.{parts[2]}.{inner}.weight"] = weight
        else:
            tensors[f"{OUTSIDE[parts[-1]]}.weight"] = weight
    return tensors


def write_model(
    path: Path,
    kind: str,
    model: torch.nn.Module,
    facts: dict[str, object] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
) -> Path:
    """The model as a file; facts, tensors: to be added or changed, None to be left out."""
    known = {**model_facts(kind, model), **tokenizer_facts(), **(facts or {})}
    weights = {**model_tensors(kind, model), **(tensors or {})}
    content = gguf_bytes(
        {name: value for name, value in known.items() if value is not None},
        {name: floats(value) for name, value in weights.items() if value is not None},
    )
    return write(path, content)
