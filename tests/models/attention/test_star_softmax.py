"""STAR and softmax attention against plain formulas, masks, contexts, gradients; the table of
mechanisms.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.kernels.star_core import star_core
from headwise.models.attention import STAR, SoftmaxAttention, build_attention
from headwise.models.layers.blocks import EncoderLayer, FeedForward


def linear(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    return x @ layer.weight.t() + layer.bias


def star_formula(
    model: STAR, x: Tensor, source: Tensor, mask: Tensor | None = None, index: Tensor | None = None
) -> Tensor:
    """Algorithm 1 with copies of the core and their concatenation; drawn at index, or the mean."""
    z = linear(F.gelu(linear(source, model.hidden)), model.core)
    if index is not None:
        core = z.gather(1, index.clamp_min(0)[:, None]) * (index >= 0)[:, None]
    else:
        weight = z if mask is None else z.masked_fill(~mask[..., None], -torch.inf)
        core = (weight.softmax(1).nan_to_num() * z).sum(1, keepdim=True)
    joined = torch.cat([x, core.repeat(1, x.shape[1], 1)], -1)
    return linear(F.gelu(linear(joined, model.fuse)), model.out)


@pytest.mark.parametrize("shape", [(2, 7, 5, 3), (1, 1, 4, 4), (3, 50, 6, 9), (2, 90, 5, 2)])
@pytest.mark.parametrize("way", ["drawn", "mean", "evaluation"])
@pytest.mark.parametrize("masked", [False, True])
def test_star_equals_the_formula(shape: tuple[int, int, int, int], way: str, masked: bool) -> None:
    torch.manual_seed(0)
    bags, tokens, width, core = shape
    model = STAR(width, core=core, stochastic=way == "drawn").double().train(way != "evaluation")
    x = torch.randn(bags, tokens, width, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(bags, tokens) < 0.6 if masked else None
    index = None
    if way == "drawn":
        torch.manual_seed(1)
        hidden, pooled = model.hidden, model.core
        index = star_core(x, hidden.weight, hidden.bias, pooled.weight, pooled.bias, mask=mask)[1]
    torch.manual_seed(1)
    out = model(x, mask=mask)
    plain = star_formula(model, x, x, mask, index)
    torch.testing.assert_close(out, plain, rtol=1e-10, atol=1e-10)
    inputs = [x, *model.parameters()]
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(plain, inputs, grad)
    )


def test_star_in_float32_is_exact_to_rounding() -> None:
    torch.manual_seed(2)
    model, x = STAR(32, core=16).eval(), torch.randn(2, 300, 32)
    torch.testing.assert_close(model(x), star_formula(model, x, x), rtol=1e-6, atol=1e-6)


def test_star_pools_the_context() -> None:
    torch.manual_seed(3)
    model, x, context = STAR(6, core=4).eval(), torch.randn(2, 3, 6), torch.randn(2, 11, 6)
    mask = torch.rand(2, 11) < 0.5
    out = model(x, context, mask=mask)
    torch.testing.assert_close(out, star_formula(model, x, context, mask), rtol=1e-5, atol=1e-6)
    context[~mask] = torch.nan
    torch.testing.assert_close(model(x, context, mask=mask), out)


def test_star_evaluation_does_not_see_the_order_of_tokens() -> None:
    model, x, order = STAR(8).eval(), torch.randn(2, 20, 8), torch.randperm(20)
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order], rtol=1e-5, atol=1e-6)


def attention_formula(
    model: SoftmaxAttention, x: Tensor, context: Tensor, mask: Tensor | None
) -> Tensor:
    query, (key, value) = linear(x, model.query), linear(context, model.key_value).chunk(2, -1)
    size = model.width // model.heads
    mixed = []
    for h in range(model.heads):
        part = slice(h * size, (h + 1) * size)
        score = query[..., part] @ key[..., part].transpose(1, 2) / size**0.5
        if mask is not None:
            score = score.masked_fill(~mask, -torch.inf)
        mixed.append(score.softmax(-1).nan_to_num() @ value[..., part])
    return linear(torch.cat(mixed, -1), model.out)


@pytest.mark.parametrize("form", ["none", "keys", "pairs", "heads"])
def test_softmax_attention_equals_the_formula(form: str) -> None:
    torch.manual_seed(4)
    model = SoftmaxAttention(12, heads=3)
    x, context = torch.randn(2, 5, 12, requires_grad=True), torch.randn(2, 7, 12)
    mask = {"none": None, "keys": torch.rand(2, 7) < 0.6, "pairs": torch.rand(2, 5, 7) < 0.6}.get(
        form
    )
    if mask is not None:
        mask[0] = False
    spread = mask[:, None] if form == "keys" and mask is not None else mask
    if form == "heads":
        mask = torch.ones(2, 3, 5, 7, dtype=torch.bool)
    out = model(x, context, mask=mask)
    torch.testing.assert_close(
        out, attention_formula(model, x, context, spread), rtol=1e-5, atol=1e-6
    )
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="nearest is 'star'"):
        build_attention("starr", 8)
    with pytest.raises(ValueError, match="no option 'cores'; nearest is 'core'"):
        build_attention("star", 8, cores=3)
    with pytest.raises(ValueError, match="do not divide"):
        build_attention("softmax", 8, heads=3)
    with pytest.raises(ValueError, match="must be positive"):
        STAR(8, core=0)
    with pytest.raises(ValueError, match="STAR: needs"):
        STAR(8)(torch.zeros(2, 3, 7))
    with pytest.raises(ValueError, match="SoftmaxAttention: needs"):
        SoftmaxAttention(8)(torch.zeros(2, 3, 7))
    with pytest.raises(ValueError, match="mask must be"):
        SoftmaxAttention(8)(torch.zeros(2, 3, 8), mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="'mlp' or 'glu'"):
        FeedForward(8, kind="relu")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mlp", "glu"])
def test_encoder_layer_equals_the_formula(kind: str) -> None:
    torch.manual_seed(6)
    ffn = FeedForward(8, 12, kind=kind)  # type: ignore[arg-type]
    layer = EncoderLayer(8, STAR(8, stochastic=False), ffn)
    x = torch.randn(2, 5, 8)
    mixed = F.layer_norm(
        x + star_formula(layer.mixer, x, x), (8,), layer.norm1.weight, layer.norm1.bias
    )  # type: ignore[arg-type]
    if ffn.gate is None:
        inner = F.gelu(linear(mixed, ffn.up))
    else:
        inner = F.gelu(linear(mixed, ffn.gate)) * linear(mixed, ffn.up)
    plain = F.layer_norm(
        mixed + linear(inner, ffn.down), (8,), layer.norm2.weight, layer.norm2.bias
    )
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(7)
    ffn, x = FeedForward(8, 12, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(ffn(x), ffn(x))
    ffn.eval()
    torch.testing.assert_close(ffn(x), linear(F.gelu(linear(x, ffn.up)), ffn.down))
