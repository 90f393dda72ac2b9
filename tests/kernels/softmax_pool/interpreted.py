"""Run by test_triton.py in a separate process: softmax pooling and drawing through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import torch

from headwise.kernels.softmax_pool import cpu
from headwise.kernels.softmax_pool import triton as gpu


def case(
    name,
    bags,
    rows,
    width,
    heads=None,
    dtype=torch.float32,
    masked=False,
    packed=False,
    values_are_scores=False,
):
    torch.manual_seed(len(name))
    if packed:
        lengths = torch.randint(0, rows, (bags,))
        lengths[0] = 0
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        lead = (int(offsets[-1]),)
    else:
        offsets, lead = None, (bags, rows)
    scores = (2 * torch.randn(*lead, heads or width)).to(dtype)
    values = None if values_are_scores else torch.randn(*lead, width).to(dtype)
    mask = None
    if masked:
        mask = torch.rand(bags, rows) < 0.6
        mask[0] = False
        scores[~mask] = torch.nan
        if values is not None:
            values[~mask] = torch.nan
    arguments = (scores, values, mask, offsets)
    tolerance = 2e-5 if dtype == torch.float32 else 4e-3
    per_head = heads is not None
    expected = cpu.pool(*arguments, per_head)
    compare(name, gpu.pool(*arguments, per_head), expected, tolerance)
    grad = torch.randn(expected[0].shape).to(dtype)
    back = (grad, *arguments, *expected, per_head)
    compare(name, gpu.pool_backward(*back), cpu.pool_backward(*back), 2 * tolerance)
    index = gpu.draw(scores, torch.tensor(5), mask, offsets)
    again = gpu.draw(scores, torch.tensor(5), mask, offsets)
    assert torch.equal(index, again), name
    if mask is not None:
        assert (index[0] == -1).all(), name
        alive = mask.any(1)
        assert mask[alive].gather(1, index[alive]).all(), name
    elif offsets is not None:
        assert ((index < lengths[:, None]) & ((index >= 0) | (lengths[:, None] == 0))).all(), name
    print("ok", name)


def frequencies():
    """Chi-square of the draws of 40,000 equal columns against the softmax, 6 degrees of freedom."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5])
    draws = 40_000
    gpu.ROWS, gpu.WIDTH = 8, 4096
    scores = logits[None, :, None].expand(1, 7, draws).contiguous()
    index, second = (gpu.draw(scores, torch.tensor(seed), None, None) for seed in (11, 12))
    expected = logits.softmax(0) * draws
    chi = ((index.flatten().bincount(minlength=7) - expected) ** 2 / expected).sum()
    assert chi < 22.5, chi  # p = 0.001
    assert 0.1 < (index == second).float().mean() < 0.5
    gpu.ROWS, gpu.WIDTH = 64, 64
    print("ok frequencies")


def not_a_number():
    scores = torch.randn(2, 130, 5)
    scores[0, 70, 1] = torch.nan
    rows_drawn = gpu.draw(scores, torch.tensor(1), None, None)
    assert (rows_drawn == -2).nonzero().tolist() == [[0, 1]]
    pooled = gpu.pool(scores, None, None, None, False)[0]
    assert pooled.isnan().nonzero().tolist() == [[0, 1]]
    print("ok not_a_number")


if __name__ == "__main__":
    poison()
    case("feature", 2, 150, 70)
    case("feature of scores masked", 3, 70, 5, masked=True, values_are_scores=True)
    case("feature of scores", 1, 1, 3, values_are_scores=True)
    case("feature packed", 3, 90, 65, packed=True)
    case("feature masked half", 2, 66, 33, masked=True, dtype=torch.float16)
    case("head", 2, 100, 70, heads=3)
    case("head masked", 2, 70, 20, heads=33, masked=True)
    case("head packed half", 3, 80, 65, heads=2, packed=True, dtype=torch.float16)
    case("no bags", 0, 4, 3)
    frequencies()
    not_a_number()
