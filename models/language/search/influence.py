"""How much the loss of an answer changes when a head of a language model loses a key.

Shapes: B rows of a batch, T tokens, H query heads, K heads of keys, g = H / K, n the length that a
profile stands for, b tokens a block, m = n / b blocks.

With A the attention of a head and G = dL/dA, the loss changes to first order by

    E_ij = A_ij / (1 - A_ij) * (sum_n G_in A_in - G_ij)

when query i loses key j and the rest of its row is divided by what is left of it (MoA, arXiv
2406.14909; the formula is that of its code). Sums over the g query heads of a key head tell what
the cache loses with that key.

Departures: rows may be those that predict the answer only (`rows="answer"`, the default), since a
cut cache is read by them; the sum may keep its sign; a group is the g consecutive query heads that
share a key head, as the models themselves share them; the first token, which has no other key than
itself, counts as nothing.

The backward pass visits one layer at a time. A layer's attention is computed again there from its
queries and keys, some rows at a time, so no map outlives its layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..analysis.watching import WatchedLayer
from ..answers import losses_of_answers, predicting
from ..plans.facts import ModelFacts
from ..running.replaced import attend, replaced_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = Literal["answer", "all"]
_ROWS = 256  # rows of a map that exist at a time


class AnsweredPrompt(NamedTuple):
    """A prompt with its answer: tokens int64 (T,) and answer bool (T,), True for tokens of the
    answer.
    """

    tokens: Tensor
    answer: Tensor

    @classmethod
    def of(cls, prompt: Sequence[int], answer: Sequence[int]) -> AnsweredPrompt:
        """Tokens of a prompt and of its answer, which follows."""
        tokens = torch.tensor([*prompt, *answer], dtype=torch.int64)
        return cls(tokens, torch.arange(len(tokens)) >= len(prompt))


def influence(attention: Tensor, gradient: Tensor) -> Tensor:
    """E of rows of attention (..., S) and dL/dA of the same shape: (..., S).

    A masked key (attention 0) has 0; sum_j (1 - A_ij) E_ij is 0 in each row. A key that has all of
    its row, exactly 1, would leave nothing: its effect is then -A G, as in MoA's code.
    """
    mean = (attention * gradient).sum(-1, keepdim=True)
    effect = attention / (1 - attention) * (mean - gradient)
    # 1 - A and the difference of the gradients lose all their digits near A = 1. Only the largest
    # of a row can be near it, and what is left of the row is a sum of the others.
    top = attention.argmax(-1, keepdim=True)
    share, slope = attention.gather(-1, top), gradient.gather(-1, top)
    others = attention.scatter(-1, top, 0)
    rest = others.sum(-1, keepdim=True)
    change = (others * (gradient - slope)).sum(-1, keepdim=True)
    return effect.scatter(-1, top, torch.where(rest > 0, share * change / rest, -share * slope))


def influence_blocks(
    model: PreTrainedModel,
    prompts: Sequence[AnsweredPrompt],
    length: int,
    *,
    block: int = 16,
    rows: Rows = "answer",
    signed: bool = False,
) -> Tensor:
    """Block sums of E of each layer and key head, summed over a batch of prompts.

    length: n, a multiple of `block`; no prompt may be longer. The loss of a prompt is the mean
    cross entropy of its answer. rows: those that predict the answer, or all. signed: sums of E, not
    of its absolute value. Returns float64 (layers, K, m, m): blocks of queries, blocks of keys.

    Prompts are padded at their ends; padding has no effect. Raises ValueError for prompts that
    cannot be used, and for a model whose attention cannot be watched.
    """
    check_prompts(prompts, length)
    if length % block:
        raise ValueError(f"length {length}: must be a multiple of the block, {block} tokens")
    tokens, present, answer = padded(prompts, model.device)
    chosen = predicting(answer) if rows == "answer" else present.clone()
    chosen[:, 0] = False  # its only key is itself, which all rules keep
    facts, blocks = ModelFacts.of(model), length // block
    sums = torch.zeros(
        facts.layers, facts.kv_heads, blocks, blocks, dtype=torch.float64, device=model.device
    )
    visited: set[int] = set()

    def attention(
        layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        visited.add(layer)
        output = attend(query, key, value, allowed, scale)
        measured = WatchedLayer(layer, query, key, value, allowed, scale)
        return _Measured.apply(output, measured, chosen, sums, block, signed)

    with torch.enable_grad(), _evaluation(model), replaced_attention(model, attention):
        # The weights get no gradient; the loss is derived by the embedded tokens.
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
        total = losses_of_answers(model, tokens, present, answer, embedded).loss.sum()
    if len(visited) < len(sums):
        raise ValueError(
            f"{type(model).__name__}: {len(sums) - len(visited)} of {len(sums)} layers do not use "
            "the attention interface of transformers"
        )
    torch.autograd.grad(total, embedded)
    return sums.cpu()


class _Measured(torch.autograd.Function):
    """The output of a layer's attention, as it is; its gradient adds E of the layer to the sums."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        output: Tensor,
        layer: WatchedLayer,
        chosen: Tensor,
        sums: Tensor,
        block: int,
        signed: bool,
    ) -> Tensor:
        ctx.measured = (layer, chosen, sums, block, signed)  # pyright: ignore
        return output.view_as(output)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor):  # pyright: ignore
        layer, chosen, sums, block, signed = ctx.measured  # pyright: ignore
        ctx.measured = None  # pyright: ignore
        allowed = layer.allowed.expand(len(chosen), -1, -1, -1)[:, 0]
        for sample, selected in enumerate(chosen):
            for places in selected.nonzero()[:, 0].split(_ROWS):
                effects = _effects(layer, gradient, allowed[sample], sample, places)
                for head, effect in enumerate(effects):
                    effect = (effect if signed else effect.abs()).sum(0)
                    filled = pad(effect, (0, sums.shape[-1] * block - effect.shape[-1]))
                    columns = filled.unflatten(1, (-1, block)).sum(-1, dtype=sums.dtype)
                    sums[layer.layer, head].index_add_(0, places // block, columns)
        return gradient, None, None, None, None, None


def _effects(
    layer: WatchedLayer, gradient: Tensor, allowed: Tensor, sample: int, places: Tensor
) -> Iterator[Tensor]:
    """E of some rows of a sample, a key head at a time: float (g, rows, S).

    gradient: of the layer's output, (B, H, T, d'); allowed: bool (T, S), of the sample.
    """
    heads, tokens = layer.key.shape[1], int(places[-1]) + 1  # later keys are of no row's sight
    group = layer.query.shape[1] // heads
    real = torch.promote_types(layer.query.dtype, torch.float32)
    allowed = allowed[places, :tokens]
    for head in range(heads):
        queries = slice(head * group, (head + 1) * group)
        key = layer.key[sample, head, :tokens].to(real)
        value = layer.value[sample, head, :tokens].to(real)
        scores = layer.query[sample, queries, places].to(real) @ key.mT * layer.scale
        attention = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        slope = gradient[sample, queries, places].to(real) @ value.mT
        yield influence(attention, slope)


def answer_losses(model: PreTrainedModel, prompts: Sequence[AnsweredPrompt]) -> Tensor:
    """Mean cross entropy of the answer of each prompt of a batch, in nats: (B,).

    The model attends as it is set to at the time. Raises ValueError for prompts that cannot be
    used.
    """
    check_prompts(prompts)
    with torch.no_grad(), _evaluation(model):
        return losses_of_answers(model, *padded(prompts, model.device)).loss.cpu()


def padded(
    prompts: Sequence[AnsweredPrompt], device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, which of them are present, which are of the answer: (B, T), padded at their ends."""
    tokens = pad_sequence([prompt.tokens for prompt in prompts], batch_first=True)
    present = pad_sequence([torch.ones_like(p.answer) for p in prompts], batch_first=True)
    answer = pad_sequence([prompt.answer for prompt in prompts], batch_first=True)
    return tokens.to(device), present.to(device), answer.to(device)


def check_prompts(prompts: Sequence[AnsweredPrompt], longest: int | None = None) -> None:
    """Raise ValueError, in a line, for prompts that no loss can be taken of."""
    if not prompts:
        raise ValueError("no prompts: a profile needs at least one")
    for row, (tokens, answer) in enumerate(prompts):
        if tokens.ndim != 1 or tokens.shape != answer.shape or answer.dtype != torch.bool:
            raise ValueError(
                f"prompt {row}: needs tokens (T,) and a bool answer (T,), and has "
                f"{tuple(tokens.shape)} and {answer.dtype} {tuple(answer.shape)}"
            )
        if not answer[1:].any() or answer[0]:
            raise ValueError(f"prompt {row}: needs an answer, after a first token that is not")
        if longest is not None and len(tokens) > longest:
            raise ValueError(f"prompt {row}: has {len(tokens)} tokens, more than {longest}")


@contextmanager
def _evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; the model's mode is as before afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
