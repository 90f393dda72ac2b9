"""Transformers of timm with access to all blocks: equal to timm's, weights from files, pairs,
mistakes.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("timm", reason="timm is optional (extra reid) and not installed")

import timm
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from headwise.models.layers.vit_trunk import Trunk, build_trunk, random_partners

TINY = "vit_tiny_patch16_224"


def scratch(image: tuple[int, int] = (32, 16), **options) -> Trunk:
    return build_trunk("scratch", image=image, patch=8, width=16, depth=2, heads=2, **options)


def shaken(trunk: Trunk) -> Trunk:
    """Weights of a size that shows mistakes: timm starts with biases of 0 and norms of 1."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in trunk.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return trunk.eval()


def with_registers(**options) -> Trunk:
    return Trunk(
        VisionTransformer(
            img_size=(32, 16),
            patch_size=8,
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_classes=0,
            reg_tokens=3,
            init_values=0.1,
            **options,
        )
    )


def picture(trunk: Trunk, count: int = 3) -> torch.Tensor:
    return torch.randn(
        count, 3, *trunk.model.patch_embed.img_size, generator=torch.Generator().manual_seed(1)
    )


TRUNKS = {
    "scratch": scratch,
    "tiny": lambda: build_trunk(TINY, image=(64, 48), weights="random"),
    "distilled": lambda: build_trunk(
        "deit_tiny_distilled_patch16_224", image=(64, 48), weights="random"
    ),
    "registers": with_registers,
    "registers before positions": lambda: with_registers(
        no_embed_class=True, pre_norm=True, qk_norm=True
    ),
}


@pytest.mark.parametrize("name", TRUNKS)
def test_it_is_the_forward_of_timm(name: str) -> None:
    trunk = shaken(TRUNKS[name]())
    x = picture(trunk)
    with torch.no_grad():
        tokens, pairs = trunk(x, read=True)
        torch.testing.assert_close(
            trunk.norm(tokens), trunk.model.forward_features(x), rtol=1e-4, atol=1e-4
        )
    assert trunk.prefix == {"distilled": 2}.get(name, 4 if "reg" in name else 1)
    assert tokens.shape == (3, trunk.prefix + trunk.size[0] * trunk.size[1], trunk.width)
    assert len(pairs) == len(trunk.blocks)
    assert trunk(x)[1] == []


def test_queries_and_keys_of_all_blocks_are_read() -> None:
    trunk = shaken(scratch())
    x = picture(trunk)
    last_tokens, pairs = trunk(x, read=True)
    assert last_tokens.requires_grad
    tokens = trunk.embed(x)
    for block, (query, key) in zip(trunk.blocks, pairs, strict=True):
        flat = block.attn.qkv(block.norm1(tokens))
        for head in range(2):
            torch.testing.assert_close(query[:, head], flat[:, :, 8 * head : 8 * head + 8])
            torch.testing.assert_close(key[:, head], flat[:, :, 16 + 8 * head : 24 + 8 * head])
        assert not query.requires_grad
        assert not key.requires_grad
        tokens = block(tokens)


@pytest.mark.parametrize("name", ["scratch", "registers before positions"])
def test_pairs_with_oneself_are_the_plain_forward(name: str) -> None:
    trunk = shaken(TRUNKS[name]())
    x = picture(trunk)
    itself = torch.arange(3)
    torch.testing.assert_close(trunk.pairs(x, itself), trunk(x)[0], rtol=1e-4, atol=1e-5)
    pairs = trunk.pairs(x, itself.roll(1))
    assert (pairs - trunk(x)[0]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_of_another_picture_size_come_from_a_file(tmp_path: Path, kind: str) -> None:
    state, file = (
        timm.create_model(TINY, img_size=(64, 64), num_classes=5).state_dict(),
        tmp_path / f"w.{kind}",
    )
    if kind == "pth":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    else:
        save_file(state, file)
    loaded = build_trunk(TINY, image=(64, 48), weights=str(file)).model.state_dict()
    assert loaded.keys() == state.keys() - {"head.weight", "head.bias"}
    for name in loaded.keys() - {"pos_embed"}:
        assert torch.equal(loaded[name], state[name]), name
    old = state["pos_embed"][0, 1:].unflatten(0, (4, 4)).permute(2, 0, 1)[None]
    new = F.interpolate(old, (4, 3), mode="bicubic", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(loaded["pos_embed"][0, 1:], new)
    assert torch.equal(loaded["pos_embed"][0, 0], state["pos_embed"][0, 0])


def test_positions_of_upright_pictures_are_resized_as_such(tmp_path: Path) -> None:
    state, file = timm.create_model(TINY, img_size=(128, 64)).state_dict(), tmp_path / "upright.pth"
    torch.save(state, file)
    positions = build_trunk(TINY, image=(96, 48), weights=str(file)).model.state_dict()[
        "pos_embed"
    ][0]
    old = state["pos_embed"][0, 1:].unflatten(0, (8, 4)).permute(2, 0, 1)[None]
    torch.testing.assert_close(
        positions[1:], F.interpolate(old, (6, 3), mode="bicubic", antialias=True)[0].flatten(1).T
    )
    assert torch.equal(positions[0], state["pos_embed"][0, 0])


class Evil:
    """What a pickle would run."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (open, ("ran", "w"))


def test_weights_that_do_not_fit_are_one_clear_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("test_vit", img_size=(64, 48)).state_dict(), "other.safetensors")
    save_file({"conv1.weight": torch.zeros(4, 3, 7, 7)}, "resnet.safetensors")
    save_file({"pos_embed": torch.zeros(1, 12, 192)}, "odd.safetensors")
    save_file(
        timm.create_model(TINY, img_size=(64, 48), depth=2).state_dict(), "shallow.safetensors"
    )
    torch.save({"a": Evil()}, "evil.pth")
    Path("text.safetensors").write_text("no weights")
    for file, message in {
        "other.safetensors": f"other.safetensors: weights of another model than '{TINY}'",
        "resnet.safetensors": f"resnet.safetensors: weights of another model than '{TINY}'",
        "odd.safetensors": "odd.safetensors: weights of another model",
        "shallow.safetensors": "shallow.safetensors: weights of another model",
        "evil.pth": "evil.pth: cannot be read as weights",
        "text.safetensors": "text.safetensors: cannot be read as weights",
        "gone.safetensors": "there is no such file of weights",
    }.items():
        with pytest.raises(ValueError, match="weights") as caught:
            build_trunk(TINY, image=(64, 48), weights=file)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert not Path("ran").exists()


def test_names_and_sizes_that_are_no_trunk(monkeypatch) -> None:
    def failed(**options) -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            build_trunk(**{"name": TINY, "image": (64, 48), "weights": "random", **options})
        return str(caught.value)

    assert "'vit_tyni_patch16_224' is unknown to timm" in failed(name="vit_tyni_patch16_224")
    assert "near it: vit_tiny_patch16_224" in failed(name="vit_tiny_patch16_24")
    assert "takes no size of picture" in failed(name="resnet18")
    assert "has no cls_token" in failed(name="test_vit2")
    assert "has no blocks" in failed(name="swin_tiny_patch4_window7_224", image=(224, 224))
    assert "patches of 16 pixels do not fill a picture of 60 x 48" in failed(image=(60, 48))
    assert "patches of 8 pixels do not fill a picture of 30 x 16" in failed(
        name="scratch", image=(30, 16), patch=8
    )
    assert "5 heads do not divide width 16" in failed(name="scratch", width=16, heads=5)

    def unreachable(*arguments, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    assert "cannot be made (no route to host); without network give a file" in failed(
        weights="pretrained"
    )


@pytest.mark.parametrize("attention", ["star", "differential", "static"])
def test_another_mechanism_in_all_blocks(attention: str) -> None:
    trunk = shaken(scratch(attention=attention, ffn="glu"))
    x = picture(trunk)
    tokens, reads = trunk(x, read=True)
    assert (trunk.readable, trunk.pairable) == {
        "star": (False, True), "differential": (True, True), "static": (True, False)
    }[attention]  # fmt: skip
    assert len(reads) == (2 if trunk.readable else 0)
    first = expected = trunk.embed(x)
    for block in trunk.blocks:
        extras = {"static": first} if attention == "static" else {}
        normed = block.norm1(expected)
        if trunk.readable:
            torch.testing.assert_close(
                reads.pop(0), block.attn.weights(normed, **extras).mean(1).detach()
            )
        expected = expected + block.attn(normed, **extras)
        expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(tokens, expected)
    tokens.square().mean().backward()
    assert all(weight.grad is not None for weight in trunk.blocks.parameters())


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_partners_are_one_cycle(count: int) -> None:
    torch.manual_seed(count)
    partners = set()
    for _ in range(20):
        partner = random_partners(count, torch.device("cpu"))
        place, steps = int(partner[0]), 1
        while place != 0:
            place, steps = int(partner[place]), steps + 1
        assert steps == count
        partners.add(tuple(partner.tolist()))
    assert (len(partners) > 1) == (count > 2)
