"""The gate of experts against its formula, its gradients, its forms."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.expert_gate import LARGEST, Gate, expert_gate, forms, naive

FLOAT64 = torch.float64
Kind = tuple[str, bool, float]  # score, normalise, scale
KINDS = [
    (score, normalise, scale)
    for score in ("softmax", "sigmoid", "given")
    for normalise, scale in ((True, 2.5), (False, 1.0))
]


def scores_of(score: str) -> Tensor:
    torch.manual_seed(4)
    scores = torch.randn(11, 5, dtype=FLOAT64)
    return (scores.exp() if score == "given" else scores).requires_grad_()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("active", "present"), [(1, "all"), (2, "some"), (5, "all"), (2, "none")])
def test_values_and_gradients_are_the_formulas(kind: Kind, active: int, present: str) -> None:
    score, normalise, scale = kind
    scores = scores_of(score)
    bias = torch.tensor([0.0, 0.4, -0.3, 0.2, 0.0], dtype=FLOAT64) if active == 2 else None
    mask = None if present == "all" else (torch.arange(11) % 3 != 1) & (present == "some")
    gate = expert_gate(
        scores,
        active,
        score=score,  # type: ignore[arg-type]
        normalise=normalise,
        scale=scale,
        bias=bias,
        present_mask=mask,
    )
    expected = Gate(*naive.expert_gate(scores, bias, mask, active, *kind))
    torch.testing.assert_close(gate, expected, rtol=1e-12, atol=1e-12)
    if present == "none":
        return
    results = ("weights", "probability", *(() if score == "given" else ("log_sum",)))
    grads = [torch.randn_like(getattr(gate, name)) for name in results]
    slope, expected_slope = (
        torch.autograd.grad([getattr(form, name) for name in results], scores, grads)[0]
        for form in (gate, expected)
    )
    torch.testing.assert_close(slope, expected_slope, rtol=1e-10, atol=1e-12)
    assert mask is None or not slope[~mask].any()


@pytest.mark.parametrize("kind", KINDS[::2], ids=str)
def test_gradients_by_differences_and_promises_to_pytorch(kind: Kind) -> None:
    mask = torch.arange(11) % 3 != 1
    scores = scores_of(kind[0])
    operator = torch.ops.headwise.expert_gate.default

    def differentiable(s: Tensor) -> tuple[Tensor, ...]:
        gate = Gate(*operator(s, None, mask, 2, *kind)[:-1])
        return gate.weights, gate.probability, gate.log_sum

    assert torch.autograd.gradcheck(differentiable, (scores,))
    torch.library.opcheck(operator, (scores, None, mask, 2, *kind))


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "given"])
def test_padding_may_hold_anything(score) -> None:
    mask = torch.tensor([True, False, True])
    scores = torch.rand(3, 4)
    poisoned = scores.masked_fill(~mask[:, None], torch.nan).requires_grad_()
    gate = expert_gate(poisoned, 2, score=score, present_mask=mask)
    for part, expected in zip(gate, expert_gate(scores, 2, score=score, present_mask=mask)):
        assert torch.equal(part, expected)
    loss = gate.weights.square().sum() + gate.probability[0] + gate.log_sum
    assert torch.autograd.grad(loss, poisoned)[0].isfinite().all()


def test_it_compiles_in_full_and_takes_no_tokens() -> None:
    def call(s: Tensor) -> Gate:
        return expert_gate(s, 2, normalise=True)

    scores = torch.randn(9, 6)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(scores), call(scores))
    empty = call(scores[:0])
    assert empty.weights.shape == (0, 2)
    assert not empty.counts.any()
    assert float(empty.tokens) == 0
    assert torch.stack([empty.log_sum, empty.entropy]).tolist() == [0, 0]


def test_forms_say_why_they_are_refused() -> None:
    assert [form.refused for form in forms(torch.zeros(2, 3, dtype=FLOAT64))] == ["float64", ""]
    assert "CUDA" in forms(torch.zeros(2, 3))[0].refused
    assert "1024" in forms(torch.zeros(1, LARGEST + 1))[0].refused


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("3, 4", {"active": 5}),
        ("score must be", {"score": "linear"}),
        ("bias must be", {"bias": torch.zeros(3)}),
        ("present_mask must be", {"present_mask": torch.ones(4, dtype=torch.bool)}),
        ("float16", {"scores": torch.zeros(3, 4).half()}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(message: str, arguments: dict) -> None:
    with pytest.raises(ValueError, match=message):
        expert_gate(**({"scores": torch.zeros(3, 4), "active": 1} | arguments))
