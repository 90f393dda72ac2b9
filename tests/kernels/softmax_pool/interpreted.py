"""Run by test_triton.py in a process of its own: softmax pooling and drawing through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import torch

from headwise.kernels.softmax_pool import cpu as plain
from headwise.kernels.softmax_pool import triton as device


def case(
    name, bags, rows, width, heads=None, dtype=torch.float32, masked=False, packed=False, own=False
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
    values = None if own else torch.randn(*lead, width).to(dtype)
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
    expected = plain.pool(*arguments, per_head)
    compare(name, device.pool(*arguments, per_head), expected, tolerance)
    grad = torch.randn(expected[0].shape).to(dtype)
    back = (grad, *arguments, *expected, per_head)
    compare(name, device.pool_backward(*back), plain.pool_backward(*back), 2 * tolerance)
    index = device.draw(scores, torch.tensor(5), mask, offsets)
    again = device.draw(scores, torch.tensor(5), mask, offsets)
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
    device.ROWS, device.WIDTH = 8, 4096
    index = device.draw(
        logits[None, :, None].expand(1, 7, draws).contiguous(), torch.tensor(11), None, None
    )
    expected = logits.softmax(0) * draws
    chi = ((index.flatten().bincount(minlength=7) - expected) ** 2 / expected).sum()
    assert chi < 22.5, chi  # p = 0.001
    other = device.draw(
        logits[None, :, None].expand(1, 7, draws).contiguous(), torch.tensor(12), None, None
    )
    assert 0.1 < (index == other).float().mean() < 0.5
    device.ROWS, device.WIDTH = 64, 64
    print("ok frequencies")


def not_a_number():
    scores = torch.randn(2, 130, 5)
    scores[0, 70, 1] = torch.nan
    assert device.draw(scores, torch.tensor(1), None, None)[0].eq(-2).tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]
    pooled = device.pool(scores, None, None, None, False)[0]
    assert pooled.isnan().nonzero().tolist() == [[0, 1]]
    print("ok not_a_number")


if __name__ == "__main__":
    poison()
    case("feature", 2, 150, 70)
    case("feature own masked", 3, 70, 5, masked=True, own=True)
    case("feature own", 1, 1, 3, own=True)
    case("feature packed", 3, 90, 65, packed=True)
    case("feature masked half", 2, 66, 33, masked=True, dtype=torch.float16)
    case("head", 2, 100, 70, heads=3)
    case("head masked", 2, 70, 20, heads=33, masked=True)
    case("head packed half", 3, 80, 65, heads=2, packed=True, dtype=torch.float16)
    case("no bags", 0, 4, 3)
    frequencies()
    not_a_number()
