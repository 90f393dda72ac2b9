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
):
    torch.manual_seed(len(name))
    scores = 2 * torch.randn(tokens, experts)
    if score == "given":
        scores = scores.softmax(1)
    b = 0.3 * torch.randn(experts) if bias else None
    present_mask = torch.rand(tokens) < 0.6 if mask else None
    arguments = (scores, b, present_mask, active, score, normalise, scale)
    expected = cpu.forward(*arguments)
    compare(name, gpu.forward(*arguments), expected, 2e-5)
    grads = torch.randn(tokens, active), torch.randn(experts), torch.randn(())
    back = (*grads, scores, expected[1], expected[-1], expected[-2], score, normalise, scale)
    compare(name, [gpu.backward(*back)], [cpu.backward(*back)], 5e-5)
    print("ok", name)


if __name__ == "__main__":
    poison()
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
