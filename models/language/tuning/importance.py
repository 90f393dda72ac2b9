"""How much hidden units of feed-forward networks matter for texts (CoFiTune, Zhang et al., arXiv
2404.10306), with a signal and as published.

A gate of 1 on each unit; the importance is the gradient of a loss with respect to it. The published
loss is the divergence of the model from itself: its gradient is 0, and what a computer gives is
rounding noise, which a z-score makes look like importance. With a signal: the loss of the texts, or
the divergence from a copy whose hidden states are disturbed.

Shapes: B texts, N tokens, V words, I hidden units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .anatomy import decoder_layers, linear_places

Form: TypeAlias = Literal["loss", "divergence", "published"]
DISTURBED = 0.1  # share of the hidden states that a disturbed copy loses
WEIGHT = 0.1  # of the published divergence


class TextBatch(NamedTuple):
    """Texts, padded on the right. tokens: int64 (B, N); targets: int64 (B, N), the next token where
    its loss counts, -100 elsewhere.
    """

    tokens: Tensor
    targets: Tensor


class UnitGradients(NamedTuple):
    """Gradients of the gates by layer, (I,) float64: mean over texts of the absolute value."""

    by_layer: Mapping[int, Tensor]

    def importance(self) -> dict[int, Tensor]:
        """Importance in [0, 1) by layer: |tanh| of the z-score within the layer."""
        scores = {}
        for layer, values in self.by_layer.items():
            deviation = values.std(unbiased=False)
            z = (values - values.mean()) / deviation if deviation > 0 else values * 0
            scores[layer] = z.tanh().abs()
        return scores

    def largest(self) -> float:
        """The largest gradient of any unit."""
        return max(float(values.max()) for values in self.by_layer.values())


def unit_gradients(
    model: nn.Module,
    batches: Iterable[TextBatch],
    layers: Sequence[int],
    *,
    form: Form = "loss",
    seed: int = 0,
) -> UnitGradients:
    """Gradients of gates on the hidden units of some layers, for texts. The model is left as it
    was.

    form: "loss" of the texts; "divergence" from the model when hidden states are disturbed by
    dropout; "published", the divergence of the model from itself. seed: of the dropout.

    Raises ValueError without texts, or for a model without such networks.
    """
    places = list(linear_places(model, layers, ("down",)))
    if not places:
        raise ValueError("importance: no feed-forward network is left as it came in these layers")
    sums = {place.layer: torch.zeros(place.linear.in_features).double() for place in places}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    was_training, texts = model.training, 0
    model.eval().requires_grad_(False)
    try:
        for number, batch in enumerate(batches):
            for row in range(len(batch.tokens)):  # one by one: absolute values are of a text
                text = TextBatch(batch.tokens[row : row + 1], batch.targets[row : row + 1])
                with gates_on(model, layers) as gates, torch.enable_grad():
                    loss = _loss(model, text, form, seed + 7919 * number + row)
                    gradients = torch.autograd.grad(loss, list(gates.values()))
                for layer, gradient in zip(gates, gradients, strict=True):
                    sums[layer] += gradient.double().abs().cpu()
                texts += 1
    finally:
        model.train(was_training)
        for weight in trained:
            weight.requires_grad_(True)
    if not texts:
        raise ValueError("importance: there are no texts")
    return UnitGradients({layer: values / texts for layer, values in sums.items()})


def joined_importance(parts: Sequence[Mapping[int, Tensor]]) -> dict[int, Tensor]:
    """The largest importance of each unit over several sets of texts."""
    return {layer: torch.stack([part[layer] for part in parts]).amax(0) for layer in parts[0]}


@contextmanager
def gates_on(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """A gate of 1 on each hidden unit of some layers while the block lasts: by layer, (I,), with a
    gradient.
    """
    gates, hooks = dict[int, Tensor](), []
    for place in linear_places(model, layers, ("down",)):
        gate = torch.ones_like(place.linear.weight[0]).requires_grad_()
        gates[place.layer] = gate
        hooks.append(place.linear.register_forward_pre_hook(partial(_gated, gate)))
    try:
        yield gates
    finally:
        for hook in hooks:
            hook.remove()


def _gated(gate: Tensor, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0] * gate, *inputs[1:])


def _loss(model: nn.Module, text: TextBatch, form: Form, seed: int) -> Tensor:
    counted = text.targets[0] != -100
    if form == "loss":
        logits = _logits(model, text)[counted]
        return F.cross_entropy(logits, text.targets[0][counted])
    with torch.no_grad():
        expected = _logits(model, text)[counted].log_softmax(-1)
    if form == "published":
        computed = _logits(model, text)[counted].log_softmax(-1)
        return WEIGHT * F.kl_div(computed, expected, log_target=True, reduction="batchmean")
    with _disturbed(model, seed):
        computed = _logits(model, text)[counted].log_softmax(-1)
    return F.kl_div(computed, expected, log_target=True, reduction="batchmean")


def _logits(model: nn.Module, text: TextBatch) -> Tensor:
    """(N, V) of one text."""
    logits: Tensor = model(input_ids=text.tokens, use_cache=False).logits[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextmanager
def _disturbed(model: nn.Module, seed: int) -> Iterator[None]:
    """Dropout of the hidden states behind each layer, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def drop(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        states = output[0] if isinstance(output, tuple) else output
        share = torch.rand(states.shape, generator=generator).to(states.device)
        states = states * (share >= DISTURBED) / (1 - DISTURBED)
        return (states, *output[1:]) if isinstance(output, tuple) else states  # type: ignore[return-value]

    hooks = [layer.register_forward_hook(drop) for layer in decoder_layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
