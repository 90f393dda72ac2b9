"""Aggregated attention against loops, its limits, and the feed-forward network of the same paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention.aggregated import AggregatedAttention
from headwise.models.blocks import FeedForward, build_feedforward
from headwise.models.convglu import ConvGLU
from headwise.models.vit import VisionTransformer


def make(**options) -> AggregatedAttention:
    torch.manual_seed(0)
    model = AggregatedAttention(8, **({"heads": 2, "hidden": 6} | options)).double()
    for parameter in model.parameters():
        if parameter.ndim != 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return layer.weight @ x + layer.bias


def bins(cells: int, count: int) -> list[list[int]]:
    return [list(range(i * cells // count, math.ceil((i + 1) * cells / count))) for i in range(count)]


def formula(model: AggregatedAttention, x: Tensor, size: tuple[int, int], there: list[bool]) -> Tensor:
    """One image x (N, D) by loops over heads, cells and keys."""
    height, width = size
    w, d = model.window, model.width // model.heads
    cells, regions = range(height * width), []
    if model.pool is not None:
        down = bins(height, max(1, height // model.reduction))
        across = bins(width, max(1, width // model.reduction))
        for i, rows in enumerate(down):
            for j, columns in enumerate(across):
                inside = [r * width + c for r in rows for c in columns if there[r * width + c]]
                centre = ((i + 0.5) / len(down), (j + 0.5) / len(across))
                if inside:
                    mean = torch.stack([F.gelu(linear(x[n], model.pool)) for n in inside]).mean(0)
                    norm = F.layer_norm(mean, (model.width,), model.pool_norm.weight, model.pool_norm.bias)
                    regions.append((linear(norm, model.key_value), centre))
    out = torch.zeros_like(x)
    for n in cells:
        row, column = divmod(n, width)
        near = []
        for o in range(w * w):
            r, c = row + o // w - w // 2, column + o % w - w // 2
            if 0 <= r < height and 0 <= c < width and there[r * width + c]:
                near.append((o, r * width + c))
        count = max(2, len(near) + len(regions))
        for h in range(model.heads):
            part, value_part = slice(h * d, (h + 1) * d), slice(8 + h * d, 8 + (h + 1) * d)
            q = linear(x[n], model.query)[part]
            q = q / q.norm()
            scaled = (q + model.embedding[h, 0]) * F.softplus(model.temperature[h, 0, 0]) * math.log(count)
            scores, values = [], []
            for o, j in near:
                both = linear(x[j], model.key_value)
                scores.append(scaled @ (both[part] / both[part].norm()) + model.local_bias[h, 0, o])
                values.append(both[value_part])
            for both, centre in regions:
                away = x.new_tensor([(row + 0.5) / height - centre[0], (column + 0.5) / width - centre[1]])
                away = away.sign() * (1 + 8 * away.abs()).log2() / 3
                scores.append(scaled @ (both[part] / both[part].norm()) + model.distance(away)[h])
                values.append(both[value_part])
            if scores:
                out[n, part] = torch.softmax(torch.stack(scores), 0) @ torch.stack(values)
            if model.tokens is not None:
                learned = q @ model.tokens[h] + model.token_bias[h, 0]
                for o, j in near:
                    out[n, part] += learned[o] * linear(x[j], model.key_value)[value_part]
    return torch.stack([linear(row, model.out) for row in out])


@pytest.mark.parametrize("options", [{}, {"pooled": False}, {"window": 5, "reduction": 3}, {"learned_tokens": False}])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_loops(options: dict, size: tuple[int, int], masked: bool) -> None:
    model, count = make(**options), size[0] * size[1]
    x = torch.randn(2, count, 8, dtype=torch.float64)
    mask = torch.ones(2, count, dtype=torch.bool)
    if masked:
        mask = torch.rand(2, count) < 0.6
        mask[0] = False
    expected = torch.stack([formula(model, row, size, there.tolist()) for row, there in zip(x, mask)])
    out = model(x, size=size, mask=mask if masked else None)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    if model.tokens is None:
        weights = model.weights(x, size=size, mask=mask if masked else None)
        total = weights.sum(-1)
        assert ((total - 1).abs().lt(1e-9) | total.eq(0)).all()


def test_a_window_over_the_whole_image_is_cosine_attention() -> None:
    model = make(window=9, pooled=False, learned_tokens=False)
    torch.nn.init.zeros_(model.local_bias)
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    q, (k, v) = model.query(x), model.key_value(x).chunk(2, -1)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (q, k, v))
    scaled = (F.normalize(q, dim=-1) + model.embedding) * F.softplus(model.temperature) * math.log(20)
    mixed = (scaled @ F.normalize(k, dim=-1).transpose(2, 3)).softmax(-1) @ v
    torch.testing.assert_close(model(x, size=(4, 5)), model.out(mixed.transpose(1, 2).flatten(2)))


def test_a_window_of_one_cell_is_its_value() -> None:
    model = make(window=1, pooled=False, learned_tokens=False)
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x, size=(3, 4)), model.out(model.key_value(x)[..., 8:]))


def test_the_scale_counts_the_keys() -> None:
    """The spec's figures: log 53 = 3.970 in a corner, log 58 = 4.060 inside, for a 7 x 7 map with 49 pooled cells."""
    model, x = make(reduction=1), torch.randn(1, 49, 8, dtype=torch.float64)
    count = model._count(None, model._pooled(x, None, (7, 7)), (7, 7), x).log().flatten()
    assert round(float(count[0]), 3) == 3.970
    assert round(float(count[24]), 3) == 4.060


def test_the_published_start_of_the_temperature() -> None:
    model = AggregatedAttention(8, heads=2)
    torch.testing.assert_close(F.softplus(model.temperature), torch.full((2, 1, 1), 1 / 0.24))
    with pytest.raises(ValueError, match="window must be odd"):
        AggregatedAttention(8, heads=2, window=4)


@torch.no_grad()
def test_convglu_equals_the_loop() -> None:
    torch.manual_seed(1)
    model = ConvGLU(4, 9).double()
    x = torch.randn(2, 15, 4, dtype=torch.float64)
    gate, up = model.gate(x).view(2, 3, 5, 6), model.up(x).view(2, 3, 5, 6)
    mixed = torch.zeros_like(gate)
    for row in range(3):
        for column in range(5):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= row + dy < 3 and 0 <= column + dx < 5:
                        tap = model.conv.weight[:, 0, dy + 1, dx + 1]
                        mixed[:, row, column] += tap * gate[:, row + dy, column + dx]
    expected = model.down((F.gelu(mixed + model.conv.bias) * up).flatten(1, 2))
    torch.testing.assert_close(model(x, size=(3, 5)), expected, rtol=1e-10, atol=1e-10)


def test_convglu_with_the_centre_alone_is_a_gated_linear_unit() -> None:
    torch.manual_seed(2)
    model, plain = ConvGLU(4, 12), FeedForward(4, 8, kind="glu")
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.weight[:, :, 1, 1] = 1.0
        model.conv.bias.zero_()
    assert plain.gate is not None
    for mine, theirs in ((model.gate, plain.gate), (model.up, plain.up), (model.down, plain.down)):
        mine.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 16, 4)
    torch.testing.assert_close(model(x), plain(x))


def test_convglu_in_a_vision_transformer() -> None:
    assert isinstance(build_feedforward("convglu", 8), ConvGLU)
    model = VisionTransformer(
        image=(16, 24), patch=8, channels=1, classes=3, width=8, depth=2, heads=2, attention="aggregated", ffn="convglu"
    )
    model(torch.randn(2, 1, 16, 24)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
