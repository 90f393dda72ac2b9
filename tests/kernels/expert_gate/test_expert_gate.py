"""The gate of experts against loops in plain Python, its gradients, its forms."""

import math

import pytest
import torch
from torch import Tensor

from headwise.kernels.expert_gate import LARGEST, Gate, expert_gate, forms

FLOAT64 = torch.float64
KINDS = [
    {"score": score, "normalise": normalise, "scale": scale}
    for score in ("softmax", "sigmoid", "given")
    for normalise, scale in ((True, 1.0), (False, 1.0), (True, 2.5))
]


def scores_of(kind: dict, tokens: int = 11, experts: int = 5) -> Tensor:
    torch.manual_seed(4)
    scores = torch.randn(tokens, experts, dtype=FLOAT64)
    return scores.exp() if kind["score"] == "given" else scores


def by_loops(scores: Tensor, active: int, kind: dict, bias: list[float], there: list[bool]) -> dict:
    """Everything that a gate gives, a number at a time."""
    experts = scores.shape[1]
    weights, chosen = [], []
    counts, mean = [[0] * experts for _ in range(active)], [0.0] * experts
    squares = entropy = 0.0
    for row, real in zip(scores.tolist(), there):
        if not real:
            weights.append([0.0] * active)
            chosen.append([experts] * active)
            continue
        log_sum = math.log(sum(math.exp(s) for s in row))
        if kind["score"] == "softmax":
            p = [math.exp(s - log_sum) for s in row]
        elif kind["score"] == "sigmoid":
            p = [1 / (1 + math.exp(-s)) for s in row]
        else:
            p, log_sum = row, 0.0
        names = sorted(range(experts), key=lambda e, p=p: -(p[e] + bias[e]))[:active]
        total = sum(p[e] for e in names) if kind["normalise"] else 1.0
        weights.append([kind["scale"] * p[e] / total for e in names])
        chosen.append(names)
        for k, e in enumerate(names):
            counts[k][e] += 1
        q = [value / sum(p) for value in p]
        mean = [a + b for a, b in zip(mean, q)]
        squares += log_sum**2
        entropy -= sum(value * math.log(value) for value in q)
    number = max(1, sum(there))
    return {
        "weights": weights,
        "chosen": chosen,
        "counts": counts,
        "probability": [value / number for value in mean],
        "log_sum": squares / number,
        "entropy": entropy / number,
        "tokens": float(sum(there)),
    }


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("active", [1, 2, 5])
@pytest.mark.parametrize("which", ["all", "some", "none"])
def test_it_is_what_loops_say(kind: dict, active: int, which: str) -> None:
    scores = scores_of(kind)
    bias = [0.0, 0.4, -0.3, 0.2, 0.0] if active == 2 else [0.0] * 5
    there = [which == "all" or (which == "some" and t % 3 != 1) for t in range(len(scores))]
    found = expert_gate(
        scores,
        active,
        bias=torch.tensor(bias),
        there=None if which == "all" else torch.tensor(there),
        **kind,
    )
    expected = by_loops(scores, active, kind, bias, there)
    assert {
        name: value.dtype
        for name, value in found._asdict().items()
        if not value.is_floating_point()
    } == {"chosen": torch.int64, "counts": torch.int64}
    for name, value in found._asdict().items():
        torch.testing.assert_close(
            value.double(), torch.tensor(expected[name], dtype=FLOAT64), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("mask", [False, True])
def test_gradients(kind: dict, mask: bool) -> None:
    scores = scores_of(kind).requires_grad_()
    there = torch.arange(len(scores)) % 3 != 1 if mask else None

    def parts(s: Tensor) -> tuple[Tensor, ...]:
        gate = expert_gate(s, 2, there=there, **kind)
        return gate.weights, gate.probability, gate.log_sum

    assert torch.autograd.gradcheck(parts, (scores,))
    (found,) = torch.autograd.grad(sum(part.sum() for part in parts(scores)), scores)
    assert there is None or not found[~there].any()
    torch.library.opcheck(
        torch.ops.headwise.expert_gate.default,
        (scores, None, there, 2, kind["score"], kind["normalise"], kind["scale"]),
    )


def test_padding_may_hold_anything() -> None:
    there = torch.tensor([True, False, True])
    scores = torch.randn(3, 4)
    wild = torch.where(there[:, None], scores, torch.tensor(float("nan")))
    for kind in ("softmax", "sigmoid", "given"):
        one = expert_gate(scores.abs(), 2, score=kind, there=there)
        other = wild.abs().requires_grad_()
        found = expert_gate(other, 2, score=kind, there=there)
        for a, b in zip(one, found):
            assert torch.equal(a, b)
        (grad,) = torch.autograd.grad(
            found.weights.square().sum() + found.probability[0] + found.log_sum,
            other,
            allow_unused=True,
        )
        assert grad.isfinite().all()


def test_it_compiles_whole_and_nobody_there() -> None:
    def call(s: Tensor) -> Gate:
        return expert_gate(s, 2, normalise=True)

    scores = torch.randn(9, 6)
    for a, b in zip(torch.compile(call, backend="aot_eager", fullgraph=True)(scores), call(scores)):
        torch.testing.assert_close(a, b)
    empty = call(scores[:0])
    assert empty.weights.shape == (0, 2)
    assert not empty.counts.any()
    assert float(empty.tokens) == 0
    assert torch.stack([empty.log_sum, empty.entropy]).tolist() == [0, 0]


def test_forms_and_mistakes() -> None:
    assert [form.refused for form in forms(torch.zeros(2, 3, dtype=FLOAT64))] == ["float64", ""]
    assert "CUDA" in forms(torch.zeros(2, 3))[0].refused
    assert "1024" in forms(torch.zeros(1, LARGEST + 1))[0].refused
    scores = torch.zeros(3, 4)
    for message, given in (
        ("3, 4", {"scores": scores, "active": 5}),
        ("score must be", {"scores": scores, "active": 1, "score": "linear"}),
        ("bias must be", {"scores": scores, "active": 1, "bias": torch.zeros(3)}),
        (
            "there must be",
            {"scores": scores, "active": 1, "there": torch.ones(4, dtype=torch.bool)},
        ),
        ("float16", {"scores": scores.half(), "active": 1}),
    ):
        with pytest.raises(ValueError, match=message):
            expert_gate(**given)
