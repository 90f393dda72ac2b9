"""A plan of attention at work in a language model of transformers.

    with attach(model, plan) as attached:
        model.generate(**prompts, cache=attached.cache())

Nothing global is patched, see `using_attention`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from torch import Tensor, nn

from ....base.errors import shown
from ....kernels.precision import match_autocast
from ..plans.grouping import LayerPlan
from ..plans.plan import Plan
from .attending import Call, attend_dense, attend_parts, dense
from .cache import PlanCache, PlanLayer
from .cache_file import weights_mark
from .implementation import layer_of, using_attention
from .parts import parts_of
from .reading import Reading, read_mask
from .routing import Routing
from .supported import attention_layers, text_decoder

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

_ATTACHED: WeakSet[nn.Module] = WeakSet()  # attention modules


@contextmanager
def attach(model: PreTrainedModel, plan: Plan, *, beyond: bool = False) -> Iterator[Attached]:
    """Let a causal language model attend by a plan inside a block.

    Calls and `generate` with a cache of `Attached.cache` hold only what the plan keeps. With any
    other cache, and without one, the same tokens are computed from all keys under masks. Several
    models may be attached at once, also with the same configuration object; a model to one plan.
    Calls of one model must not run side by side in threads.

    beyond: go on past the longest text that the model was made for.

    Raises ValueError, in one line, for a plan of another model and for a model that a plan cannot
    be used on: with a cap on scores (softcap), learnt sinks (s_aux), ALiBi, an encoder, keys of
    low rank (MLA) or layers without softmax attention.
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"attach: needs a Plan (Plan.read reads a file), got {shown(plan)}")
    plan.check(model)
    modules = attention_layers(model)
    if any(module in _ATTACHED for module in modules):
        raise ValueError("the model is attached to a plan already; leave that block first")
    attached = Attached(model, plan, modules, beyond)
    with using_attention(model, modules, attached.attend):
        hooks = attached.hooks(text_decoder(model))
        _ATTACHED.update(modules)
        try:
            yield attached
        finally:
            _ATTACHED.difference_update(modules)
            for hook in hooks:
                hook.remove()
            attached.close()


class Attached:
    """A model and the plan it attends by."""

    def __init__(
        self, model: PreTrainedModel, plan: Plan, modules: list[nn.Module], beyond: bool
    ) -> None:
        self.model, self.plan = model, plan
        self.layers = [LayerPlan.of(plan, layer) for layer in range(plan.facts.layers)]
        self._most = None if beyond else plan.facts.positions
        self._routing = Routing(plan, modules)
        self._reading: Reading | None = None
        self._cache: object = None
        self._open = True

    def cache(self) -> PlanCache:
        """An empty cache for one batch of texts, which holds what the plan keeps.

        Raises ValueError after the block of `attach`.
        """
        if not self._open:
            raise ValueError("the block of attach is over; make the cache inside it")
        return PlanCache(self.plan, self.layers, self.weights)

    def weights(self) -> str:
        """A mark of the model's weights: SHA-256 of the first numbers of each."""
        return weights_mark(self.model)

    def close(self) -> None:
        """Forget the last call, and make no caches any more."""
        self._reading, self._cache, self._open = None, None, False
        self._routing.close()

    def hooks(self, decoder: nn.Module) -> list[RemovableHandle]:
        """What notes each call of the model before it is made."""
        names = list(inspect.signature(type(decoder).forward).parameters)[1:]

        def note(_: nn.Module, positional: tuple[object, ...], named: dict[str, object]) -> None:
            self._begin({**dict(zip(names, positional)), **named})

        return [decoder.register_forward_pre_hook(note, with_kwargs=True), *self._routing.hooks()]

    def _begin(self, arguments: Mapping[str, object]) -> None:
        """Read the mask of a call, and remember its cache."""
        if arguments.get("past_key_values") is not None:
            raise ValueError("give the cache as `cache`, not as `past_key_values`")
        store = arguments.get("cache")
        past, remembered = 0, None
        if store is not None:
            if getattr(store, "is_compileable", False):
                raise ValueError("a static cache cannot be cut; use Attached.cache()")
            past = store.get_seq_length()  # type: ignore[attr-defined]
        if isinstance(store, PlanCache):
            if store.plan is not self.plan and store.plan.digest() != self.plan.digest():
                raise ValueError("the cache was made for another plan; use Attached.cache()")
            self._adopt(store)
            remembered = store.real
        batch, new, real, device = read_mask(arguments, past, remembered)
        if not batch:
            raise ValueError("a batch without texts: a model with a plan needs one or more")
        reading = Reading.of(batch, past, new, real, device)
        if self._most is not None and max(reading.counts) > self._most:
            raise ValueError(
                f"a text of {max(reading.counts)} tokens; the model was made for {self._most} at"
                " most (attach with beyond=True to go on)"
            )
        if isinstance(store, PlanCache):
            ids = arguments.get("input_ids")
            store.note(ids if isinstance(ids, Tensor) else None, reading, batch, device)
        self._reading, self._cache = reading, store

    def _adopt(self, store: PlanCache) -> None:
        """Go on with a cache of another block. Raises ValueError where the model differs."""
        if store.weights == self.weights:
            return
        if store.tokens is not None and store.weights() != self.weights():
            raise ValueError("the cache was filled by another model; read its text again")
        store.weights = self.weights

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """See `Attending`; keys and values are of all tokens so far or, from a `PlanLayer`, new
        ones.
        """
        layer = layer_of(module)
        reading, plan, store = self._reading, self.layers[layer], self._cache
        if reading is None:
            raise ValueError("call the model as a whole: a plan must see the mask of its tokens")
        budget = self.plan.budget
        if not reading.decoding or (budget and budget.keys >= max(reading.counts)):
            budget = None
        # Under autocast queries and keys come rotated in float32, values in 16 bits.
        query, key, value = match_autocast(query, key, value)
        call = Call(module, query, mask, scaling, dropout, reading, budget)
        if plan.plain:
            return attend_dense(call, key, value)
        full = self._routing.full(layer, reading, store) if plan.routed else None
        if isinstance(store, PlanCache):
            held = store.layers[layer]
            assert isinstance(held, PlanLayer)
            return held.attend(call, key, value)
        shares = plan.sharing(full)
        if dense(plan, shares, call):
            return attend_dense(call, key, value)
        return attend_parts(call, parts_of(shares, key, value, reading))
