"""Weights of BERT as Hugging Face stores them (config.json and model.safetensors), by the names of
`BertEncoder`; its pooler and the heads of its training are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...base.errors import reason
from ..text.encoder import BertEncoder, BertSizes

CONFIG, WEIGHTS, SENTENCES = "config.json", "model.safetensors", "sentence_bert_config.json"
_PREFIX = "bert."  # in files of a model with a head
_LAYER = "encoder.layer."
# Our names of a layer, without those of the mixer's queries, keys and values.
_PARTS = {
    "mixer.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "feedforward.up": "intermediate.dense",
    "feedforward.down": "output.dense",
    "norm2": "output.LayerNorm",
}


@dataclass(frozen=True)
class BertWeights:
    """sizes: as `BertEncoder` takes them; state: float32; most_tokens: of a text, special ones
    included, as its makers set it.
    """

    sizes: BertSizes
    state: dict[str, Tensor]
    most_tokens: int

    def encoder(self) -> BertEncoder:
        """The model, in evaluation mode."""
        with torch.device("meta"):
            encoder = BertEncoder(**self.sizes)
        encoder.load_state_dict(self.state, assign=True)
        return encoder.eval()


def read_bert(folder: str | Path) -> BertWeights:
    """The weights of a folder.

    Raises ValueError, one line, where a file is missing or damaged, or of another model.
    """
    home = Path(folder)
    try:
        config = _config(home / CONFIG)
        most = _most_tokens(home / SENTENCES)
        from safetensors.torch import load_file

        raw = load_file(home / WEIGHTS)
    except ValueError:
        raise
    except Exception as error:  # of the system, or safetensors
        raise ValueError(f"{home}: cannot be read as weights ({reason(error, 120)})") from None
    named = {name.removeprefix(_PREFIX): value.float() for name, value in raw.items()}
    try:
        state = bert_state(named)
        sizes = _sizes(config, state)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{home}: not a BERT; it lacks {error}") from None
    check_shapes(home, sizes, state)
    positions = sizes["positions"]
    return BertWeights(sizes, state, positions if most is None else min(most, positions))


def bert_state(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by our names from those by Hugging Face's. Raises KeyError for what is missing."""
    state = {
        "words.weight": raw["embeddings.word_embeddings.weight"],
        "places": raw["embeddings.position_embeddings.weight"]
        + raw["embeddings.token_type_embeddings.weight"][0],
    }
    depth = 0
    while any(name.startswith(f"{_LAYER}{depth}.") for name in raw):
        depth += 1
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = raw[f"embeddings.LayerNorm.{kind}"]
        for k in range(depth):
            theirs, ours = f"{_LAYER}{k}.", f"layers.{k}."
            query, *pair = (
                raw[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")
            )
            state[f"{ours}mixer.query.{kind}"] = query
            state[f"{ours}mixer.key_value.{kind}"] = torch.cat(pair)
            for name, part in _PARTS.items():
                state[f"{ours}{name}.{kind}"] = raw[f"{theirs}{part}.{kind}"]
    return {name: value.contiguous() for name, value in state.items()}


def check_shapes(path: Path, sizes: BertSizes, state: Mapping[str, Tensor]) -> None:
    """Raises ValueError, naming the first, for weights that are not those of such an encoder."""
    try:
        with torch.device("meta"):
            expected = BertEncoder(**sizes).state_dict()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its sizes fit no BERT ({reason(error, 120)})") from None
    if wrong := sorted(expected.keys() ^ state.keys()):
        raise ValueError(f"{path}: not a BERT of {sizes['layers']} layers; {wrong[0]} does not fit")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"{path}: {name} is {tuple(state[name].shape)} and must be {tuple(value.shape)}"
            )


def _config(path: Path) -> dict[str, object]:
    config = _json(path)
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if (stated := config.get(key, value)) != value:
            raise ValueError(f"{path}: {key} is {stated!r}, and only {value!r} is read here")
    return config


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({reason(error, 120)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no object")
    return content


def _most_tokens(path: Path) -> int | None:
    """The length that a sentence encoder was made for; None where its folder does not say."""
    if not path.is_file():
        return None
    most = _json(path).get("max_seq_length")
    if not isinstance(most, int) or most < 3:
        raise ValueError(f"{path}: max_seq_length must be a number of tokens, got {most!r}")
    return most


def _sizes(config: Mapping[str, object], state: Mapping[str, Tensor]) -> BertSizes:
    vocabulary, width = state["words.weight"].shape
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    if layers == 0:
        raise KeyError(f"{_LAYER}0")
    return {
        "vocabulary": vocabulary,
        "width": width,
        "heads": int(str(config["num_attention_heads"])),
        "layers": layers,
        "hidden": len(state["layers.0.feedforward.up.bias"]),
        "positions": len(state["places"]),
        "epsilon": float(str(config.get("layer_norm_eps", 1e-12))),
        "packed": False,
    }
