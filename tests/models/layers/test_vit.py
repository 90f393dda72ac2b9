"""The plain vision transformer and the token model: layers, plans, masks, sizes."""

import pytest
import torch

from headwise.models.attention import ATTENTION
from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.attention.star import STAR
from headwise.models.layers.blocks import EncoderLayer, FeedForward
from headwise.models.layers.vit import TokenModel, TransformerEncoder, VisionTransformer


def test_pre_norm_layer_equals_the_formula() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(8, SoftmaxAttention(8, heads=2), FeedForward(8), norm="pre")
    x = torch.randn(2, 5, 8)
    for norm in (layer.norm1, layer.norm2):
        torch.nn.init.normal_(norm.weight)
    middle = x + layer.mixer(layer.norm1(x))
    torch.testing.assert_close(layer(x), middle + layer.feedforward(layer.norm2(middle)))
    with pytest.raises(ValueError, match="'post' or 'pre'"):
        EncoderLayer(8, SoftmaxAttention(8), FeedForward(8), norm="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(ATTENTION))
def test_every_mechanism_serves_a_vision_transformer(name: str) -> None:
    torch.manual_seed(1)
    model = VisionTransformer(
        image=(24, 32),
        patch=8,
        channels=1,
        classes=5,
        width=16,
        depth=2,
        heads=4,
        attention=(name, "softmax"),
        hidden=16,
    )
    out = model(torch.randn(2, 1, 24, 32))
    assert out.shape == (2, 5)
    out.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_plan_is_repeated_and_takes_options() -> None:
    encoder = TransformerEncoder(
        8, depth=5, heads=2, attention=("star", "softmax"), options={"softmax": {"causal": True}}
    )
    kinds = [type(layer.mixer) for layer in encoder.layers]  # type: ignore[union-attr]
    assert kinds == [STAR, SoftmaxAttention, STAR, SoftmaxAttention, STAR]
    assert encoder.layers[1].mixer.causal  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="at least one layer"):
        TransformerEncoder(8, depth=0)


def test_the_patches_are_the_grid_row_by_row() -> None:
    model = VisionTransformer(
        image=(16, 24), patch=8, channels=1, classes=3, width=8, depth=1, heads=2
    )
    image = torch.zeros(1, 1, 16, 24)
    image[0, 0, 9, 17] = 1.0  # row 1, column 2
    changed = (model.tokens(image) - model.tokens(torch.zeros_like(image))).abs().sum(-1)
    assert changed[0].nonzero().flatten().tolist() == [5]
    with pytest.raises(ValueError, match="got an image of"):
        model(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="do not fill"):
        VisionTransformer(image=(16, 20), patch=8)


def test_padding_never_changes_the_token_model() -> None:
    torch.manual_seed(2)
    model = TokenModel(4, 3, width=16, depth=2, heads=4, tokens=12).double().eval()
    x, mask = torch.randn(2, 12, 4, dtype=torch.float64), torch.arange(12).expand(2, 12) < 7
    torch.testing.assert_close(model(x, mask=mask), model(x[:, :7]))
    assert model(x, mask=torch.zeros_like(mask)).isfinite().all()
    with pytest.raises(ValueError, match="built for up to 12"):
        model(torch.zeros(1, 13, 4, dtype=torch.float64))
