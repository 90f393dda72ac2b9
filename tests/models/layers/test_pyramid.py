"""Backbones with four maps: stage by stage, and with weights that expect another normalisation."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from headwise.models.layers.pyramid import Pyramid, build_pyramid
from headwise.models.layers.vit_trunk import build_trunk
from headwise.models.weights.adopted import METADATA, BackboneFacts

timm = pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
OURS = ((0.5, 0.4, 0.3), (0.3, 0.25, 0.2))
THEIRS = ((0.2, 0.3, 0.6), (0.4, 0.5, 0.6))


def picture(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def normal(x: Tensor, by: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in by)
    return (x - mean) / deviation


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "small"])
def test_stages_one_by_one_give_the_maps(name: str) -> None:
    backbone = build_pyramid(name, "random").eval()
    seen: list[Tensor] = []

    def change(stage: int, value: Tensor) -> Tensor:
        assert stage == len(seen)
        seen.append(value)
        return value

    last = backbone.staged(picture(), change)
    maps = backbone(picture())
    assert len(seen) == 4
    torch.testing.assert_close(last, maps[-1])
    for ours, theirs in zip(seen, maps, strict=True):
        torch.testing.assert_close(ours, theirs)
    changed = backbone.staged(picture(), lambda stage, v: v * 0 if stage == 1 else v)
    assert not torch.allclose(changed, last)


def test_a_backbone_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="no sequence of stages"):
        Pyramid(build_trunkless()).staged(picture(), lambda _, v: v)


def build_trunkless() -> torch.nn.Module:
    model = timm.create_model("test_resnet", features_only=True, feature_cls="hook")
    assert type(model).__name__ == "FeatureHookNet"
    return model


def stored(path: Path, model: torch.nn.Module, architecture: str, side: int) -> str:
    """A file of a model's weights that says what it expects."""
    facts = BackboneFacts("tiny", architecture, side, *THEIRS, 64, "")
    metadata = {METADATA: json.dumps(asdict(facts))}
    save_file(model.state_dict(), path / "a.safetensors", metadata)
    return str(path / "a.safetensors")


def test_weights_of_another_normalisation_see_the_same_picture_in_patches(tmp_path: Path) -> None:
    """Exactly, since patches have no border."""
    torch.manual_seed(1)
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    file = stored(tmp_path, model, "test_vit", 64)
    trunk = build_trunk("test_vit", image=(64, 64), weights=file, normalised_by=OURS).eval()
    tokens = trunk.norm(trunk(normal(picture(), OURS))[0])
    torch.testing.assert_close(
        tokens, model.forward_features(normal(picture(), THEIRS)), atol=1e-4, rtol=1e-4
    )
    plain = build_trunk("test_vit", image=(64, 64), weights=file).eval()
    torch.testing.assert_close(
        plain.norm(plain(normal(picture(), THEIRS))[0]), tokens, atol=1e-4, rtol=1e-4
    )


def test_weights_of_another_normalisation_see_the_same_picture_inside_of_the_border(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_efficientnet", num_classes=0).eval()
    file = stored(tmp_path, model, "test_efficientnet", 64)
    ours = build_pyramid("test_efficientnet", file, OURS).eval()
    theirs = build_pyramid("test_efficientnet", file).eval()
    stem = [
        backbone.model.bn1(backbone.model.conv_stem(normal(picture(), by)))
        for backbone, by in ((ours, OURS), (theirs, THEIRS))
    ]
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(stem[0][inside], stem[1][inside], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours.model.conv_stem.weight, theirs.model.conv_stem.weight)


def test_one_number_for_all_colours_is_a_normalisation_too(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    file = stored(tmp_path, model, "test_vit", 64)
    trunks = [
        build_trunk("test_vit", image=(64, 64), weights=file, normalised_by=by)
        for by in ((0.449, 0.226), ((0.449,) * 3, (0.226,) * 3))
    ]
    weights = [trunk.model.patch_embed.proj.weight for trunk in trunks]
    torch.testing.assert_close(weights[0], weights[1])
