"""Aggregated attention against loops, and its limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention.grid.aggregated import AggregatedAttention, _distances


def make(**options) -> AggregatedAttention:
    torch.manual_seed(0)
    model = AggregatedAttention(8, **({"heads": 2, "hidden": 6} | options)).double()
    for parameter in model.parameters():
        if parameter.ndim != 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return layer.weight @ x + layer.bias


def bins_of(cells: int, count: int) -> list[list[int]]:
    return [
        list(range(i * cells // count, math.ceil((i + 1) * cells / count))) for i in range(count)
    ]


def formula(
    model: AggregatedAttention, x: Tensor, size: tuple[int, int], present: list[bool]
) -> Tensor:
    """One image x (N, D) by loops over heads, cells and keys."""
    height, width = size
    w, d = model.window, model.width // model.heads
    cells, regions = range(height * width), []
    if model.pool is not None:
        down = bins_of(height, max(1, height // model.reduction))
        across = bins_of(width, max(1, width // model.reduction))
        for rows in down:
            for columns in across:
                inside = [r * width + c for r in rows for c in columns if present[r * width + c]]
                centre = (sum(rows) / len(rows), sum(columns) / len(columns))
                if inside:
                    mean = torch.stack([F.gelu(linear(x[n], model.pool)) for n in inside]).mean(0)
                    norm = F.layer_norm(
                        mean, (model.width,), model.pool_norm.weight, model.pool_norm.bias
                    )
                    regions.append((linear(norm, model.key_value), centre))
    out = torch.zeros_like(x)
    for n in cells:
        row, column = divmod(n, width)
        near = []
        for o in range(w * w):
            r, c = row + o // w - w // 2, column + o % w - w // 2
            if 0 <= r < height and 0 <= c < width and present[r * width + c]:
                near.append((o, r * width + c))
        count = max(2, len(near) + len(regions))
        for h in range(model.heads):
            part, value_part = slice(h * d, (h + 1) * d), slice(8 + h * d, 8 + (h + 1) * d)
            q = linear(x[n], model.query)[part]
            q = q / q.norm()
            scaled = (
                (q + model.embedding[h, 0])
                * F.softplus(model.temperature[h, 0, 0])
                * math.log(count)
            )
            scores, values = [], []
            for o, j in near:
                both = linear(x[j], model.key_value)
                scores.append(scaled @ (both[part] / both[part].norm()) + model.local_bias[h, 0, o])
                values.append(both[value_part])
            for both, centre in regions:
                away = x.new_tensor(
                    [
                        (row - centre[0]) / max(1, height - 1),
                        (column - centre[1]) / max(1, width - 1),
                    ]
                )
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


@pytest.mark.parametrize(
    "options", [{}, {"pooled": False}, {"window": 5, "reduction": 3}, {"learned_tokens": False}]
)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (7, 2)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_loops(options: dict, size: tuple[int, int], masked: bool) -> None:
    model, count = make(**options), size[0] * size[1]
    x = torch.randn(2, count, 8, dtype=torch.float64)
    mask = torch.ones(2, count, dtype=torch.bool)
    if masked:
        mask = torch.rand(2, count) < 0.6
        mask[0] = False
    expected = torch.stack(
        [formula(model, row, size, present.tolist()) for row, present in zip(x, mask)]
    )
    out = model(x, size=size, mask=mask if masked else None)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    if model.tokens is None:
        weights = model.weights(x, size=size, mask=mask if masked else None)
        total = weights.sum(-1)
        assert ((total - 1).abs().lt(1e-9) | total.eq(0)).all()


def test_a_window_over_the_entire_image_is_cosine_attention() -> None:
    model = make(window=9, pooled=False, learned_tokens=False)
    torch.nn.init.zeros_(model.local_bias)
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    q, (k, v) = model.query(x), model.key_value(x).chunk(2, -1)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (q, k, v))
    scaled = (
        (F.normalize(q, dim=-1) + model.embedding) * F.softplus(model.temperature) * math.log(20)
    )
    mixed = (scaled @ F.normalize(k, dim=-1).transpose(2, 3)).softmax(-1) @ v
    torch.testing.assert_close(model(x, size=(4, 5)), model.out(mixed.transpose(1, 2).flatten(2)))


def test_a_window_of_one_cell_is_its_value() -> None:
    model = make(window=1, pooled=False, learned_tokens=False)
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x, size=(3, 4)), model.out(model.key_value(x)[..., 8:]))


def test_the_scale_counts_the_keys() -> None:
    """The spec's figures: log 53 = 3.970 in a corner, log 58 = 4.060 inside, for a 7 x 7 map with
    49 pooled cells.
    """
    model, x = make(reduction=1), torch.randn(1, 49, 8, dtype=torch.float64)
    count = model._count(None, model._pooled(x, None, (7, 7)), (7, 7), x).log().flatten()
    assert round(float(count[0]), 3) == 3.970
    assert round(float(count[24]), 3) == 4.060


def test_the_published_start_of_the_temperature() -> None:
    model = AggregatedAttention(8, heads=2)
    torch.testing.assert_close(F.softplus(model.temperature), torch.full((2, 1, 1), 1 / 0.24))
    with pytest.raises(ValueError, match="window must be odd"):
        AggregatedAttention(8, heads=2, window=4)


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_without_learned_tokens_the_rows_sum_to_one(masked: bool) -> None:
    """T = b = 0: cells of one value give that value; the weights never have the term of T and b."""
    model = make(reduction=2)
    assert model.tokens is not None
    assert model.token_bias is not None
    x = torch.randn(2, 15, 8, dtype=torch.float64)
    mask = torch.rand(2, 15) < 0.6 if masked else None
    weights = model.weights(x, size=(3, 5), mask=mask)
    model.key_value.weight[8:] = 0.0
    constant = model.out(model.key_value.bias[8:]).expand(2, 15, 8)
    assert not torch.allclose(model(x, size=(3, 5), mask=mask), constant, atol=1e-3)
    model.tokens.zero_()
    model.token_bias.zero_()
    torch.testing.assert_close(model(x, size=(3, 5), mask=mask), constant, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        weights.sum(-1), torch.ones(2, 2, 15, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )
    if mask is not None:
        assert (weights.transpose(1, 3)[~mask] == 0).all()


@torch.no_grad()
def test_the_weights_are_those_of_the_window_and_divide_the_rest_evenly() -> None:
    """The cell itself, the only one in a window of one, stands out from its bin; all others of a
    bin are equal.
    """
    model = make(reduction=2, window=1, learned_tokens=False)
    x, size = torch.randn(1, 24, 8, dtype=torch.float64), (4, 6)
    weights = model.weights(x, size=size).view(2, 24, 2, 2, 3, 2)
    same = torch.eye(24, dtype=torch.bool).view(24, 2, 2, 3, 2)
    shares = weights.masked_fill(same, torch.nan)
    middle = shares.nanmean((3, 5), keepdim=True).expand_as(weights)
    torch.testing.assert_close(weights[:, ~same], middle[:, ~same], rtol=1e-10, atol=1e-12)
    assert (weights[:, same] > middle[:, same]).all()


def test_a_bin_without_cells_is_not_a_key() -> None:
    """What is masked changes nothing, even if an entire bin is masked: there is one key less."""
    model = make(reduction=2, window=1, learned_tokens=False)
    x = torch.randn(1, 16, 8, dtype=torch.float64)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, [0, 1, 4, 5]] = False
    pooled = model._pooled(x, mask, (4, 4))
    assert pooled is not None
    assert pooled[2].tolist() == [[False, True, True, True]]
    assert model._count(mask, pooled, (4, 4), x).flatten()[[0, 15]].tolist() == [3.0, 4.0]
    filled = x.masked_fill(~mask[..., None], 7.0)
    result = model(x, mask=mask, size=(4, 4))[mask]
    torch.testing.assert_close(
        model(filled, mask=mask, size=(4, 4))[mask], result, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(
    ("side", "bins"), [(1, 1), (8, 2), (9, 3), (7, 7), (7, 3), (5, 2), (3, 2), (6, 1)]
)
def test_distances_are_distinct(side: int, bins: int) -> None:
    values, index = _distances(side, bins, torch.device("cpu"))
    assert len(values.unique()) == len(values) <= 4 * side
    for cell in range(side):
        for place, covered in enumerate(bins_of(side, bins)):
            assert values[index[cell, place]] / 2 == cell - sum(covered) / len(covered)
    assert {int(values[index].min()), int(values[index].max())} == {int(values[0]), int(values[-1])}
