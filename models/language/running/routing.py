"""Which prompts keep all heads of a layer full: the router of a plan, asked once for each text.

Flux Attention (arXiv 2604.07394) reads the queries of a layer before positions are applied, while
the attention function of transformers gets them rotated. So a hook on `q_proj` notes its output,
and the norm that some models have behind it is applied again.
"""

from __future__ import annotations

from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..plans.plan import Plan
from ..search.flux import decide, queries_before_rope
from .cache import PlanCache, PlanLayer
from .reading import Reading

# By layer, rows of the batch that keep it full: bool (B,).
Decisions = dict[int, Tensor]


class Routing:
    """Asks the router of a plan, if it has one, and remembers its answers for each cache.

    A text is judged by the tokens of the first call on an empty cache: a prompt that is read in
    pieces is judged by the first of them. Later calls on the cache keep to the answer.
    """

    def __init__(self, plan: Plan, modules: list[nn.Module]) -> None:
        self._tensors = plan.router or {}
        self._modules = {
            layer: modules[layer] for layer, routed in enumerate(plan.routed) if routed
        }
        self._projected: dict[int, Tensor] = {}
        self._decided: WeakKeyDictionary[object, Decisions] = WeakKeyDictionary()
        for layer, module in self._modules.items():
            if not isinstance(getattr(module, "q_proj", None), nn.Module):
                raise ValueError(
                    f"layer {layer} has no q_proj of its own, whose output a router reads"
                )

    def hooks(self) -> list[RemovableHandle]:
        """What notes the queries of routed layers."""
        return [
            module.get_submodule("q_proj").register_forward_hook(partial(self._note, layer))
            for layer, module in self._modules.items()
        ]

    def _note(self, layer: int, _: nn.Module, __: object, projected: Tensor) -> None:
        self._projected[layer] = projected.detach()

    def close(self) -> None:
        """Forget all queries and answers."""
        self._projected.clear()
        self._decided.clear()

    def full(self, layer: int, reading: Reading, store: object) -> Tensor:
        """Rows for which a routed layer is full, bool (B,); store: the cache of the call, or None.

        Raises ValueError where a text goes on whose beginning the router has not read.
        """
        projected = self._projected.pop(layer)
        if reading.past == 0:
            decided = self._decide(layer, projected, reading)
            if isinstance(store, PlanCache):
                self._layer(store, layer).full = decided
            elif store is not None:
                self._decided.setdefault(store, {})[layer] = decided
            return decided
        if isinstance(store, PlanCache):
            decided = self._layer(store, layer).full
        else:
            decided = self._decided.get(store, {}).get(layer)
        if decided is None or len(decided) != len(projected):
            raise ValueError("the router has not read the beginning of this text with this cache")
        return decided

    def _decide(self, layer: int, projected: Tensor, reading: Reading) -> Tensor:
        real = reading.real
        if real is None:
            real = torch.ones(projected.shape[:2], dtype=torch.bool, device=projected.device)
        with torch.no_grad():
            queries = queries_before_rope(self._modules[layer], projected)
            tensors = {name: tensor.to(projected.device) for name, tensor in self._tensors.items()}
            return decide(tensors, layer, queries, real)

    @staticmethod
    def _layer(store: PlanCache, layer: int) -> PlanLayer:
        held = store.layers[layer]
        assert isinstance(held, PlanLayer)
        return held
