"""Attention by labels compared with two plain forms: time and peak memory, forward and backward.

    python benchmarks/ops/label_attention.py [--threads 1] [--seconds 0.5]

float32, 1,000 labels, texts of 512 tokens. "Means" is the usual form: the softmax of all scores, a
mean of the tokens for each label (batch x labels x width), and its product with the weights of the
label. "Evidence" takes the weights of the label to the tokens first, so that no mean exists, but
holds scores, weights and evidence (batch x labels x tokens). All must agree in values and
gradients. Measured as `ratios.py` says; memory is everything but the inputs, gradients included.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, both_passes
from headwise.kernels.label_attention import label_attention

CASES = ((16, 512, 1000, 64), (16, 512, 1000, 128), (16, 512, 1000, 256))


def means(h: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """With a mean of the tokens for each label."""
    weights = (h @ query.T * h.shape[2] ** -0.5).softmax(1)
    return ((weights.mT @ h) * weight).sum(-1)


def evidence(h: Tensor, query: Tensor, weight: Tensor) -> Tensor:
    """With all scores and what each token says for each label."""
    weights = (h @ query.T * h.shape[2] ** -0.5).softmax(1)
    return (weights * (h @ weight.T)).sum(1)


FORMS = (label_attention, means, evidence)


def step(form: Callable[..., Tensor], case: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the logits and the gradients."""
    torch.manual_seed(0)
    batch, tokens, labels, width = case
    shapes = (batch, tokens, width), (labels, width), (labels, width)
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    return both_passes(form, inputs, gradient=torch.randn(batch, labels))


def cases(size: Size) -> Iterator[Case]:
    """All forms, checked."""
    for case in {"tiny": ((1, 16, 8, 4),), "short": CASES[:1], "full": CASES}[size]:
        ours, by_means, by_evidence = (step(form, case) for form in FORMS)
        expected = by_means()
        for call in (ours, by_evidence):
            torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4)
        batch, tokens, labels, width = case
        name = f"batch {batch}, {tokens} tokens, {labels} labels, width {width}"
        yield Case(name, ours, {"means": by_means, "evidence": by_evidence})


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/label_attention"])
