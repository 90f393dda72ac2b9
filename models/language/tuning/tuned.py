"""A causal language model of which a training changes a part, and the model as it came.

The state of either holds only what is not of the model as it came. Shapes: B texts, N tokens, C
columns, P tokens of a prefix, V words.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor, nn

from .anatomy import layer_range
from .cofitune import select, unit_masks
from .convert import Conversion, Option, convert
from .lora import add_lora, add_moe_lora
from .present import PresentTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method: TypeAlias = Literal["cofitune", "full", "lora", "moe-lora"]


@dataclass(frozen=True)
class Change:
    """What a training changes of a model.

    layers: first, last and whether they are in percent, None for all; modules: of `anatomy`; rank,
    alpha, experts, active: of updates of low rank; convert: what is turned into modules of the
    core, in these layers, with its options. All that a conversion makes new is trained.
    """

    method: Method = "cofitune"
    modules: tuple[str, ...] = ("up", "down")
    layers: tuple[float, float, bool] | None = (25.0, 50.0, True)
    rank: int = 8
    alpha: float = 16.0
    experts: int = 4
    active: int = 2
    convert: Conversion = "none"
    options: Mapping[str, Option] = field(default_factory=dict)


class LanguageModel(nn.Module):
    """A causal language model as the training and the scores call it.

    base: the model of transformers.
    """

    base: PreTrainedModel

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.base = base
        self.present = PresentTokens()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, N, V) for the token after each. tokens: int64 (B, N); mask: bool (B, N), True
        = a token.
        """
        return self.base(input_ids=tokens, attention_mask=mask, use_cache=False).logits

    def logits_at(
        self, tokens: Tensor, positions: Tensor, present: Tensor, columns: Tensor
    ) -> Tensor:
        """Logits (B, C, V) at some columns, in training as in scores.

        tokens: int64 (B, N), padded on the right; positions: int64 (B, N); where they do not go on
        by 1 another text begins, and texts do not see each other; present: bool (B, N), True = a
        token; columns: int64 (C,).
        """
        with self.present.told(present):
            return self.base(
                input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=columns
            ).logits

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of a prompt as the model is to read them."""
        return list(tokens)

    def _store_only(self, stored: frozenset[str]) -> None:
        """From now on the state holds only these weights, and loading asks for no others."""

        def drop(_: nn.Module, state: dict[str, Tensor], prefix: str, __: object) -> None:
            mine = [name for name in state if name.startswith(prefix)]
            for name in mine:
                if name.removeprefix(prefix) not in stored:
                    del state[name]

        def forgive(_: nn.Module, incompatible: nn.modules.module._IncompatibleKeys) -> None:
            missing = incompatible.missing_keys
            missing[:] = [key for key in missing if any(key.endswith(name) for name in stored)]

        self.register_state_dict_post_hook(drop)
        self.register_load_state_dict_post_hook(forgive)


class TunedModel(LanguageModel):
    """A copy of a model, part of which is trained; what is not shares its memory with the model.

    model: is left as it is. layers: numbers of the layers that are tuned; converted: whether parts
    are modules of the core.

    Raises ValueError for a change that the model does not allow.
    """

    def __init__(self, model: PreTrainedModel, change: Change) -> None:
        super().__init__(_sharing_copy(model))
        base = self.base
        self.change = change
        self.layers: Sequence[int] = range(base.config.get_text_config().num_hidden_layers)
        if change.method != "full" or change.convert != "none":
            self.layers = layer_range(change.layers, len(self.layers))
        buffers = {name for name, _ in base.named_buffers()}
        fresh = convert(base, change.convert, self.layers, self.present, change.options)
        self._choose(change)
        for weight in fresh:
            weight.requires_grad_(True)
        trained = [name for name, weight in self.named_parameters() if weight.requires_grad]
        if not trained:
            raise ValueError("nothing of the model would be trained")
        added = [f"base.{name}" for name, _ in base.named_buffers() if name not in buffers]
        self._store_only(frozenset([*trained, *added]))
        shared = {weight.data_ptr() for weight in model.parameters()}
        for weight in self.trained():
            if weight.data_ptr() in shared:
                weight.data = weight.data.clone()
        self.masks: dict[nn.Parameter, Tensor] = {}

    def _choose(self, change: Change) -> None:
        base = self.base
        if change.method == "full":
            base.requires_grad_(True)
        elif change.method == "cofitune":
            select(base, self.layers, change.modules)
        else:
            base.requires_grad_(False)
            ranks = {"rank": change.rank, "alpha": change.alpha}
            if change.method == "lora":
                add_lora(base, self.layers, change.modules, **ranks)  # type: ignore[arg-type]
            else:
                counts = {"experts": change.experts, "active": change.active}
                add_moe_lora(
                    base,
                    self.layers,
                    change.modules,
                    self.present,
                    **counts,
                    **ranks,  # type: ignore[arg-type]
                )

    def protect(self, importance: Mapping[int, Tensor]) -> None:
        """Let an optimiser take 1 - importance of the steps of hidden units, see `unit_masks`."""
        chosen = {layer: values for layer, values in importance.items() if layer in self.layers}
        self.masks = unit_masks(self.base, chosen)

    def trained(self) -> list[nn.Parameter]:
        """The weights that a training changes."""
        return [weight for weight in self.parameters() if weight.requires_grad]


def _sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose weights are the same memory."""
    memo: dict[int, object] = {
        id(weight): nn.Parameter(weight.detach(), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, memo)


class ModelAsItCame(LanguageModel):
    """A model that nothing is changed of, with some tokens before each text: examples of the task,
    or none.

    model: is shared. prefix: int64 (P,), whose loss does not count.
    """

    prefix: Tensor

    def __init__(self, model: PreTrainedModel, prefix: Tensor | None = None) -> None:
        super().__init__(model)
        empty = torch.zeros(0, dtype=torch.int64)
        self.register_buffer("prefix", empty if prefix is None else prefix)
        self._store_only(frozenset(["prefix"]))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """As of `LanguageModel`; the prefix has no logits."""
        if mask is not None:
            mask = torch.cat([torch.ones_like(mask[:, :1]).expand(-1, len(self.prefix)), mask], 1)
        return super().forward(self._after_prefix(tokens), mask)[:, len(self.prefix) :]

    def logits_at(
        self, tokens: Tensor, positions: Tensor, present: Tensor, columns: Tensor
    ) -> Tensor:
        """As of `LanguageModel`; the texts are not packed."""
        count = len(self.prefix)
        first = torch.arange(count, device=tokens.device).expand(len(tokens), -1)
        there = torch.ones_like(first, dtype=torch.bool)
        return super().logits_at(
            self._after_prefix(tokens),
            torch.cat([first, positions + count], 1),
            torch.cat([there, present], 1),
            columns + count,
        )

    def prompt(self, tokens: Sequence[int]) -> list[int]:
        """The prefix and the tokens."""
        return [*self.prefix.tolist(), *tokens]

    def _after_prefix(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.prefix.expand(len(tokens), -1), tokens], 1)
