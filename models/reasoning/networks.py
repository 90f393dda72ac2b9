"""Networks that read a rule and a scene and give one of 138 answers.

Four ways in which the two meet: the rule asks the scene (`CrossReasoner`), latent vectors ask both
(`PerceiverReasoner`), both in one row (`SingleReasoner`), two streams that are joined in the last
layer (`DoubleReasoner`); and a recurrent network that reads one after the other
(`RecurrentReasoner`). All but the last answer alike whatever the order of the objects is, with
mechanisms that do.

Shapes: B trials, R nodes, O objects, D width; inputs as in `tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ..attention import build_attention, names_with
from ..attention.base import Attention
from ..layers.blocks import EncoderLayer, NetworkKind, build_feedforward
from .tokens import TrialTokens

ReasonerName = Literal["cross", "single", "double", "perceiver", "recurrent"]
ANSWERS = 138


@dataclass(frozen=True)
class ReasonerOptions:
    """Options of all networks.

    width: D; heads; layers; attention: a mechanism of the core, and options of it; ffn; dropout;
    tree: whether nodes attend along the tree only; latents: of the Perceiver.
    """

    width: int = 64
    heads: int = 4
    layers: int = 2
    attention: str = "softmax"
    attention_options: Mapping[str, object] = field(default_factory=dict)
    ffn: NetworkKind = "mlp"
    dropout: float = 0.0
    tree: bool = False
    latents: int = 16


class Reasoner(nn.Module):
    """Base of the networks: `forward(rules, scenes) -> logits`."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__()
        if options.layers < 1 or options.width < 1:
            raise ValueError(
                f"{type(self).__name__}: needs a width and a layer, got {options.width} and "
                f"{options.layers}"
            )
        if options.ffn == "convglu":
            raise ValueError(
                f"{type(self).__name__}: convglu needs tokens on a grid; take mlp, glu or moe"
            )
        self.options = options
        self.tokens = TrialTokens(options.width)
        self.norm = nn.LayerNorm(options.width)
        self.head = nn.Linear(options.width, ANSWERS)

    def forward(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """rules (B, R, 5), scenes (B, O, 4) -> logits (B, 138)."""
        return self.head(self.norm(self.state(rules, scenes)))

    def state(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """What the answer is read from, (B, D)."""
        raise NotImplementedError

    def attended(self, rules: Tensor, scenes: Tensor) -> dict[str, Tensor]:
        """Attention on the objects (B, O) by who attends in which layer, mean over the heads; its
        sum is what is not spent on other tokens.

        Raises ValueError for a network or a mechanism without attention weights.
        """
        raise ValueError(f"{type(self).__name__} has no attention weights")

    def _mixer(self) -> Attention:
        chosen = self.options
        mixer = build_attention(
            chosen.attention, chosen.width, chosen.heads, **chosen.attention_options
        )
        if "size" in mixer.extras:
            raise ValueError(f"{chosen.attention!r} is for grids, not for nodes and objects")
        return mixer

    def _layer(self) -> EncoderLayer:
        chosen = self.options
        network = build_feedforward(chosen.ffn, chosen.width, dropout=chosen.dropout)
        return EncoderLayer(
            chosen.width, self._mixer(), network, dropout=chosen.dropout, norm="pre"
        )

    def _check_tree(self, mixer: Attention) -> None:
        if self.options.tree and "pairs" not in mixer.masks:
            raise ValueError(f"{self.options.attention!r} takes no mask of pairs, as a tree needs")


class AskingLayer(nn.Module):
    """Tokens that attend to each other, then to the tokens of a context, then pass a network.

    within, layer: the mixer among the tokens, and the layer that asks the context.
    """

    def __init__(self, within: Attention, layer: EncoderLayer, width: int) -> None:
        super().__init__()
        self.norm, self.within, self.layer = nn.LayerNorm(width), within, layer

    def forward(self, x: Tensor, mask: Tensor | None, context: Tensor, present: Tensor) -> Tensor:
        """x (B, N, D), mask of its tokens; context (B, M, D), present (B, M) -> (B, N, D)."""
        x = x + self.within(self.norm(x), mask=mask)
        return self.layer(x, context, mask=present)

    def looks(self, x: Tensor, mask: Tensor | None, context: Tensor, present: Tensor) -> Tensor:
        """Attention of x on the context, (B, N, M), mean over the heads."""
        x = x + self.within(self.norm(x), mask=mask)
        mixer = self.layer.mixer
        assert isinstance(mixer, Attention)
        return mixer.weights(self.layer.norm1(x), context, mask=present).mean(1)


class _Asking(Reasoner):
    """What `CrossReasoner` and `PerceiverReasoner` have in common."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        if not self._mixer().crosses:
            known = ", ".join(names_with("context"))
            raise ValueError(f"{options.attention!r} takes no context; take one of {known}")
        self.context_norm = nn.LayerNorm(options.width)
        self.layers = nn.ModuleList(
            AskingLayer(self._mixer(), self._layer(), options.width) for _ in range(options.layers)
        )

    def _sides(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Who asks, with its mask; who is asked, and which of these are there."""
        raise NotImplementedError

    def _pooled(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def state(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """As in `Reasoner`."""
        x, mask, context, present = self._sides(rules, scenes)
        for layer in self.layers:
            x = layer(x, mask, context, present)
        return self._pooled(x)


class CrossReasoner(_Asking):
    """The answer token and the nodes of the rule attend to each other, then to the objects."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        self._check_tree(self._mixer())

    def _sides(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        nodes, present, objects, occupied = self.tokens(rules, scenes)
        mask = self.tokens.tree_mask(present) if self.options.tree else present
        return nodes, mask, self.context_norm(objects), occupied

    def _pooled(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def attended(self, rules: Tensor, scenes: Tensor) -> dict[str, Tensor]:
        """As in `Reasoner`: of the answer token, and of the nodes."""
        x, mask, context, present = self._sides(rules, scenes)
        looks = {}
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, AskingLayer)
            weights = layer.looks(x, mask, context, present)
            looks |= _by_side(weights, rules, f"layer {number}")
            x = layer(x, mask, context, present)
        return looks


class PerceiverReasoner(_Asking):
    """Learned latents, all different, that attend to each other, then to nodes and objects."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        if options.latents < 1:
            raise ValueError(f"PerceiverReasoner: needs a latent, got {options.latents}")
        self.latents = nn.Parameter(torch.randn(options.latents, options.width))

    def _sides(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        nodes, present, objects, occupied = self.tokens(rules, scenes)
        context = self.context_norm(torch.cat([nodes, objects], 1))
        latents = self.latents.expand(rules.shape[0], -1, -1)
        return latents, None, context, torch.cat([present, occupied], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        return x.mean(1)

    def attended(self, rules: Tensor, scenes: Tensor) -> dict[str, Tensor]:
        """As in `Reasoner`: the mean of the latents."""
        x, mask, context, present = self._sides(rules, scenes)
        looks = {}
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, AskingLayer)
            weights = layer.looks(x, mask, context, present).mean(1)
            looks[f"layer {number}, latents"] = weights[:, rules.shape[1] + 1 :]
            x = layer(x, mask, context, present)
        return looks


class SingleReasoner(Reasoner):
    """Answer, nodes and objects in one row, whose tokens all attend to each other."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        self.layers = nn.ModuleList(self._layer() for _ in range(options.layers))
        self._check_tree(self._mixer())

    def _row(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor]:
        nodes, present, objects, occupied = self.tokens(rules, scenes)
        row, present_row = torch.cat([nodes, objects], 1), torch.cat([present, occupied], 1)
        return row, self._mask(present, present_row)

    def _mask(self, present: Tensor, present_row: Tensor) -> Tensor:
        if not self.options.tree:
            return present_row
        extra = present_row.shape[1] - present.shape[1]
        tree = self.tokens.tree_mask(torch.ones_like(present))
        tree = torch.nn.functional.pad(tree, (0, extra, 0, extra), value=True)
        return tree & present_row[:, None]

    def state(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """As in `Reasoner`."""
        x, mask = self._row(rules, scenes)
        static = x
        for layer in self.layers:
            x = layer(x, mask=mask, static=static)
        return x[:, 0]

    def attended(self, rules: Tensor, scenes: Tensor) -> dict[str, Tensor]:
        """As in `Reasoner`: of the answer token, and of the nodes."""
        x, mask = self._row(rules, scenes)
        looks, static = {}, x
        for number, layer in enumerate(self.layers, 1):
            weights = _weights(layer, x, mask)[:, :, rules.shape[1] + 1 :]
            looks |= _by_side(weights, rules, f"layer {number}")
            x = layer(x, mask=mask, static=static)
        return looks


class DoubleReasoner(SingleReasoner):
    """Two streams, nodes and objects, each with layers of its own, joined in the last layer."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        if options.layers < 2:
            raise ValueError("DoubleReasoner: needs a layer of each stream and one that joins them")
        del self.layers[1:]
        before = options.layers - 1
        self.node_layers = nn.ModuleList(self._layer() for _ in range(before))
        self.object_layers = nn.ModuleList(self._layer() for _ in range(before))

    def _row(self, rules: Tensor, scenes: Tensor) -> tuple[Tensor, Tensor]:
        nodes, present, objects, occupied = self.tokens(rules, scenes)
        node_mask = self.tokens.tree_mask(present) if self.options.tree else present
        static_nodes, static_objects = nodes, objects
        for of_nodes, of_objects in zip(self.node_layers, self.object_layers, strict=True):
            nodes = of_nodes(nodes, mask=node_mask, static=static_nodes)
            objects = of_objects(objects, mask=occupied, static=static_objects)
        row, present_row = torch.cat([nodes, objects], 1), torch.cat([present, occupied], 1)
        return row, self._mask(present, present_row)


class RecurrentReasoner(Reasoner):
    """Gated recurrent units that read the nodes, then the objects in the order of their cells."""

    def __init__(self, options: ReasonerOptions) -> None:
        super().__init__(options)
        width, layers = options.width, options.layers
        self.reads_nodes = nn.GRU(width, width, layers, batch_first=True)
        self.reads_objects = nn.GRU(width, width, layers, batch_first=True)

    def state(self, rules: Tensor, scenes: Tensor) -> Tensor:
        """As in `Reasoner`."""
        nodes, present, objects, occupied = self.tokens(rules, scenes)
        memory = _read(self.reads_nodes, nodes, present, None)
        return _read(self.reads_objects, objects, occupied, memory)[-1]


def _read(network: nn.GRU, x: Tensor, present: Tensor, memory: Tensor | None) -> Tensor:
    """The states (L, B, D) after the tokens that are there, which stand first; those before where
    there are none.
    """
    lengths = present.sum(1)
    packed = nn.utils.rnn.pack_padded_sequence(
        x, lengths.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False
    )
    state = network(packed, memory)[1]
    if memory is None:
        return state
    return torch.where((lengths > 0)[None, :, None], state, memory)


def _weights(layer: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Attention of the tokens on each other, (B, N, N), mean over the heads."""
    assert isinstance(layer, EncoderLayer)
    mixer = layer.mixer
    if not isinstance(mixer, Attention) or "static" in mixer.extras:
        raise ValueError(f"{type(mixer).__name__} has no attention weights of a scene")
    return mixer.weights(layer.norm1(x), mask=mask).mean(1)


def _by_side(weights: Tensor, rules: Tensor, where: str) -> dict[str, Tensor]:
    """Attention of the answer token, and the mean of that of the questions, (B, O) each."""
    asks = ((rules[..., 0] > 0) & (rules[..., 0] < 9)).to(weights.dtype)
    of_nodes = weights[:, 1 : 1 + rules.shape[1]]
    mean = (of_nodes * asks[..., None]).sum(1) / asks.sum(1, keepdim=True).clamp_min(1)
    return {f"{where}, answer": weights[:, 0], f"{where}, questions": mean}


REASONERS: Mapping[ReasonerName, type[Reasoner]] = {
    "cross": CrossReasoner,
    "single": SingleReasoner,
    "double": DoubleReasoner,
    "perceiver": PerceiverReasoner,
    "recurrent": RecurrentReasoner,
}


def build_reasoner(name: ReasonerName, options: ReasonerOptions) -> Reasoner:
    """A network with new weights. Raises ValueError for options that do not fit together.

    >>> build_reasoner("cross", ReasonerOptions(width=8, heads=2)).head.out_features
    138
    """
    return REASONERS[name](options)
