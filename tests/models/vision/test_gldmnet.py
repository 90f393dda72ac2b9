"""GL-DMNet against formulas written here, its freezing, backbones and options."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headwise.models.layers.mutual_fusion import ChannelFusion, MutualFusion, PositionFusion
from headwise.models.vision.gldmnet import GLDMNet, Recall, TransformerStage, build_gldmnet

pytest.importorskip("timm", reason="the extra `vision` is not installed")


def root(x, eps=1e-4):
    return torch.sign(x) * ((x.abs() + eps).sqrt() - eps**0.5)


def unit(x, axis):
    return x / x.pow(2).sum(axis, keepdim=True).sqrt().clamp_min(1e-12)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_gldmnet("small", "small").eval()


def maps(channels=6, size=(3, 5), batch=2):
    torch.manual_seed(1)
    return [torch.randn(batch, channels, *size, dtype=torch.float64) for _ in range(2)]


def test_position_fusion_is_equations_3_to_11():
    torch.manual_seed(0)
    part = PositionFusion(6).double().eval()
    rgb, depth = maps()
    total = rgb + depth
    pooled = torch.stack([total.max(1).values, total.mean(1)], 1)
    gate = torch.sigmoid(F.conv2d(pooled, part.spatial.weight, part.spatial.bias, padding=3))
    joint = part.mix(total * gate + total)
    sp, r, d = (x.flatten(2) for x in (joint, rgb, depth))
    m_rgb, m_depth = (root(torch.einsum("bci,bcj->bij", sp, x)) for x in (r, d))
    expected = r @ m_rgb, d @ m_depth, sp @ (m_rgb + m_depth)
    for fused, plain in zip(part(rgb, depth), expected):
        torch.testing.assert_close(fused.flatten(2), unit(plain, 2))


def test_channel_fusion_is_equations_12_to_20():
    torch.manual_seed(0)
    part = ChannelFusion(6).double().eval()
    rgb, depth = maps()
    joined = torch.cat([rgb, depth], 1)
    gate = torch.sigmoid(part.weigh(joined.amax((2, 3))) + part.weigh(joined.mean((2, 3))))
    ch = part.mix(joined * gate[..., None, None]).flatten(2)
    r, d = rgb.flatten(2), depth.flatten(2)
    m_rgb, m_depth = root(r @ ch.mT), root(d @ ch.mT)
    expected = m_rgb @ r, m_depth @ d, (m_rgb + m_depth) @ ch
    for fused, plain in zip(part(rgb, depth), expected):
        torch.testing.assert_close(fused.flatten(2), unit(plain, 2))


def test_both_fusions_are_added():
    torch.manual_seed(0)
    both = MutualFusion(6).double().eval()
    rgb, depth = maps()
    position = both.after_position(torch.cat(both.position(rgb, depth), 1))
    channel = both.after_channel(torch.cat(both.channel(rgb, depth), 1))
    torch.testing.assert_close(both(rgb, depth), position + channel)


@pytest.mark.parametrize("kind", ["position", "channel", "concat"])
def test_ablations_have_only_their_part(kind):
    part = MutualFusion(8, kind=kind).eval()
    names = {name.split(".")[0] for name, _ in part.named_parameters()}
    assert (
        names
        == {
            "position": {"position", "after_position"},
            "channel": {"channel", "after_channel"},
            "concat": {"plain"},
        }[kind]
    )
    rgb, depth = (x.float() for x in maps(8))
    assert part(rgb, depth).shape == rgb.shape


@pytest.mark.parametrize("position", ["squeeze", "coordinate", "agent-grid", "softmax"])
def test_other_mechanisms_in_place_of_the_signed_root(position):
    torch.manual_seed(0)
    part = PositionFusion(8, attention=position)
    rgb, depth = (x.float().requires_grad_() for x in maps(8, (4, 4)))
    fused = part(rgb, depth)
    assert [x.shape for x in fused] == [rgb.shape] * 3
    weights = torch.randn_like(fused[0])
    sum((x * weights).sum() for x in fused).backward()
    assert rgb.grad.abs().sum() > 0
    assert depth.grad.abs().sum() > 0


def test_the_decoder_is_equations_24_to_30(small):
    torch.manual_seed(2)
    image, depth = torch.randn(2, 3, 64, 96), torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        rgb, d = small.rgb(image), small.depth(depth.repeat(1, 3, 1, 1))
        fused = [
            f(a(x), b(y))
            for f, a, b, x, y in zip(small.fusions, small.reduce_rgb, small.reduce_depth, rgb, d)
        ]
        assert [tuple(x.shape[2:]) for x in fused] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        t = [
            after(torch.cat([stage(x), x], 1))
            for after, stage, x in zip(small.after_stage, small.stages, fused)
        ]

        def up(x, like):
            return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)

        res = [None, None, None, t[3]]
        for i in range(3):
            higher = torch.cat([up(t[j], t[i]) for j in range(i + 1, 4)], 1)
            gate = small.recalls[i].gate(higher.flatten(2).mT, (t[i].shape[2], t[i].shape[3]))
            att = small.recalls[i].after(gate.mT.reshape(higher.shape))
            res[i] = att * t[i] + t[i]
        out = small.out[3](res[3])
        expected = [up(small.heads[3](out), image)]
        for i in (2, 1, 0):
            out = small.out[i](torch.cat([res[i], up(out, res[i])], 1))
            expected.insert(0, up(small.heads[i](out), image))
        for scale, plain in zip(small.scales(image, depth), expected):
            torch.testing.assert_close(scale, plain)
        torch.testing.assert_close(small(image, depth), expected[0].sigmoid())


def test_a_stage_keeps_the_blocks_of_pvt():
    from timm.models.pvt_v2 import PyramidVisionTransformerV2

    torch.manual_seed(0)
    pyramid = PyramidVisionTransformerV2(
        depths=(2, 1, 1, 1), embed_dims=(16, 32, 32, 32), num_heads=(1, 2, 2, 2)
    )
    first = pyramid.stages[0].eval()
    stage = TransformerStage(first)
    x = torch.randn(2, 16, 8, 8)
    assert first.downsample is None
    torch.testing.assert_close(stage(x), first(x.permute(0, 2, 3, 1)))


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "agent-grid"},
        {"attention": "softmax", "ffn": "glu"},
        {"ffn": "moe"},
        {"ffn": "convglu"},
        {"recall": "coordinate"},
        {"transformer": "none"},
    ],
)
def test_the_core_in_every_block(options):
    torch.manual_seed(0)
    model = build_gldmnet("small", options.pop("transformer", "small"), **options)
    scales = model.scales(torch.randn(2, 3, 64, 64), torch.randn(2, 1, 64, 64))
    assert [x.shape for x in scales] == [(2, 1, 64, 64)] * 4
    sum(x.square().mean() for x in scales).backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not unused


def test_a_static_mechanism_reads_the_tokens_before_the_first_block():
    from timm.models.pvt_v2 import PyramidVisionTransformerStage

    torch.manual_seed(0)
    pvt = PyramidVisionTransformerStage(16, 16, 2, False, num_heads=2)
    stage = TransformerStage(pvt, attention="static").eval()
    x = torch.randn(2, 16, 4, 4)
    first = tokens = x.flatten(2).transpose(1, 2)
    for block in stage.blocks:
        tokens = tokens + block.attn.inner(block.norm1(tokens), static=first)
        tokens = tokens + block.mlp(block.norm2(tokens), (4, 4))
    expected = stage.norm(tokens).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(stage(x), expected)


def test_held_parts_do_not_change_and_are_in_evaluation_mode():
    torch.manual_seed(0)
    model = build_gldmnet("small", "small")
    model.freeze("encoder")
    model.train()
    before = {name: value.clone() for name, value in model.rgb.state_dict().items()}
    assert not model.rgb.training
    assert model.stages.training
    sum(
        x.mean() for x in model.scales(torch.randn(2, 3, 64, 64), torch.randn(2, 1, 64, 64))
    ).backward()
    assert all(weight.grad is None for weight in model.rgb.parameters())
    assert all(weight.grad is not None for weight in model.fusions.parameters())
    for name, value in model.rgb.state_dict().items():
        torch.testing.assert_close(value, before[name])
    zero = model.frozen_sum()
    zero.backward()
    assert zero.item() == 0
    assert all(weight.grad is not None for weight in model.rgb.parameters())
    model.freeze()
    assert model.rgb.training
    assert model.frozen_sum() is None
    with pytest.raises(ValueError, match="no part"):
        model.freeze("decoder")


def test_the_defaults_are_the_papers():
    with torch.device("meta"):
        model = build_gldmnet()
    assert model.rgb.widths == (256, 512, 1024, 2048)
    assert [stage.norm.normalized_shape[0] for stage in model.stages] == [64, 128, 320, 512]
    assert [len(stage.blocks) for stage in model.stages] == [3, 4, 6, 3]


def test_weights_of_a_file_reach_both_encoders(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    plain = timm.create_model("resnet10t", num_classes=5)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    model = build_gldmnet("resnet10t", "small", weights=str(tmp_path / "w.safetensors"))
    for encoder in (model.rgb, model.depth):
        torch.testing.assert_close(
            encoder.model.layer4[0].conv1.weight, plain.layer4[0].conv1.weight
        )
    with pytest.raises(ValueError, match="another model"):
        build_gldmnet("resnet18", "small", weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet5O"}, "unknown to timm"),
        ({"transformer": "resnet18"}, "no PVTv2"),
        ({"backbone": "vit_tiny_patch16_224"}, "strides"),
        ({"weights": "pretrained"}, "no pretrained"),
        ({"transformer_weights": "pretrained"}, "no pretrained"),
        ({"fusion": "sum"}, "kind must be"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_gldmnet(**{"backbone": "small", "transformer": "small", **options})


def test_shapes_that_do_not_fit(small):
    with pytest.raises(ValueError, match="needs"):
        small(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 32, 64))
    with pytest.raises(ValueError, match="needs"):
        small(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2, 64, 64))


def test_bf16_and_compile(small):
    torch.manual_seed(3)
    image, depth = torch.randn(1, 3, 64, 64), torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        plain = small(image, depth)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = small(image, depth)
        torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0)
        torch.testing.assert_close(
            torch.compile(small, backend="aot_eager")(image, depth), plain, atol=1e-5, rtol=0
        )


def test_recall_joins_all_higher_stages():
    part = Recall((8, 16), 4)
    assert isinstance(part, nn.Module)
    assert part([torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)], (8, 8)).shape == (2, 4, 8, 8)
    assert isinstance(build_gldmnet("small", "none"), GLDMNet)
