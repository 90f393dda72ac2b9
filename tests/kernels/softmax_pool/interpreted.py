"""Run by test_triton.py in a separate process: softmax pooling and drawing through Triton's
interpreter.
"""

# isort: off
from interpreting import compare, poison  # first
# isort: on

import torch
import triton
import triton.language as tl

from headwise.kernels.softmax_pool import cpu, triton_kernels
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


def each_bag_and_seed_has_noise_of_its_own():
    """Equal bags: those of the next seed draw as nobody did under this one."""
    scores = torch.zeros(1, 40, 50).expand(3, 40, 50)
    draws = [gpu.draw(scores, torch.tensor(seed), None, None) for seed in (0, 1, 2)]
    rows = torch.cat(draws)
    equal = (rows[:, None] == rows).float().mean(-1).fill_diagonal_(0.0)
    assert equal.max() < 0.25, equal  # 1/40 is expected
    print("ok each_bag_and_seed_has_noise_of_its_own")


def rare_rows_are_drawn_as_rarely_as_their_probability():
    """Rows with scores far below the top: a floor under the noise would draw them too often."""
    words = torch.tensor([0, 1, 2**20, 2**26, 2**31, 2**32 - 1], dtype=torch.int64)
    expected = -torch.log1p(-words.double().clamp_min(1) / 2**32).float()
    noise = noise_of(words)
    assert torch.allclose(noise[:-1], expected[:-1], rtol=3e-7, atol=0.0), (noise, expected)
    assert 16 < noise[-1] < 23
    print("ok rare_rows_are_drawn_as_rarely_as_their_probability")


@triton.jit
def noise_kernel(words, noise, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    word = tl.load(words + at).to(tl.uint32)
    tl.store(noise + at, triton_kernels._exponential(word))


def noise_of(words):
    padded = torch.nn.functional.pad(words, (0, 8 - len(words)))
    noise = torch.empty(8)
    noise_kernel[(1,)](padded, noise, COUNT=8)
    return noise[: len(words)]


def tensors_in_steps():
    torch.manual_seed(1)
    scores, values = torch.randn(6, 30, 20)[::2, :, ::2], torch.randn(30, 3, 8).transpose(0, 1)
    mask = (torch.rand(30, 3) < 0.7).mT
    for per_head in (False, True):
        inputs = (scores, values if per_head else scores.flip(1), mask, None)
        expected = cpu.pool(*inputs, per_head)
        compare("steps", gpu.pool(*inputs, per_head), expected, 2e-5)
        results = [x.mT.contiguous().mT for x in expected]
        back = (results[0], *inputs, *results, per_head)
        compare("steps", gpu.pool_backward(*back), cpu.pool_backward(*back), 4e-5)
    print("ok tensors_in_steps")


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
    each_bag_and_seed_has_noise_of_its_own()
    rare_rows_are_drawn_as_rarely_as_their_probability()
    tensors_in_steps()
    not_a_number()
