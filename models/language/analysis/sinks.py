"""Figures of attention sinks from one forward pass: who draws attention, and who writes it.

Shapes: B texts, T tokens, L layers, D width, R candidates for the primary sink.

Hooks reduce every layer to a few numbers for each token as soon as it has run, so neither the maps
nor the states of all layers are held. `sink_kinds` says what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .sink_kinds import REFERENCES, Sink, TextFigures
from .watching import WatchedLayer, decoder_layers, watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StateFigures:
    """Of states. norm: (B, T); cosine, centred: (B, R, T), with the candidates."""

    norm: Tensor
    cosine: Tensor
    centred: Tensor


def first_places(present: Tensor, count: int = REFERENCES) -> Tensor:
    """Places of the first real tokens: present bool (B, T), padding on either side -> int64 (B,
    count). A text with fewer has its last one again.
    """
    order = torch.where(present, present.cumsum(1), present.shape[1] + 1)
    places = order.argsort(dim=1, stable=True)[:, :count]
    lengths = present.sum(1, keepdim=True)
    if (lengths < 1).any():
        raise ValueError("sinks: a text has no token")
    steps = torch.arange(places.shape[1], device=places.device).minimum(lengths - 1)
    return places.gather(1, steps)


def state_figures(states: Tensor, present: Tensor, references: Tensor) -> StateFigures:
    """states: (B, T, D); present: bool (B, T); references: int64 (B, R), places of candidates.

    Centred: the mean of all real tokens but the candidate is taken off the candidate and the
    others. So rotating the states and scaling them changes nothing.
    """
    states = states.float()
    real = states * present[..., None]
    count = present.sum(1)[:, None, None]
    chosen = _gather(states, references)  # (B, R, D)
    mean = (real.sum(1, keepdim=True) - chosen) / (count - 1).clamp(min=1)
    centred = [
        _cosine(states - mean[:, [place]], chosen[:, [place]] - mean[:, [place]])
        for place in range(references.shape[1])
    ]
    cosine = [_cosine(states, chosen[:, [place]]) for place in range(references.shape[1])]
    return StateFigures(states.norm(dim=-1), torch.stack(cosine, 1), torch.stack(centred, 1))


def _gather(values: Tensor, places: Tensor) -> Tensor:
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return torch.cosine_similarity(first, second, dim=-1, eps=1e-30)


class _Collector:
    """Reduces what the hooks see, layer by layer."""

    def __init__(self, present: Tensor) -> None:
        self.present = present
        self.references = first_places(present)
        self.figures: dict[str, list[Tensor]] = {}
        self.written: Tensor | None = None

    def _store(self, name: str, values: Tensor) -> None:
        self.figures.setdefault(name, []).append(values.detach().float().cpu())

    def attention(self, layer: WatchedLayer) -> None:
        masses = layer.key_masses(self.present)
        self._store("mass", masses.mass)
        self._store("uniform", masses.uniform)
        self._store("later", masses.later)
        self._store("value_norm", layer.value.float().norm(dim=-1).mean(1))

    def mlp(self, module: nn.Module, arguments: tuple[object, ...], result: object) -> None:
        self.written = tensor_of(result)

    def layer(self, module: nn.Module, arguments: tuple[Tensor, ...], result: object) -> None:
        """arguments: hidden states before the layer first, as transformers passes them."""
        written, self.written = self.written, None
        if written is None:
            raise ValueError(f"{type(module).__name__}: its MLP did not run")
        written, after = written.float(), tensor_of(result).float()
        change = after - arguments[0].float()
        read = state_figures(after, self.present, self.references)
        self._store("norm", read.norm)
        self._store("cosine", read.cosine)
        self._store("centred", read.centred)
        self._store("mlp_norm", written.norm(dim=-1))
        chosen = _gather(written, self.references)
        alike = [_cosine(written, chosen[:, [place]]) for place in range(chosen.shape[1])]
        self._store("mlp_cosine", torch.stack(alike, 1))
        size = change.square().sum(-1).clamp(min=1e-30)
        self._store("mlp_share", (written * change).sum(-1) / size)

    def texts(self, last_states: Tensor) -> list[TextFigures]:
        """Figures of each text, without its padding."""
        last = state_figures(last_states, self.present, self.references)
        stacked = {name: torch.stack(values) for name, values in self.figures.items()}
        texts = []
        for row, real in enumerate(self.present.cpu()):
            places = self.references[row].cpu()
            # The candidate whose states are longest on the mean, as in the published code.
            norms = stacked["norm"][:, row, places].mean(0)
            best = int(norms.argmax())
            reference = int((real.cumsum(0) - 1)[places[best]])
            figures: dict[str, Tensor] = {}
            for name, values in stacked.items():
                of_text = values[:, row]
                figures[name] = (of_text[:, best] if of_text.ndim == 3 else of_text)[:, real]
            texts.append(
                TextFigures(
                    reference=reference,
                    last_norm=last.norm[row].cpu()[real],
                    last_cosine=last.cosine[row, best].cpu()[real],
                    **figures,
                )
            )
        return texts


@torch.no_grad()
def measure_sinks(
    model: PreTrainedModel, ids: Tensor, present: Tensor | None = None
) -> list[TextFigures]:
    """Figures of each text, from one forward pass.

    ids: int64 (B, T); present: bool (B, T), False = padding, on either side. Raises ValueError for
    a model whose attention cannot be watched or whose layers have no MLP of the usual place.
    """
    present = torch.ones_like(ids, dtype=torch.bool) if present is None else present.bool()
    layers, collector = decoder_layers(model), _Collector(present)
    with ExitStack() as stack:
        stack.enter_context(watched(model, collector.attention))
        for layer in layers:
            hook = writer_of(layer).register_forward_hook(collector.mlp)
            stack.callback(hook.remove)
            stack.callback(layer.register_forward_hook(collector.layer).remove)
        last_states = run_decoder(model, ids, present)
    return collector.texts(last_states)


def run_decoder(model: PreTrainedModel, ids: Tensor, present: Tensor) -> Tensor:
    """The last states (B, T, D), after the final normalisation, without logits."""
    positions = (present.cumsum(1) - 1).clamp(min=0)
    decoder = model.get_decoder()
    return decoder(
        input_ids=ids, attention_mask=present, position_ids=positions, use_cache=False
    ).last_hidden_state


def writer_of(layer: nn.Module) -> nn.Module:
    """The module whose output is what the MLP adds to the residual stream: the MLP, or where its
    output is normalised (Gemma) that normalisation. ValueError where there is none.
    """
    for name in ("post_feedforward_layernorm", "mlp"):
        module = getattr(layer, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ValueError(f"{type(layer).__name__}: has no part that is called mlp")


def tensor_of(result: object) -> Tensor:
    """What a module returns, or the first of it."""
    first = result[0] if isinstance(result, tuple) else result
    if not isinstance(first, Tensor):
        raise ValueError(f"a layer returned {type(first).__name__} in place of its states")
    return first


@contextmanager
def without_written(
    model: PreTrainedModel, layers: Sequence[int], places: Tensor, references: Tensor
) -> Iterator[None]:
    """Project out of the states of some tokens, after some layers, the direction that the MLP of
    that layer adds to the primary sink: along it, such a state is then like the mean of the others.

    places: bool (B, T), of texts without padding; references: int64 (B,), places of the primary
    sinks. A reference may be among the places. States are changed, not what the MLP adds alone: a
    direction that two layers write, taken from one of them, would drive the next to write another.
    """
    written: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[object, ...], result: object) -> None:
        written.append(tensor_of(result))

    def remove(module: nn.Module, arguments: tuple[object, ...], result: object) -> object:
        states, rows = tensor_of(result), torch.arange(len(references), device=references.device)
        vectors = written.pop()[rows, references].float()
        direction = torch.nn.functional.normalize(vectors, dim=-1)[:, None]
        along = (states.float() * direction).sum(-1, keepdim=True)  # (B, T, 1)
        others = torch.ones_like(along)
        others[rows, references] = 0.0
        ordinary = (along * others).sum(1, keepdim=True) / others.sum(1, keepdim=True)
        beyond = ((along - ordinary) * direction).to(states.dtype)
        cut = torch.where(places[..., None], states - beyond, states)
        return (cut, *result[1:]) if isinstance(result, tuple) else cut

    modules = decoder_layers(model)
    with ExitStack() as stack:
        for layer in layers:
            hook = writer_of(modules[layer]).register_forward_hook(record)
            stack.callback(hook.remove)
            # Before the hooks of whoever measures, which are to see the changed states.
            hook = modules[layer].register_forward_hook(remove, prepend=True)
            stack.callback(hook.remove)
        yield


@dataclass(frozen=True)
class Removal:
    """What taking the written direction from one sink does. layers: after which it was taken out;
    mass, without: of the key before and after, mean over the layers that it draws in after the
    first of these; order: rank correlation of the masses of all other keys, mean over these layers.
    """

    place: int
    layers: tuple[int, ...]
    mass: float
    without: float
    order: float


@torch.no_grad()
def removal_test(
    model: PreTrainedModel, ids: Tensor, figures: TextFigures, sink: Sink
) -> Removal | None:
    """ids: int64 (T,), one text without padding; figures, sink: its own. None for a sink without a
    direction, or that draws no attention after it got one.
    """
    if not sink.carrying:
        return None
    layers = sorted(
        {sink.carrying[0], *(set(writing_layers(figures, sink.place)) & set(sink.carrying))}
    )
    drawing = [layer for layer in sink.drawing if layer > layers[0] and layer - 1 in sink.carrying]
    if not drawing:
        return None
    places = torch.zeros(1, len(ids), dtype=torch.bool, device=ids.device)
    places[0, sink.place] = True
    reference = torch.tensor([figures.reference], device=ids.device)
    with without_written(model, layers, places, reference):
        after = measure_sinks(model, ids[None])[0]
    others = torch.arange(len(ids)) != sink.place
    order = rank_correlation(figures.mass[drawing][:, others], after.mass[drawing][:, others])
    return Removal(
        sink.place,
        tuple(layers),
        float(figures.mass[drawing, sink.place].mean()),
        float(after.mass[drawing, sink.place].mean()),
        float(order.mean()),
    )


def writing_layers(figures: TextFigures, place: int, alike: float = 0.9) -> list[int]:
    """Layers whose MLP adds to a token what it adds to the primary sink, and more than to others:
    twice the median norm.
    """
    large = figures.mlp_norm[:, place] >= 2 * figures.mlp_norm.median(1).values
    return (large & (figures.mlp_cosine[:, place] >= alike)).nonzero()[:, 0].tolist()


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of rows, (R, N) each -> (R,), without places where either is nan."""
    usable = ~(first.isnan() | second.isnan())
    correlations = []
    for one_row, other_row, use in zip(first, second, usable, strict=True):
        ranks = torch.stack([_ranks(one_row[use]), _ranks(other_row[use])])
        correlations.append(torch.corrcoef(ranks)[0, 1])
    return torch.stack(correlations) if correlations else torch.full((1,), torch.nan)


def _ranks(values: Tensor) -> Tensor:
    return values.argsort(stable=True).argsort(stable=True).double()
