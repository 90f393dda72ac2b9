"""Run by test_triton.py in a separate process: the gate of experts through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import random

import torch

from headwise.kernels.expert_gate import cpu
from headwise.kernels.expert_gate import triton as gpu
from headwise.tests.kernels.layouts import permuted, strided


def case(
    name,
    tokens,
    experts,
    active,
    score="softmax",
    normalise=True,
    scale=1.0,
    bias=False,
    mask=False,
    layout=lambda x: x,
):
    torch.manual_seed(len(name))
    scores = 2 * torch.randn(tokens, experts)
    if score == "given":
        scores = scores.softmax(1)
    b = 0.3 * torch.randn(experts) if bias else None
    present_mask = torch.rand(tokens) < 0.6 if mask else None
    scores, b, present_mask = (None if x is None else layout(x) for x in (scores, b, present_mask))
    arguments = (scores, b, present_mask, active, score, normalise, scale)
    expected = cpu.forward(*arguments)
    compare(name, gpu.forward(*arguments), expected, 2e-5)
    grads = torch.randn(tokens, active), torch.randn(experts), torch.randn(())
    back = (
        *map(layout, grads),
        scores,
        expected[1],
        expected[-1],
        expected[-2],
        score,
        normalise,
        scale,
    )
    compare(name, [gpu.backward(*back)], [cpu.backward(*back)], 5e-5)
    print("ok", name)


def not_a_number():
    """K different experts, that which is not a number among them, and it is not hidden."""
    for score in ("softmax", "sigmoid", "given"):
        scores = torch.rand(3, 6)
        scores[1, 4] = torch.nan
        for bias in (None, torch.rand(6)):
            rest = (bias, None, 3, score, True, 1.0)
            weights, chosen, counts, mean, _, entropy, *_ = gpu.forward(scores, *rest)
            expected = cpu.forward(scores, *rest)
            assert all(len(set(row.tolist())) == 3 for row in chosen), chosen
            assert torch.equal(chosen[::2], expected[1][::2])
            assert counts.sum() == 9
            assert weights[1].isnan().any()
            assert weights[::2].isfinite().all()
            assert (chosen[1] == 4).any() or score == "softmax", chosen
            assert torch.equal(mean.isnan(), expected[3].isnan()), (mean, expected[3])
            assert entropy.isnan()
    print("ok not a number")


def few_programs():
    """Each takes several blocks of rows; parts do not grow with the tokens."""
    gpu.PROGRAMS = 2
    case("few programs", 300, 70, 3, bias=True, mask=True)
    case("few programs, sigmoid", 129, 100, 2, score="sigmoid")
    gpu.PROGRAMS = 1056


if __name__ == "__main__":
    poison()
    not_a_number()
    few_programs()
    case("permuted", 40, 7, 2, bias=True, mask=True, layout=permuted)
    case("in steps", 40, 7, 2, bias=True, mask=True, layout=strided)
    case("usual", 50, 8, 2)
    case("nobody", 0, 4, 2)
    case("one expert", 9, 1, 1, normalise=False)
    case("all experts", 20, 5, 5)
    case("many", 12, 200, 3, mask=True)
    case("everything", 70, 6, 2, score="sigmoid", scale=2.5, bias=True, mask=True)
    draw = random.Random(0)
    for number in range(20):
        experts = draw.randint(1, 70)
        case(
            f"drawn {number}",
            draw.randint(0, 90),
            experts,
            draw.randint(1, min(6, experts)),
            draw.choice(["softmax", "sigmoid", "given"]),
            draw.random() < 0.5,
            draw.choice([1.0, 2.0]),
            draw.random() < 0.4,
            draw.random() < 0.5,
        )
