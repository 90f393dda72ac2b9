"""ConvGLU against loops, its limit, any grid, and in a layer and a model."""

import pytest
import torch
import torch.nn.functional as F

from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.layers.blocks import EncoderLayer, FeedForward, build_feedforward
from headwise.models.layers.convglu import ConvGLU
from headwise.models.layers.vit import VisionTransformer


@torch.no_grad()
def test_it_equals_the_loop() -> None:
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


def test_with_the_centre_alone_it_is_a_gated_linear_unit() -> None:
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


def test_in_a_vision_transformer() -> None:
    assert isinstance(build_feedforward("convglu", 8), ConvGLU)
    model = VisionTransformer(
        image=(16, 24),
        patch=8,
        channels=1,
        classes=3,
        width=8,
        depth=2,
        heads=2,
        attention="aggregated",
        ffn="convglu",
    )
    model(torch.randn(2, 1, 16, 24)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (3, 4)])
def test_gradients_on_any_grid(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    model = ConvGLU(3, 6).double()
    x = torch.randn(2, size[0] * size[1], 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model(x, size=size), (x,), fast_mode=True)
    model(x, size=size).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_a_cell_reaches_its_eight_neighbours_only() -> None:
    torch.manual_seed(4)
    model, x = ConvGLU(4), torch.randn(1, 30, 4)
    changed_x = x.clone()
    changed_x[0, 14] += 1.0  # row 2, column 2 of 5 x 6
    changed = (model(x, size=(5, 6)) - model(changed_x, size=(5, 6))).abs().amax(-1).view(5, 6) > 0
    rows, columns = changed.nonzero(as_tuple=True)
    assert set(zip(rows.tolist(), columns.tolist())) == {
        (r, c) for r in (1, 2, 3) for c in (1, 2, 3)
    }


def test_a_layer_gives_it_the_size() -> None:
    torch.manual_seed(5)
    layer = EncoderLayer(
        8, SoftmaxAttention(8, heads=2), build_feedforward("convglu", 8), norm="pre"
    )
    x = torch.randn(2, 12, 8)
    middle = x + layer.mixer(layer.norm1(x))
    torch.testing.assert_close(
        layer(x, size=(3, 4)), middle + layer.feedforward(layer.norm2(middle), size=(3, 4))
    )
    assert not torch.allclose(layer(x, size=(3, 4)), layer(x, size=(4, 3)))
    with pytest.raises(ValueError, match="do not form a square grid"):
        layer(x)


def test_it_is_as_large_as_published() -> None:
    assert ConvGLU(48).up.out_features == 128
    assert ConvGLU(72, 8 * 72).up.out_features == 384
