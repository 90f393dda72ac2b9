"""What a plan of attention must know of the causal language model that it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Entries of a configuration that decide what the attention of a model computes. The rest (file
# names, precision, release of transformers) differs between copies of the same model.
_DECIDING = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rope_parameters",
    "sliding_window", "layer_types",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """The shape of a causal language model's attention.

    architecture: `model_type` of the configuration; layers, heads, kv_heads, head_width; positions:
    the longest text in tokens; sha256: of the entries of the configuration that decide what the
    attention computes (not of the weights, nor of their precision); windows: by layer, the model's
    own sliding window in tokens, None for full attention. Only layers of full attention are
    planned.
    """

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    positions: int
    sha256: str
    windows: tuple[int | None, ...]

    def __post_init__(self) -> None:
        counts = (self.layers, self.heads, self.kv_heads, self.head_width, self.positions)
        if min(counts) < 1 or self.heads % self.kv_heads or len(self.windows) != self.layers:
            raise ValueError(
                f"not the shape of a language model: {self.layers} layers, {self.heads} heads,"
                f" {self.kv_heads} key-value heads of {self.head_width},"
                f" {self.positions} positions, {len(self.windows)} windows"
            )

    @classmethod
    def of(cls, model: nn.Module) -> ModelFacts:
        """The facts of a causal language model of transformers.

        Raises ValueError where the model has no configuration that says them.
        """
        config = getattr(model, "config", None)
        if config is None or not hasattr(config, "get_text_config"):
            raise ValueError(f"{type(model).__name__} is no language model of transformers")
        return cls.of_config(config)

    @classmethod
    def of_config(cls, config: PreTrainedConfig) -> ModelFacts:
        """As `of`, from the configuration alone."""
        config = config.get_text_config(decoder=True)
        try:
            entries = {name: getattr(config, name, None) for name in _DECIDING}
        except RuntimeError:  # an entry that differs from layer to layer
            raise ValueError(f"{config.model_type} has layers of different shapes") from None
        layers, heads = entries["num_hidden_layers"], entries["num_attention_heads"]
        if not isinstance(layers, int) or not isinstance(heads, int):
            raise ValueError(f"the configuration of {config.model_type} names no layers and heads")
        types = entries["layer_types"]
        # Models whose configuration has no such entry by itself do not read it.
        known = hasattr(type(config), "sliding_window")
        window = entries["sliding_window"] if known else None
        if types is None:
            types = ["full_attention" if window is None else "sliding_attention"] * layers
        if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
            raise ValueError(
                f"layers of {unknown[0]} are not supported: a plan cuts full attention"
            )
        positions = entries["max_position_embeddings"]
        return cls(
            architecture=config.model_type,
            layers=layers,
            heads=heads,
            kv_heads=entries["num_key_value_heads"] or heads,
            head_width=entries["head_dim"] or config.hidden_size // heads,
            positions=positions if isinstance(positions, int) else 1 << 30,
            sha256=_sha256(entries),
            windows=tuple(window if kind == "sliding_attention" else None for kind in types),
        )

    def planned(self, layer: int) -> bool:
        """Whether a layer has full attention, so that a plan may cut it."""
        return self.windows[layer] is None


def _sha256(entries: Mapping[str, object]) -> str:
    text = json.dumps(entries, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
