"""Encoders of tiles: widths, normalisation, weights from files, and what is refused."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from headwise.models.layers import encoders
from headwise.models.layers.encoders import build_encoder

timm = pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
SMALL = "test_resnet.r160_in1k"  # the smallest of timm


def tiles(count: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (count, side, side, 3),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )


@pytest.mark.parametrize("name", ["random-filters", SMALL, "test_vit.r160_in1k"])
def test_a_tile_is_encoded_alike_in_any_batch(name: str) -> None:
    encoder = build_encoder(name, "random")
    vectors = encoder(tiles())
    assert vectors.shape == (3, encoder.width)
    assert vectors.std(0).mean() > 0
    torch.testing.assert_close(encoder(tiles()[1:2]), vectors[1:2], atol=1e-5, rtol=1e-4)
    assert build_encoder(name, "random").fingerprint() == encoder.fingerprint()


def test_the_models_own_normalisation_is_used() -> None:
    encoder = build_encoder(SMALL, "random")
    config = timm.data.resolve_model_data_config(encoder.model)
    mean, deviation = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    x = (tiles().permute(0, 3, 1, 2) / 255 - mean) / deviation
    torch.testing.assert_close(encoder(tiles()), encoder.model(x))


def test_a_model_of_fixed_size_gets_its_size() -> None:
    encoder = build_encoder("test_vit.r160_in1k", "random")
    assert encoder.side == 160
    assert build_encoder(SMALL, "random").side is None


def test_random_filters_tell_textures_apart_and_are_the_same_each_time() -> None:
    encoder = build_encoder("random-filters")
    smooth, rough = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8), tiles(1)
    assert (encoder(smooth) - encoder(rough)).abs().max() > 0.5
    assert encoder.fingerprint() == build_encoder("random-filters").fingerprint()


class TestWeights:
    def test_of_a_file_are_used_whatever_a_trainer_put_around_them(self, tmp_path) -> None:
        torch.manual_seed(1)
        model = timm.create_model(SMALL, num_classes=7)
        save_file(model.state_dict(), tmp_path / "a.safetensors")
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}},
            tmp_path / "b.pth",
        )
        prints = {
            build_encoder(SMALL, str(tmp_path / name)).fingerprint()
            for name in ("a.safetensors", "b.pth")
        }
        assert len(prints) == 1
        assert build_encoder(SMALL, "random").fingerprint() not in prints

    def test_that_do_not_fit_are_refused(self, tmp_path) -> None:
        save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
        (tmp_path / "text.pth").write_text("nothing")
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
        reasons = {
            "other.safetensors": "lacks",
            "text.pth": "cannot be read",
            "evil.pth": "cannot be read",
            "none.pth": "no such file",
        }
        for name, message in reasons.items():
            with pytest.raises(ValueError, match=message) as caught:
                build_encoder(SMALL, str(tmp_path / name))
            assert "\n" not in str(caught.value)

    def test_an_unknown_name_names_its_neighbours(self) -> None:
        with pytest.raises(ValueError, match=r"unknown to timm; near it: .*resnet"):
            build_encoder("resnet5", "random")

    def test_that_cannot_be_fetched_say_what_to_do(self, monkeypatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr(timm, "create_model", offline)
        monkeypatch.setattr(encoders, "_answers", lambda _: True)
        with pytest.raises(ValueError, match=r"no route to host.*--weights FILE"):
            build_encoder(SMALL)


def test_any_change_of_an_encoder_changes_its_fingerprint() -> None:
    """Weights and what a picture is normalised with; features stored under another one are not its
    own.
    """
    encoder = build_encoder(SMALL, "random")
    prints = {encoder.fingerprint()}
    for value in encoder.state_dict().values():
        original = value.clone()
        value.flatten()[-1] += 1  # state_dict shares its memory
        prints.add(encoder.fingerprint())
        value.copy_(original)
    assert encoder.fingerprint() in prints
    assert len(prints) == 1 + sum(value.numel() > 0 for value in encoder.state_dict().values())
