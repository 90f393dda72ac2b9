"""MEDUSA-style attention against plain formulas; what the ablations leave out; sizes, gradients,
export.
"""

import pytest
import torch
from torch import nn

from headwise.models.vision.medusa import CBAM, Body, Head, Medusa, build_medusa, scaled, size_of

pytest.importorskip("timm", reason="the extra `vision` is not installed")


def model(**options) -> Medusa:
    torch.manual_seed(0)
    return build_medusa("small", 3, body_width=4, head_width=8, **options)


def small_inputs(count: int = 2, side: int = 64, small: int = 48):
    torch.manual_seed(1)
    return torch.randn(count, 1, side, side), torch.randn(count, 1, small, small)


class TestHead:
    @pytest.mark.parametrize("form", ["residual", "pure"])
    def test_it_is_the_formula(self, form) -> None:
        head = Head(5, 3, width=4, form=form).eval()
        v, guide = torch.randn(2, 5, 6, 7), torch.randn(2, 3, 6, 7)
        local = (
            torch.einsum("oc,bcyx->boyx", head.reduce.weight[:, :, 0, 0], v)
            + head.reduce.bias[:, None, None]
        )
        mixed = nn.functional.conv2d(torch.cat([local, guide], 1), head.mix[0].weight, padding=1)
        norm = head.mix[1]
        mixed = (mixed - norm.running_mean[:, None, None]) / (norm.running_var + norm.eps).sqrt()[
            :, None, None
        ]
        mixed = (mixed * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp_min(0)
        mask = (
            torch.einsum("oc,bcyx->boyx", head.out.weight[:, :, 0, 0], mixed) + head.out.bias
        ).sigmoid()
        out, got = head(v, guide)
        torch.testing.assert_close(got, mask)
        torch.testing.assert_close(out, v + v * mask if form == "residual" else v * mask)

    def test_what_it_sees(self) -> None:
        v, other_features, guide, second = torch.randn(4, 1, 5, 6, 7).split(1)
        for sees, by_map, by_body in (
            ("both", True, True),
            ("global", False, True),
            ("local", True, False),
        ):
            head = Head(5, 5, sees=sees).eval()
            mask = head(v[0], guide[0])[1]
            assert torch.equal(mask, head(other_features[0], guide[0])[1]) != by_map
            assert torch.equal(mask, head(v[0], second[0])[1]) != by_body


def test_the_bodys_map_is_brought_to_each_scale_without_aliasing() -> None:
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    torch.testing.assert_close(scaled(stripes, (16, 16)), torch.full((1, 1, 16, 16), 0.5))
    torch.testing.assert_close(scaled(stripes, (28, 28)), torch.full((1, 1, 28, 28), 0.5))
    assert scaled(stripes, (64, 64)) is stripes
    assert scaled(stripes[:, :, :5, :7], (20, 20)).shape[2:] == (20, 20)


@pytest.mark.parametrize("size", [(48, 48), (33, 50), (16, 16)])
def test_the_body_keeps_any_size(size) -> None:
    body = Body(4)
    lungs, features = body(torch.randn(2, 1, *size))
    assert lungs.shape == (2, 1, *size)
    assert features.shape == (2, 4, *size)
    assert size_of(Body(24)) <= 6_000_000


def test_masks_change_what_the_next_stage_sees() -> None:
    net = model().eval()
    picture, small = small_inputs()
    attended = net.attend(picture, small)
    assert [tuple(m.shape[1:]) for m in attended.masks] == [
        (1, 16, 16),
        (1, 8, 8),
        (1, 4, 4),
        (1, 2, 2),
    ]
    assert all(((m > 0) & (m < 1)).all() for m in attended.masks)
    assert attended.lungs.shape == small.shape
    # By hand: each stage of the backbone, then its head.
    x = picture.expand(-1, 3, -1, -1)
    guide = torch.cat([attended.lungs.sigmoid(), net.body(small)[1]], 1)
    stage = 0
    for name, part in net.backbone.model.items():
        x = part(x)
        if name in net.backbone.model.return_layers:
            x = net.heads[stage](x, guide)[0]
            stage += 1
    torch.testing.assert_close(attended.logits, net.classifier(x.mean((2, 3))))
    # Without attention it is the backbone.
    plain = model(attention="none").eval()
    last = plain.backbone(picture.expand(-1, 3, -1, -1))[-1]
    torch.testing.assert_close(plain(picture, small), plain.classifier(last.mean((2, 3))))


def test_gradients_reach_every_part() -> None:
    for options in (
        {},
        {"sees": "local"},
        {"form": "pure"},
        {"attention": "cbam"},
        {"attention": "coordinate"},
    ):
        net = model(**options)
        picture, small = small_inputs(4)
        net(picture, small).square().sum().backward()
        assert all(
            w.grad is not None
            for name, w in net.named_parameters()
            if not name.startswith("body.out")
        ), options
        if net.body is not None:
            assert net.body.out.weight.grad.abs().sum() > 0


def test_isolated_attentions_are_as_large_as_body_and_heads() -> None:
    plain, medusa = size_of(model(attention="none")), size_of(model())
    for name in ("squeeze", "cbam", "coordinate"):
        isolated = size_of(model(attention=name))
        assert isolated - plain == pytest.approx(medusa - plain, rel=0.02), name
    assert size_of(model(sees="local")) < medusa


def test_cbam_is_the_formula() -> None:
    part, x = CBAM(6, 3), torch.randn(2, 6, 5, 4)
    first, last = part.channel[0], part.channel[2]
    mlp = lambda v: torch.relu(v @ first.weight.T + first.bias) @ last.weight.T + last.bias  # noqa: E731
    y = x * torch.sigmoid(mlp(x.flatten(2).mean(2)) + mlp(x.flatten(2).max(2)[0]))[:, :, None, None]
    pooled = torch.stack([y.mean(1), y.max(1)[0]], 1)
    gate = nn.functional.conv2d(pooled, part.spatial.weight, part.spatial.bias, padding=3).sigmoid()
    torch.testing.assert_close(part(x), y * gate)


@pytest.mark.parametrize("diverse", [True, False])
def test_slopes_are_the_derivatives_of_the_logits(diverse) -> None:
    medusa = model(diverse=diverse).eval()
    features = torch.rand(2, medusa.backbone.widths[-1], 3, 3)
    chosen = torch.tensor([2, 0])
    with torch.inference_mode():
        slopes = medusa.slopes(features, chosen)
    step = torch.zeros_like(features)
    step[:, 4] = 1e-2
    with torch.no_grad():
        above, below = (
            medusa.classifier((features + sign * step).mean((2, 3))) for sign in (1, -1)
        )
    rise = (above - below)[[0, 1], chosen] / 2e-2
    torch.testing.assert_close(slopes[:, 4], rise, rtol=1e-2, atol=1e-3)


def test_diverse_experts_answer_with_their_mean() -> None:
    medusa, inputs = model(diverse=True).eval(), small_inputs()
    logits = medusa(*inputs)
    medusa.classifier.train()
    assert medusa(*inputs).shape == (3, 2, 3)
    torch.testing.assert_close(medusa(*inputs).mean(0), logits)


def test_half_precision_compile_and_export() -> None:
    net = model().eval()
    picture, small = small_inputs()
    expected = net(picture, small)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(picture, small).float(), expected, atol=0.05, rtol=0.05)
    free = torch.export.Dim("pictures", min=1)
    program = torch.export.export(net, (picture, small), dynamic_shapes=({0: free}, {0: free}))
    three = [torch.cat([x, x[:1]]) for x in (picture, small)]
    torch.testing.assert_close(program.module()(*three), net(*three), atol=1e-5, rtol=1e-5)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(picture, small), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "eyes"}, "no mechanism 'eyes'; nearest is"),
        ({"attention": "none", "form": "pure"}, "attention 'none' has not"),
        ({"sees": "nothing"}, "both, global or local"),
        ({"form": "odd"}, "residual or pure"),
    ],
)
def test_mistakes_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)
    with pytest.raises(ValueError, match="unknown to timm"):
        build_medusa("resnet5O")
    with pytest.raises(ValueError, match="needs 4, 8, 16, 32"):
        build_medusa("vit_tiny_patch16_224")
    small, two = torch.randn(1, 1, 32, 32), torch.randn(1, 2, 32, 32)
    sequence = build_medusa("small")
    with pytest.raises(ValueError, match=r"needs \(B, 1 or 3"):
        sequence(two, small)
    network = build_medusa("mobilenetv3_small_050")
    with pytest.raises(ValueError, match="no sequence of stages"):
        network(small, small)


class TestBottleneck:
    @pytest.mark.parametrize("attention", ["softmax", "star", "agent-grid", "contmix", "static"])
    def test_a_layer_of_the_mechanism_is_behind_the_last_stage(self, attention: str) -> None:
        built = model(attention=attention).eval()
        assert {built.body, built.heads, built.gates} == {None}
        picture, small = small_inputs(side=64)
        attended = built.attend(picture, small)
        assert attended.masks == []
        last = built.backbone(picture.expand(-1, 3, -1, -1))[-1]
        tokens, layer = last.flatten(2).transpose(1, 2), built.bottleneck.layer
        extras = {"size": tuple(last.shape[2:])} if "size" in layer.mixer.extras else {}
        extras |= {"static": tokens} if attention == "static" else {}
        tokens = tokens + layer.mixer(layer.norm1(tokens), **extras)
        tokens = tokens + layer.feedforward(layer.norm2(tokens))
        torch.testing.assert_close(attended.features.flatten(2).transpose(1, 2), tokens)
        torch.testing.assert_close(attended.logits, built.classifier(tokens.mean(1)))

    def test_its_options_and_its_network_are_those_that_are_asked_for(self) -> None:
        built = model(attention="moh", attention_options={"active": 1}, ffn="moe")
        mixer, network = built.bottleneck.layer.mixer, built.bottleneck.layer.feedforward
        assert (type(mixer).__name__, mixer.active) == ("MixtureOfHeads", 1)
        assert type(network).__name__ == "MoE"
        built(*small_inputs()).square().mean().backward()
        assert all(weight.grad is not None for weight in built.bottleneck.parameters())

    def test_an_unknown_mechanism_is_named_with_the_nearest(self) -> None:
        with pytest.raises(ValueError, match="no mechanism 'softmx'; nearest is 'softmax'"):
            model(attention="softmx")
