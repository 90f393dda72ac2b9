"""Language models in GGUF files as Hugging Face's transformers has them: the configuration, and the
weights by its names. Llama (also Mistral and SmolLM, which GGUF calls so) and Gemma 3 for texts.

Two things differ besides the names. GGUF turns the first and second half of each head's rotary
pairs into neighbours: the rows of the queries and keys of Llama are put back. And it stores
the norms of Gemma with the 1 that the model adds: it is taken off. What is not known here is
refused, since a factor that is not applied would give a worse model without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...base.errors import shown
from .gguf import GgufFile, Value

_ATTENTION = {f"attn_{name}": f"self_attn.{name}_proj" for name in "qkv"}
_MLP = {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
_SHARED = {**_ATTENTION, **_MLP, "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm"}
_LAYER = {
    "llama": {**_SHARED, "ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        **_SHARED,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_OUTSIDE = {
    "token_embd": "model.embed_tokens.weight",
    "output_norm": "model.norm.weight",
    "output": "lm_head.weight",
}
_COUNTS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_FURTHER = (  # facts that are read besides the counts; any other one is refused
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "vocab_size",
)
_FULL_EVERY = 6  # of Gemma 3: five layers with a window, then a full one
_LOCAL_BASE = 10_000.0  # of the rotary positions in its layers with a window
_SPECIAL = {"bos": "bos", "eos": "eos", "padding": "pad"}
Config = dict[str, object]


@dataclass(frozen=True)
class LanguageWeights:
    """config: as in a config.json of Hugging Face; state: float32, by the names of its model."""

    config: Config
    state: dict[str, Tensor]


def language_weights(file: GgufFile) -> LanguageWeights:
    """The model of a file.

    Raises ValueError, one line, for another architecture, facts or tensors that are not known,
    missing ones, and tensors that do not fit the model.
    """
    try:
        kind = file.facts.get("general.architecture")
        if not isinstance(kind, str) or kind not in _LAYER:
            raise ValueError(f"is a model {shown(kind)}; read are {', '.join(_LAYER)}")
        config = _config(kind, _Facts(file.facts, kind), file)
        state = _state(kind, config, file)
        _check_fit(config, state)
    except ValueError as error:
        text = str(error)
        raise ValueError(
            text if text.startswith(str(file.path)) else f"{file.path}: {text}"
        ) from None
    return LanguageWeights(config, state)


class _Facts:
    """What a file says of a model of some kind."""

    def __init__(self, facts: Mapping[str, Value], kind: str) -> None:
        self.facts, self.kind = facts, kind

    def unknown(self, known: set[str]) -> list[str]:
        names = (name for name in self.facts if name.startswith(f"{self.kind}."))
        return sorted(name for name in names if name.split(".", 1)[1] not in known)

    def count(self, name: str, default: int | None = None) -> int:
        value = self.facts.get(f"{self.kind}.{name}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
            raise ValueError(f"{self.kind}.{name} is {shown(value)}, not a count")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.facts.get(f"{self.kind}.{name}", default)
        if not isinstance(value, float) or not value > 0:
            raise ValueError(f"{self.kind}.{name} is {shown(value)}, not a positive number")
        return float(str(np.float32(value)))  # as short as its 32 bits allow: 1e-05


def _config(kind: str, facts: _Facts, file: GgufFile) -> Config:
    window = ["attention.sliding_window"] if kind == "gemma3" else []
    if unknown := facts.unknown({*_COUNTS, *_FURTHER, *window}):
        raise ValueError(f"says {shown(unknown[0])}, which is not known for {kind}")
    config: Config = {theirs: facts.count(name) for name, theirs in _COUNTS.items()}
    heads, width = facts.count("attention.head_count"), facts.count("embedding_length")
    head = facts.count("attention.key_length", max(width // heads, 1))
    widths = {facts.count(n, head) for n in ("attention.value_length", "rope.dimension_count")}
    if widths != {head} or head % 2:
        raise ValueError(f"has heads of {head} whose values or positions have {sorted(widths)}")
    kv_heads = facts.count("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise ValueError(f"has {heads} heads of queries for {kv_heads} of keys")
    if "token_embd.weight" not in file.tensors:
        raise ValueError("lacks token_embd.weight")
    config |= {
        "head_dim": head,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": facts.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": facts.number("rope.freq_base", _LOCAL_BASE),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "float32",
    }
    for name, theirs in _SPECIAL.items():
        place = file.facts.get(f"tokenizer.ggml.{name}_token_id")
        config[f"{theirs}_token_id"] = place if isinstance(place, int) else None
    return config | (_gemma3(facts, config) if kind == "gemma3" else _LLAMA)


_LLAMA: Config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "mlp_bias": False,
}


def _gemma3(facts: _Facts, config: Config) -> Config:
    layers = facts.count("block_count")
    full = [(layer + 1) % _FULL_EVERY == 0 for layer in range(layers)]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ["full_attention" if is_full else "sliding_attention" for is_full in full],
        "query_pre_attn_scalar": config["head_dim"],
        "rope_local_base_freq": _LOCAL_BASE,
        "sliding_window": facts.count("attention.sliding_window"),
    }


def _state(kind: str, config: Config, file: GgufFile) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name in file.tensors:
        theirs = _name(kind, name)
        values = file.values(name)
        if kind == "llama" and name.endswith((".attn_q.weight", ".attn_k.weight")):
            values = rotated_rows_back(values, config["head_dim"])
        if kind == "gemma3" and name.endswith("norm.weight"):
            values = values - np.float32(1)
        state[theirs] = torch.from_numpy(np.ascontiguousarray(values))
    return state


def _name(kind: str, name: str) -> str:
    """The name of a tensor in transformers."""
    if (part := name.removesuffix(".weight")) != name:
        if part in _OUTSIDE:
            return _OUTSIDE[part]
        layer = re.fullmatch(r"blk\.(\d{1,4})\.(\w+)", part)
        if layer and layer[2] in _LAYER[kind]:
            return f"model.layers.{layer[1]}.{_LAYER[kind][layer[2]]}.weight"
    raise ValueError(f"holds the tensor {shown(name)}, which is not known for {kind}")


def rotated_rows_back(weight: NDArray[np.float32], head: object) -> NDArray[np.float32]:
    """Rows of queries or keys (H * D, width) in which the two numbers of a rotary pair are
    neighbours, as rows with the first numbers of all pairs of a head before the second ones.

    head: D. Raises ValueError where there are no whole heads.
    """
    if not isinstance(head, int) or weight.ndim != 2 or len(weight) % head:
        raise ValueError(f"holds queries or keys of shape {weight.shape} for heads of {head}")
    pairs = weight.reshape(-1, head // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _check_fit(config: Config, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError where weights are missing or too many, or have another shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(str(config["model_type"]), **sizes)
        )
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        expected.pop("lm_head.weight", None)
    for name in expected.keys() ^ state.keys():
        raise ValueError(f"{'lacks' if name in expected else 'has too much:'} {name}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, not {shape}")
