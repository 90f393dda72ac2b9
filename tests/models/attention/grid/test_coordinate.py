"""Coordinate attention against loops and timm's module, and what its paper says about it."""

import pytest
import torch
from torch import nn

from headwise.models.attention.grid.coordinate import CoordinateAttention


def make(width: int = 6, **options) -> CoordinateAttention:
    torch.manual_seed(0)
    model = CoordinateAttention(width, **options).double()
    if isinstance(model.norm, nn.BatchNorm1d):
        nn.init.normal_(model.norm.running_mean)
        nn.init.uniform_(model.norm.running_var, 0.5, 2)
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias)
    return model.eval()


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 1), (7, 2)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_loop(norm, size: tuple[int, int], masked: bool) -> None:
    model, (height, width) = make(norm=norm), size
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    mask = (
        torch.rand(2, height, width) < 0.6
        if masked
        else torch.ones(2, height, width, dtype=torch.bool)
    )
    flat_mask = mask.flatten(1) if masked else None
    out = model(x.flatten(1, 2), size=size, mask=flat_mask).view_as(x)

    def gate(cells: list, last: nn.Linear) -> torch.Tensor:
        mean = torch.stack(cells).mean(0) if cells else torch.zeros(6, dtype=torch.float64)
        z = model.squeeze.weight @ mean + model.squeeze.bias
        if isinstance(model.norm, nn.BatchNorm1d):
            z = (z - model.norm.running_mean) / (model.norm.running_var + model.norm.eps).sqrt()
        else:
            z = (z - z.mean()) / (z.var(unbiased=False) + model.norm.eps).sqrt()
        z = z * model.norm.weight + model.norm.bias
        z = z * (z + 3).clamp(0, 6) / 6
        return 1 / (1 + (-(last.weight @ z + last.bias)).exp())

    for b in range(2):
        for i in range(height):
            row = gate([x[b, i, j] for j in range(width) if mask[b, i, j]], model.rows)
            for j in range(width):
                column = gate([x[b, k, j] for k in range(height) if mask[b, k, j]], model.columns)
                torch.testing.assert_close(
                    out[b, i, j], x[b, i, j] * row * column, rtol=1e-10, atol=1e-10
                )


def test_without_its_last_layers_it_is_a_quarter() -> None:
    model = make()
    for layer in (model.rows, model.columns):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(2, 12, 6, dtype=torch.float64)
    torch.testing.assert_close(model(x, size=(3, 4)), 0.25 * x)


def test_rows_and_columns_exchange() -> None:
    model = make()
    model.columns.load_state_dict(model.rows.state_dict())
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    out = model(x.flatten(1, 2), size=(3, 5)).view_as(x)
    transposed = model(x.transpose(1, 2).flatten(1, 2), size=(5, 3)).view(2, 5, 3, 6)
    torch.testing.assert_close(transposed.transpose(1, 2), out)


def test_the_gate_has_rank_one_in_space() -> None:
    x = torch.rand(1, 20, 6, dtype=torch.float64) + 0.5
    gate = (make()(x, size=(4, 5)) / x)[0].view(4, 5, 6)
    for feature in gate.unbind(2):
        singular = torch.linalg.svdvals(feature)
        assert singular[1] < 1e-12 * singular[0]


def test_it_equals_timm() -> None:
    from timm.layers.coord_attn import CoordAttn

    theirs = CoordAttn(16, rd_channels=8, bias=True).double().eval()
    ours = CoordinateAttention(16, reduction=2).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
        for mine, its in (
            (ours.squeeze, theirs.conv1),
            (ours.rows, theirs.conv_h),
            (ours.columns, theirs.conv_w),
        ):
            mine.weight.copy_(its.weight[:, :, 0, 0])
            mine.bias.copy_(its.bias)
    ours.norm.load_state_dict(theirs.bn1.state_dict())
    image = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    expected = theirs(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(
        ours(image.flatten(2).transpose(1, 2), size=(5, 7)), expected, rtol=1e-10, atol=1e-10
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="reduction must be positive"):
        CoordinateAttention(8, reduction=0)
    with pytest.raises(ValueError, match="'batch' or 'layer'"):
        CoordinateAttention(8, norm="group")  # type: ignore[arg-type]
