"""The cache of a language model under a plan: what a plan forgets is not held in memory.

Shapes: B rows of a batch, KV heads of keys and values, T tokens so far, N new tokens, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from ..plans.grouping import LayerPlan
from ..plans.plan import Plan
from .attending import Call, attend_dense, attend_parts, dense
from .parts import Part, parts_of
from .reading import Reading


class WindowLayer(DynamicSlidingWindowLayer):
    """The model's own layer of a sliding window, without the memory of the tokens it has left.

    The original goes on holding the text of a call through views of it until the next call.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that new tokens may attend to, after these were added."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        assert self.keys is not None
        assert self.values is not None
        if self.keys.shape[2] < keys.shape[2]:
            self.keys, self.values = self.keys.clone(), self.values.clone()
        return keys, values


class PlanLayer(CacheLayerMixin):
    """One layer: all heads together as long as nothing is forgotten, then a part for each group.

    parts: what is held; split: whether by group; columns: tokens so far, padding included; full:
    bool (B,), rows for which a router keeps all heads full, None before it was asked; announced:
    whether a call of the attached model is about to add tokens.
    """

    is_croppable = False
    is_sliding = False
    is_compileable = False

    def __init__(self, plan: LayerPlan) -> None:
        super().__init__()
        self.plan = plan
        self.parts: list[Part] = []
        self.columns = 0
        self.batch = 0
        self.split = False
        self.full: Tensor | None = None
        self.announced = False

    # What transformers calls.

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is allocated ahead."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The new tokens alone: they are added when their queries attend (`attend`).

        Raises ValueError where the model's own attention would take them for all tokens.
        """
        if not self.announced:
            raise ValueError(
                "the block of attach that this cache is of is over, or the model is not attached; "
                "call it inside the block, or read the text again without this cache"
            )
        self.is_initialized, self.announced = True, False
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and start of the mask: of all tokens, since each group takes what it holds."""
        return self.columns + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens so far, padding included."""
        return self.columns

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Forget everything."""
        self.parts, self.columns, self.batch = [], 0, 0
        self.split, self.full = False, None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Raise ValueError: what was forgotten for the last tokens cannot come back."""
        if tokens_to_remove:
            raise ValueError("a cache that a plan has cut cannot go back to an earlier token")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these rows, as beam search asks."""
        self.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.select(torch.arange(self.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some rows: of their numbers, or where a mask is true."""
        self.select(indices.nonzero().flatten() if indices.dtype == torch.bool else indices)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, int64, some perhaps repeated."""
        if not self.parts:
            return
        rows = rows.to(self.parts[0].keys.device)
        self.parts = [part for part in self.parts if part.select(rows, self.batch)]
        self.full = None if self.full is None else self.full[rows]
        self.batch = len(rows)

    # Attention.

    def attend(self, call: Call, keys: Tensor, values: Tensor) -> Tensor:
        """Add new tokens and let their queries attend: (B, Q, H, d).

        keys, values: (B, KV, N, d), of the new tokens.
        """
        for part in self.parts:
            part.extend(keys, values, call.reading)
        if not self.parts:
            self.parts, self.batch = [Part.of(self.plan.all_heads, None, keys, values)], len(keys)
        self.columns += keys.shape[2]
        if not self.split:
            states = self.parts[0].keys, self.parts[0].values
            shares = self.plan.sharing(self.full)
            if dense(self.plan, shares, call):
                return attend_dense(call, *states)
            self.parts, self.split = parts_of(shares, *states, call.reading), True
        # What one query does not see is forgotten before it attends, so that no mask is needed.
        if call.reading.decoding:
            self._trim(call.reading)
            return attend_parts(call, self.parts)
        output = attend_parts(call, self.parts)
        self._trim(call.reading)
        return output

    def _trim(self, reading: Reading) -> None:
        for part in self.parts:
            part.trim(reading)
            part.free()

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values that are held."""
        for part in self.parts:
            yield part.keys
            yield part.values


class PlanCache(Cache):
    """The cache of a model under a plan, made by `Attached.cache`.

    layers: a `PlanLayer` where the plan says anything, else what the model itself has. tokens: ids
    that were read, int64 (B, T), -1 where the model was given vectors; real: bool (B, T), False for
    padding. weights: gives a mark of the model's weights, which keys and values depend on.
    """

    def __init__(self, plan: Plan, plans: list[LayerPlan], weights: Callable[[], str]) -> None:
        super().__init__(layers=[self._layer(plan, layer_plan) for layer_plan in plans])
        self.plan = plan
        self.weights = weights
        self.tokens: Tensor | None = None
        self.real: Tensor | None = None

    @staticmethod
    def _layer(plan: Plan, layer_plan: LayerPlan) -> CacheLayerMixin:
        window = plan.facts.windows[layer_plan.layer]
        if window is not None:
            return WindowLayer(sliding_window=window)
        return DynamicLayer() if layer_plan.plain else PlanLayer(layer_plan)

    def bytes(self) -> int:
        """Memory of keys and values in bytes, with what views keep from being freed.

        Beside it, 9 bytes a token are held for what was read, and 8 for its position in each group.
        """
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in self.tensors()
        }
        return sum(storages.values())

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values of all layers."""
        for layer in self.layers:
            if isinstance(layer, PlanLayer):
                yield from layer.tensors()
            elif isinstance(layer, DynamicLayer) and layer.keys is not None:
                assert layer.values is not None
                yield layer.keys
                yield layer.values

    def __deepcopy__(self, memo: dict[int, object]) -> PlanCache:
        """A cache of its own for another question on the same text; the model is not copied."""
        shared: list[object] = [self.plan, self.weights]
        for layer in self.layers:
            if isinstance(layer, PlanLayer):
                shared += [layer.plan, layer.plan.all_heads, *layer.plan.groups]
        memo.update({id(part): part for part in shared})
        twin = PlanCache.__new__(PlanCache)
        memo[id(self)] = twin
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return twin

    def note(
        self, tokens: Tensor | None, reading: Reading, batch: int, device: torch.device
    ) -> None:
        """Remember what a call reads, and expect it: ids (B, N), or None for vectors."""
        for layer in self.layers:
            if isinstance(layer, PlanLayer):
                layer.announced = True
        if tokens is None:
            tokens = torch.full((batch, reading.new), -1, device=device)
        real = torch.ones(tokens.shape, dtype=torch.bool, device=device)
        if reading.real is not None:
            real = reading.real[:, reading.past :]
        if self.tokens is None or self.real is None:
            self.tokens, self.real = tokens.long(), real
        else:
            self.tokens = torch.cat([self.tokens, tokens.long()], 1)
            self.real = torch.cat([self.real, real], 1)

    def _select(self, rows: Tensor) -> None:
        if self.tokens is not None and self.real is not None:
            rows = rows.to(self.tokens.device)
            self.tokens, self.real = self.tokens[rows], self.real[rows]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these rows, as beam search asks."""
        for layer in self.layers:
            layer.reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, as for several answers to one question."""
        super().batch_repeat_interleave(repeats)
        if self.tokens is not None:
            self._select(torch.arange(len(self.tokens)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Go on with some rows: of their numbers, or where a mask is true."""
        super().batch_select_indices(indices)
        self._select(indices)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.tokens = self.real = None
