"""CoFiTune (Zhang et al., arXiv 2404.10306): which modules of which layers a tuning changes, and
how much of each hidden unit's step it takes.

Coarse: a tree search over ranges of layers, then over modules. Fine: a soft mask of hidden units,
the rows of up (and gate) and the columns of down. The published code multiplies gradients by the
mask; Adam divides a gradient by its own size, so that a constant factor cancels, and weight decay
goes on. Here the mask is on the step of the optimiser, with the decay in it.

Shapes: D width, I hidden units.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ....base.errors import fail
from .anatomy import ATTENTION, FEED_FORWARD, linear_places

QUARTERS = ((0.0, 25.0), (25.0, 50.0), (50.0, 75.0), (75.0, 100.0))
MODULES = ((*ATTENTION, *FEED_FORWARD), ("q", "k", "v"), ("up", "down"))


def select(model: nn.Module, layers: Sequence[int], kinds: Sequence[str]) -> list[str]:
    """Freeze all weights but those of some modules in some layers; returns the names of what is
    trained.

    Raises ValueError for a model without such modules.
    """
    model.requires_grad_(False)
    for place in linear_places(model, layers, kinds):
        place.linear.requires_grad_(True)
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


def unit_masks(model: nn.Module, importance: Mapping[int, Tensor]) -> dict[nn.Parameter, Tensor]:
    """What is taken of the step of each weight: 1 - importance of its hidden unit, in a shape that
    broadcasts to it. importance: (I,) by layer. Weights without hidden units are not in it.
    """
    masks: dict[nn.Parameter, Tensor] = {}
    for place in linear_places(model, list(importance), FEED_FORWARD):
        share = 1 - importance[place.layer].to(place.linear.weight)
        across = place.kind == "down"
        weight, bias = place.linear.weight, place.linear.bias
        assert isinstance(weight, nn.Parameter)
        masks[weight] = share[None, :] if across else share[:, None]
        if isinstance(bias, nn.Parameter) and not across:
            masks[bias] = share
    return {weight: mask for weight, mask in masks.items() if weight.requires_grad}


def mask_steps(optimizer: torch.optim.Optimizer, masks: Mapping[nn.Parameter, Tensor]) -> None:
    """From now on the optimiser takes only a share of each step of these weights, in [0, 1], with
    the weight decay in it. A share of 1 changes nothing, bit for bit; one of 0 leaves the weight as
    it was, bit for bit.
    """
    before: dict[nn.Parameter, Tensor] = {}

    @torch.no_grad()
    def remember(*_: object) -> None:
        before.update((weight, weight.detach().clone()) for weight in masks)

    @torch.no_grad()
    def take_share(*_: object) -> None:
        for weight, mask in masks.items():
            share, start = mask.to(weight), before.pop(weight)
            taken = start + share * (weight - start)
            weight.copy_(torch.where(share == 1, weight, torch.where(share == 0, start, taken)))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(take_share)


@dataclass(frozen=True)
class Node:
    """What a tuning changes: the modules of a range of layers, in percent."""

    first: float
    last: float
    modules: tuple[str, ...]

    def words(self) -> str:
        """The range and the modules."""
        return f"{' '.join(self.modules)} of {self.first:g}-{self.last:g} %"


@dataclass(frozen=True)
class Visit:
    """A node and what tuning it gave: nats a token gained on the task, and lost on general texts.

    score: gained minus what is lost times its weight.
    """

    node: Node
    gained: float
    lost: float
    score: float


def tree_search(
    tune: Callable[[Node], tuple[float, float]],
    *,
    weight: float = 1.0,
    journal: Path | None = None,
    setting: str = "",
) -> list[Visit]:
    """Visit the nodes of the tree, each once, and always go on from the best so far: quarters of
    the layers, then the best with a neighbour, then modules of the best range.

    tune: nats gained and lost of a node; weight: of what is lost; journal: a file of lines in which
    visits are kept and looked up, so that a search that was stopped goes on; setting: what the
    visits depend on; visits of another setting do not count.

    Returns the visits in their order. Raises InputError for a journal that is damaged.
    """
    known = {} if journal is None else _read(journal, setting)
    visits: dict[Node, Visit] = {}

    def visit(node: Node) -> None:
        if node in visits:
            return
        if node not in known:
            known[node] = tune(node)
            if journal is not None:
                _write(journal, setting, node, known[node])
        gained, lost = known[node]
        visits[node] = Visit(node, gained, lost, gained - weight * lost)

    for level in (_quarters, _neighbours, _modules):
        best = max(visits.values(), key=lambda done: done.score, default=None)
        for node in level(None if best is None else best.node):
            visit(node)
    return list(visits.values())


def _quarters(_: Node | None) -> Iterator[Node]:
    for first, last in QUARTERS:
        yield Node(first, last, MODULES[0])


def _neighbours(best: Node | None) -> Iterator[Node]:
    assert best is not None
    for first, last in ((best.first - 25, best.last), (best.first, best.last + 25)):
        if first >= 0 and last <= 100:
            yield Node(first, last, best.modules)


def _modules(best: Node | None) -> Iterator[Node]:
    assert best is not None
    for modules in MODULES:
        yield Node(best.first, best.last, modules)


def _read(journal: Path, setting: str) -> dict[Node, tuple[float, float]]:
    known: dict[Node, tuple[float, float]] = {}
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            node = Node(row["first"], row["last"], tuple(row["modules"]))
            if row["setting"] == setting:
                known[node] = float(row["gained"]), float(row["lost"])
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                raise fail(f"{journal}, line {number}", "is no visit; remove the line") from None
            # The last line was being written when the search was stopped.
            journal.write_text("".join(f"{kept}\n" for kept in lines[:-1]), encoding="utf-8")
    return known


def _write(journal: Path, setting: str, node: Node, told: tuple[float, float]) -> None:
    row = {**asdict(node), "gained": told[0], "lost": told[1], "setting": setting}
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
