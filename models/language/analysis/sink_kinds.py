"""What kinds of attention sinks a text has, from figures by layer and token.

Shapes: L layers, T tokens of one text. Layers count from 0; the state of a layer is the residual
stream after it, which the attention of the next layer reads.

A key is a sink where it draws much more attention from later tokens than it would by chance. The
first sink, at one of the first tokens, is the primary one: some layers make its state many times as
long as the others and give it a direction of its own. That may happen more than once; the longest
such stretch of layers is the primary's time. Kinds of the others:

    secondary  carries the primary's direction, from a layer after the beginning of that time on
               (Wong et al., arXiv 2512.22213: born in the middle, with a shorter life)
    companion  carries it from where the primary does
    early      draws attention mostly before that time, with or without the direction that the
               primary's token has there
    other      anything else that draws

Direction: the cosine with the primary's state once the mean state of the other tokens is taken off
both. Plain cosines do not tell sinks apart in models whose states all share a direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["primary", "secondary", "companion", "early", "other"]
KINDS: tuple[Kind, ...] = ("primary", "secondary", "companion", "early", "other")
REFERENCES = 3  # the primary sink is one of the first tokens
LEAST_MASS = 0.05  # of the attention of later tokens, mean over heads
TIMES_CHANCE = 4.0  # times even attention, and the attention of so many tokens
MASSIVE = 3.0  # times the median norm
SAME_DIRECTION = 0.9
SAME_LAYER = 1  # a companion rises at most this many layers after the primary
OFFICIAL_SHORTEST, OFFICIAL_MARGIN = 4, 15  # 4 < layers < L - 15


@dataclass(frozen=True)
class TextFigures:
    """Figures of one text, float32 (L, T) unless said otherwise.

    mass: attention that a key draws, mean over later tokens and heads, nan where there are none;
    uniform: the same if attention were even; later: how many tokens that is; norm: of the states;
    cosine, centred: of the states with the primary candidate's, plain and centred; reference: place
    of that candidate; mlp_norm: norm of what the MLP adds; mlp_cosine: its cosine with what it adds
    to the candidate; mlp_share: share of the layer's change that is the MLP's, 1 - it is the
    attention's; value_norm: mean over heads. last_norm, last_cosine: (T,), of the last states after
    the model's final normalisation, which the published detector reads.
    """

    mass: Tensor
    uniform: Tensor
    later: Tensor
    norm: Tensor
    cosine: Tensor
    centred: Tensor
    reference: int
    mlp_norm: Tensor
    mlp_cosine: Tensor
    mlp_share: Tensor
    value_norm: Tensor
    last_norm: Tensor
    last_cosine: Tensor

    @property
    def relative_norm(self) -> Tensor:
        """Norm over the median of the layer, (L, T)."""
        return self.norm / self.norm.median(1, keepdim=True).values.clamp(min=1e-30)


@dataclass(frozen=True)
class Sink:
    """A key that draws attention. drawing: layers whose attention it draws; carrying: layers whose
    state has the direction of the primary's, where that is massive; mass: the most that a layer
    gives it; writer: the layer whose MLP added most to it there, None without a direction.
    """

    place: int
    kind: Kind
    drawing: tuple[int, ...]
    carrying: tuple[int, ...]
    mass: float
    writer: int | None


@dataclass(frozen=True)
class OfficialSinks:
    """What the published rule finds. window: layers [start, end) of the primary sink; layers: how
    many of them each candidate is alike in; kinds by place: secondary, bos_sink or noise.
    """

    window: tuple[int, int]
    layers: dict[int, int]
    kinds: dict[int, str]
    can_fire: bool

    def of_kind(self, kind: str) -> list[int]:
        """Places of a kind, in order."""
        return sorted(place for place, label in self.kinds.items() if label == kind)


def find_sinks(figures: TextFigures, least_mass: float = LEAST_MASS) -> list[Sink]:
    """The sinks of a text, in order of place.

    A key draws in a layer if its mass is at least `least_mass`, `TIMES_CHANCE` times that of even
    attention, and as much as `TIMES_CHANCE` of its later tokens have to give: near the end of a
    text every key has few later tokens, and much of their attention is local.
    """
    threshold = torch.maximum(figures.uniform, 1 / figures.later.clamp(min=1)) * TIMES_CHANCE
    draws = figures.mass.nan_to_num(0.0) >= threshold.clamp(min=least_mass)
    massive = figures.relative_norm[:, figures.reference] >= MASSIVE
    time = _primary_time(massive, draws[:, figures.reference])
    sinks = []
    for place in draws.any(0).nonzero()[:, 0].tolist():
        drawing = draws[:, place].nonzero()[:, 0].tolist()
        # Beside the reference itself nothing is known of a state that is not massive.
        alike = massive & (figures.centred[:, place] >= SAME_DIRECTION)
        carrying = max(runs(alike.tolist()), key=len, default=range(0)) if time else range(0)
        is_reference = place == figures.reference
        sinks.append(
            Sink(
                place,
                _kind(is_reference, drawing, carrying, time),
                tuple(drawing),
                tuple(carrying),
                float(figures.mass[drawing, place].max()),
                _writer(figures, place, carrying),
            )
        )
    return sinks


def _primary_time(massive: Tensor, draws: Tensor) -> range:
    """The longest stretch of massive states that attention is drawn to; empty without any."""
    # The attention of a layer reads the state before it.
    is_read = torch.cat([draws[1:], torch.zeros(1, dtype=torch.bool)])
    stretches = [part for part in runs(massive.tolist()) if is_read[part.start : part.stop].any()]
    return max(stretches, key=len, default=range(0))


def _kind(is_reference: bool, drawing: Sequence[int], carrying: range, time: range) -> Kind:
    if not time:
        return "other"
    if is_reference:
        return "primary"
    if carrying and carrying.start >= time.start and any(i - 1 in carrying for i in drawing):
        return "secondary" if carrying.start > time.start + SAME_LAYER else "companion"
    before = sum(layer <= time.start for layer in drawing)
    return "early" if 2 * before >= len(drawing) else "other"


def _writer(figures: TextFigures, place: int, carrying: range) -> int | None:
    """Of the layers up to the first that carries, the one whose MLP adds the most."""
    if not carrying:
        return None
    return int(figures.mlp_norm[: carrying[0] + 1, place].argmax())


def runs(flags: Sequence[bool]) -> list[range]:
    """Stretches of true values.

    >>> runs([True, True, False, True])
    [range(0, 2), range(3, 4)]
    """
    ranges: list[range] = []
    for place, flag in enumerate(flags):
        if flag and ranges and ranges[-1].stop == place:
            ranges[-1] = range(ranges[-1].start, place + 1)
        elif flag:
            ranges.append(range(place, place + 1))
    return ranges


def official_sinks(figures: TextFigures) -> OfficialSinks:
    """The rule of the published code (arXiv 2512.22213), as it is there.

    Window: from the largest jump of the reference's norm to its largest fall after that. A later
    token whose plain cosine with the reference is above .9 in more than 4 and fewer than L - 15 of
    these layers is secondary, in L - 15 or more like the primary one, else noise. Both margins are
    numbers of layers, so a model with fewer than 21 has no secondary sink by this rule, whatever it
    does.
    """
    layers, reference = len(figures.norm), figures.reference
    norm = torch.cat([figures.norm[:-1], figures.last_norm[None]])[:, reference]
    cosine = torch.cat([figures.cosine[:-1], figures.last_cosine[None]])
    change = norm.diff()
    start = int(change.argmax()) + 1 if layers > 1 else 0
    falls = change[start:]
    end = start + int(falls.argmin()) + 1 if len(falls) else layers
    alike = (cosine[start:end].abs() > SAME_DIRECTION).sum(0)
    counts = {
        place: int(alike[place])
        for place in range(reference + 1, alike.shape[0])
        if int(alike[place])
    }
    kinds = {place: _official_kind(count, layers) for place, count in counts.items()}
    shortest_possible = OFFICIAL_SHORTEST + 1
    return OfficialSinks((start, end), counts, kinds, shortest_possible < layers - OFFICIAL_MARGIN)


def _official_kind(count: int, layers: int) -> str:
    if OFFICIAL_SHORTEST < count < layers - OFFICIAL_MARGIN:
        return "secondary"
    return "bos_sink" if count >= layers - OFFICIAL_MARGIN else "noise"
