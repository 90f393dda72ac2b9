"""Which heads fetch a needle: scores from forward passes only, and the plan that keeps those heads.

Shapes: B prompts of a batch, T tokens, L layers, H query heads, K heads of keys.

A prompt hides a needle in other text and asks for it; its answer is known. The score of a head is
the attention that it pays, from the answer's tokens and the one before each, to those tokens of the
needle that the answer repeats: summed over them, mean over the rows, mean over the prompts (after
the retrieval score of Wu et al., arXiv 2404.15574, which counts how often such a token gets the
largest weight). A head of keys has the largest score of its query heads, for each of them needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..answers import AnswerLosses, losses_of_answers
from ..plans.facts import ModelFacts
from ..plans.plan import Plan
from ..running.attach import attach
from .watching import WatchedLayer, watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HALVES = 2  # prompts of even and of odd number, so that a choice can be made twice and compared


@dataclass(frozen=True)
class NeedlePrompt:
    """A prompt with its answer. ids: tokens of both; answer: how many of them, at the end, are the
    answer; needle: places [start, end) of the needles, none where only the loss is asked for.
    """

    ids: tuple[int, ...]
    answer: int
    needle: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        begin = len(self.ids) - self.answer
        if self.answer < 1 or begin < 1:
            raise ValueError("NeedlePrompt: needs an answer of a token and a token before it")
        if any(not 0 <= start < end <= begin for start, end in self.needle):
            raise ValueError("NeedlePrompt: a needle lies outside of the prompt, or is empty")

    @classmethod
    def of(cls, prompt: Sequence[int], answer: Sequence[int]) -> NeedlePrompt:
        """The needle is wherever the answer's tokens are in the prompt, in a row. ValueError where
        they are not.
        """
        size, tokens = len(answer), list(answer)
        places = [
            (start, start + size)
            for start in range(len(prompt) - size + 1)
            if size and list(prompt[start : start + size]) == tokens
        ]
        if not places:
            raise ValueError("NeedlePrompt: the answer is not in the prompt, token for token")
        return cls((*prompt, *answer), size, tuple(places))

    def rows(self) -> list[int]:
        """The answer's tokens and the one before."""
        return list(range(len(self.ids) - self.answer - 1, len(self.ids)))

    def targets(self) -> list[int]:
        """Places of the needle's tokens that the answer repeats."""
        repeated = set(self.ids[len(self.ids) - self.answer :])
        places = {place for start, end in self.needle for place in range(start, end)}
        return sorted(place for place in places if self.ids[place] in repeated)


class NeedleScores:
    """Running sums of the scores over prompts: they can be stored between any two batches."""

    def __init__(self, layers: int, heads: int, kv_heads: int) -> None:
        self.kv_heads = kv_heads
        self.sums = torch.zeros(HALVES, layers, heads, dtype=torch.float64)
        self.prompts = 0

    @classmethod
    def of(cls, facts: ModelFacts) -> NeedleScores:
        """Empty sums for a model."""
        return cls(facts.layers, facts.heads, facts.kv_heads)

    def add(self, scores: Tensor) -> None:
        """scores: (B, L, H) of further prompts."""
        for row in scores.double().cpu():
            self.sums[self.prompts % HALVES] += row
            self.prompts += 1

    def query_heads(self) -> Tensor:
        """Mean over the prompts, float64 (L, H). ValueError before the first prompt."""
        if not self.prompts:
            raise ValueError("NeedleScores: no prompt was scored")
        return self.sums.sum(0) / self.prompts

    def table(self) -> Tensor:
        """Scores of the heads of keys, float64 (L, K)."""
        return largest_of_group(self.query_heads(), self.kv_heads)

    def ranked(self) -> list[tuple[int, int]]:
        """Heads of keys as (layer, head), the highest score first."""
        return ranked_heads(self.table())

    def agreement(self, count: int) -> float:
        """Share of the first `count` heads of one half of the prompts that are among those of the
        other half; nan with fewer than two prompts.
        """
        if self.prompts < HALVES:
            return float("nan")
        # Sums rank as means do.
        first, second = (
            set(ranked_heads(largest_of_group(half, self.kv_heads))[:count]) for half in self.sums
        )
        return len(first & second) / max(1, count)

    def state(self) -> dict[str, object]:
        """What JSON can hold; `restore` takes it."""
        return {"sums": self.sums.tolist(), "prompts": self.prompts, "kv_heads": self.kv_heads}

    @classmethod
    def restore(cls, state: Mapping[str, object]) -> NeedleScores:
        """The sums that `state` gave. ValueError for anything else."""
        sums = torch.tensor(state.get("sums"), dtype=torch.float64)
        prompts, kv_heads = state.get("prompts"), state.get("kv_heads")
        if sums.ndim != 3 or not isinstance(prompts, int) or not isinstance(kv_heads, int):
            raise ValueError("NeedleScores: this state is not of scores")
        scores = cls(sums.shape[1], sums.shape[2], kv_heads)
        scores.sums, scores.prompts = sums, prompts
        return scores


def largest_of_group(scores: Tensor, kv_heads: int) -> Tensor:
    """Scores of query heads (..., H) -> of heads of keys (..., K)."""
    return scores.unflatten(-1, (kv_heads, -1)).amax(-1)


def ranked_heads(table: Tensor) -> list[tuple[int, int]]:
    """(layer, head) of a table (L, K), the largest first; of equal ones the lower place first."""
    order = table.flatten().sort(descending=True, stable=True).indices.tolist()
    return [(place // table.shape[1], place % table.shape[1]) for place in order]


@torch.no_grad()
def needle_scores(model: PreTrainedModel, prompts: Sequence[NeedlePrompt]) -> Tensor:
    """Scores of every query head on each prompt, float32 (B, L, H), from one forward pass.

    Prompts of other lengths are padded on the right, which changes no score. One layer's rows are
    held at a time. Raises ValueError for a prompt without a needle that its answer repeats, and a
    model whose attention cannot be watched.
    """
    ids, present = padded(prompts, model.device)
    longest = max(len(prompt.rows()) for prompt in prompts)
    rows = torch.zeros(len(prompts), longest, dtype=torch.int64, device=model.device)
    counted = torch.zeros(len(prompts), longest, device=model.device)
    targets = torch.zeros(ids.shape, device=model.device)
    for place, prompt in enumerate(prompts):
        count = len(prompt.rows())
        if not prompt.targets():
            raise ValueError(f"prompt {place}: no token of the answer is in its needle")
        rows[place, :count] = torch.tensor(prompt.rows(), device=model.device)
        counted[place, :count] = 1.0 / count
        targets[place, prompt.targets()] = 1.0
    by_layer: dict[int, Tensor] = {}

    def watch(attention: WatchedLayer) -> None:
        paid = torch.einsum("bhrs,bs->bhr", attention.rows(rows), targets)
        by_layer[attention.layer] = torch.einsum("bhr,br->bh", paid, counted)

    with watched(model, watch):
        # One row of logits: a whole table of them would be larger than all maps of a layer.
        model(input_ids=ids, attention_mask=present, use_cache=False, logits_to_keep=1)
    return torch.stack([by_layer[layer] for layer in sorted(by_layer)], 1)


@torch.no_grad()
def answer_losses(model: PreTrainedModel, prompts: Sequence[NeedlePrompt]) -> AnswerLosses:
    """Loss of each answer, and whether greedy decoding would write it: all tokens are read at once,
    with the answer before them as in generation.
    """
    ids, present = padded(prompts, model.device)
    lengths = present.sum(1, keepdim=True)
    sizes = torch.tensor([[prompt.answer] for prompt in prompts], device=model.device)
    places = torch.arange(ids.shape[1], device=model.device)
    answer = (places >= lengths - sizes) & present
    return losses_of_answers(model, ids, present, answer)


def padded(prompts: Sequence[NeedlePrompt], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens of prompts as a batch, int64 (B, T), padded on the right, and which are real."""
    if not prompts:
        raise ValueError("needle scores: need at least one prompt")
    rows = [torch.tensor(prompt.ids, dtype=torch.int64) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    present = torch.arange(ids.shape[1]) < lengths[:, None]
    return ids.to(device), present.to(device)


def plan_by_needle(
    scores: NeedleScores,
    facts: ModelFacts,
    *,
    heads: int,
    sink: int = 64,
    window: int = 64,
    fitted_on: Mapping[str, object] | None = None,
) -> Plan:
    """The `heads` heads of keys with the highest scores keep everything, the others their first
    `sink` and last `window` tokens. Layers with a window of their own are left as they are.

    Raises ValueError for more heads than may be cut, or scores of another model.
    """
    if scores.table().shape != (facts.layers, facts.kv_heads):
        raise ValueError("plan_by_needle: the scores are of a model with other heads")
    ranked = planned_ranking(scores, facts)
    if not 0 <= heads <= len(ranked):
        raise ValueError(f"plan_by_needle: {heads} heads of {len(ranked)} that a plan may cut")
    return head_plan(facts, ranked[:heads], sink, window, fitted_on)


def planned_ranking(scores: NeedleScores, facts: ModelFacts) -> list[tuple[int, int]]:
    """As `NeedleScores.ranked`, of the layers that a plan may cut."""
    return [(layer, head) for layer, head in scores.ranked() if facts.planned(layer)]


def head_plan(
    facts: ModelFacts,
    full: Iterable[tuple[int, int]],
    sink: int,
    window: int,
    fitted_on: Mapping[str, object] | None = None,
) -> Plan:
    """A plan in which some (layer, head of keys) keep everything and the others sink and window."""
    table = torch.zeros(facts.layers, facts.kv_heads, dtype=torch.bool)
    for layer, head in full:
        table[layer, head] = True
    return Plan.of_heads(
        facts, table, sink=sink, window=window, method="needle", fitted_on=dict(fitted_on or {})
    )


def heads_within(keep: float, facts: ModelFacts, *, sink: int, window: int, length: int) -> int:
    """The most heads that may stay full while the cache of `length` tokens keeps at most the share
    `keep` of its bytes; ValueError where sink and window alone need more.
    """
    least = head_plan(facts, [], sink, window).kept(length)
    planned = sum(map(facts.planned, range(facts.layers))) * facts.kv_heads
    if not least <= keep <= 1:
        raise ValueError(
            f"a share of {keep:g} of the cache cannot be kept: sink {sink} and window {window} "
            f"alone are {least:.3f} of it at {length} tokens"
        )
    if least == 1:
        return planned
    # Every head adds the same bytes; a share that fits exactly must not fail by rounding.
    return int((keep - least) / (1 - least) * planned + 1e-9)


def knock_out(
    model: PreTrainedModel,
    prompts: Sequence[NeedlePrompt],
    heads: Sequence[tuple[int, int]],
    *,
    sink: int = 64,
    window: int = 64,
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """For each head of keys, alone cut to sink and window: the loss of each answer, (B,).

    The check of the scores: what attends to the needle need not matter. One head at a time, so that
    a job can store what it has.
    """
    facts = ModelFacts.of(model)
    planned = [layer for layer in range(facts.layers) if facts.planned(layer)]
    all_heads = {(layer, head) for layer in planned for head in range(facts.kv_heads)}
    for cut in heads:
        with attach(model, head_plan(facts, all_heads - {cut}, sink, window)):
            losses = answer_losses(model, prompts)[0]
        yield cut, losses
