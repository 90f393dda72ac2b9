"""ContMix against loops over cells and windows, and what its kernels are."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention.grid.contmix import ContMix


def make(width: int = 8, **options) -> ContMix:
    torch.manual_seed(0)
    model = ContMix(
        width, **({"heads": 2, "window": 5, "small": 3, "regions": 2} | options)
    ).double()
    for bias in model.biases:
        torch.nn.init.normal_(bias)
    return model


def kernels(model: ContMix, x: Tensor, size: tuple[int, int], present: Tensor) -> Tensor:
    """Matrices (2 G, N, N) of one image x (N, D), by loops; regions by PyTorch's adaptive pooling
    of sums.
    """
    height, width = size
    image = (x * present[:, None]).t().view(1, -1, height, width)
    sums = F.adaptive_avg_pool2d(image, model.regions).flatten(2)[0].t()
    counts = F.adaptive_avg_pool2d(present.to(x).view(1, 1, height, width), model.regions).flatten()
    query = F.layer_norm(x @ model.query.weight.t() + model.query.bias, (model.width // 2,))
    key = torch.zeros(model.regions**2, model.width // 2, dtype=x.dtype)
    for r in range(model.regions**2):
        if counts[r] > 0:
            mean = model.key.weight @ (sums[r] / counts[r]) + model.key.bias
            key[r] = F.layer_norm(mean, (model.width // 2,))
    part = model.width // 2 // model.heads
    small, large = model.windows
    out = torch.zeros(2 * model.heads, len(x), len(x), dtype=x.dtype)
    for g in range(model.heads):
        cut = slice(g * part, (g + 1) * part)
        for i in range(len(x)):
            affinity = key[:, cut] @ query[i, cut] / part**0.5
            kernel_logits = model.kernels.weight @ affinity + model.kernels.bias
            for kind, (window, numbers) in enumerate(
                ((small, kernel_logits[: small**2]), (large, kernel_logits[small**2 :]))
            ):
                top, first_column = i // width - window // 2, i % width - window // 2
                if min(size) >= window:
                    top = min(max(top, 0), height - window)
                    first_column = min(max(first_column, 0), width - window)
                members, logits = [], []
                for o in range(window**2):
                    row, column = top + o // window, first_column + o % window
                    if 0 <= row < height and 0 <= column < width and present[row * width + column]:
                        place = (
                            (row - i // width + window - 1) * (2 * window - 1)
                            + column
                            - i % width
                            + window
                            - 1
                        )
                        members.append(row * width + column)
                        logits.append(numbers[o] + model.biases[kind][g, place])
                if members:
                    out[kind * model.heads + g, i, members] = torch.softmax(torch.stack(logits), 0)
    return out


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (5, 7), (6, 5)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_loops(size: tuple[int, int], masked: bool) -> None:
    model, count = make(), size[0] * size[1]
    x = torch.randn(2, count, 8, dtype=torch.float64)
    mask = torch.rand(2, count) < 0.6 if masked else torch.ones(2, count, dtype=torch.bool)
    arguments = {"size": size, "mask": mask if masked else None}
    weights = model.weights(x, **arguments)
    expected = torch.stack([kernels(model, *parts[:1], size, parts[1]) for parts in zip(x, mask)])
    torch.testing.assert_close(weights, expected, rtol=1e-10, atol=1e-10)
    halves = []
    for kind in range(2):
        value = x[..., 4 * kind : 4 * kind + 4].unflatten(-1, (2, 2)).transpose(1, 2)
        halves.append((weights[:, 2 * kind : 2 * kind + 2] @ value).transpose(1, 2).flatten(2))
    out = torch.cat(halves, -1) @ model.out.weight.t() + model.out.bias
    torch.testing.assert_close(model(x, **arguments), out, rtol=1e-10, atol=1e-10)


def test_kernels_sum_to_one_so_a_constant_does_not_change() -> None:
    model = make(window=7)
    torch.nn.init.eye_(model.out.weight)
    torch.nn.init.zeros_(model.out.bias)
    x = torch.randn(1, 1, 8, dtype=torch.float64).expand(2, 63, 8)
    torch.testing.assert_close(model(x, size=(7, 9)), x, rtol=1e-12, atol=1e-12)
    total = model.weights(torch.randn(2, 63, 8, dtype=torch.float64), size=(7, 9)).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_large_bias_on_the_centre_is_the_identity_everywhere() -> None:
    """The relative bias knows where the cell is in a window that is shifted at the border."""
    model = make()
    torch.nn.init.eye_(model.out.weight)
    torch.nn.init.zeros_(model.out.bias)
    with torch.no_grad():
        for bias, window in zip(model.biases, model.windows):
            bias[:, (window - 1) * (2 * window - 1) + window - 1] = 1e3
    x = torch.randn(2, 42, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x, size=(6, 7)), x)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of twice"):
        ContMix(12, heads=4)
    with pytest.raises(ValueError, match="must be odd"):
        ContMix(8, heads=2, window=4)
