"""Frozen features: computed once for a picture, whoever asks, and never the wrong ones."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headwise.models.layers.encoders import RANDOM_FILTERS, TileEncoder, build_encoder
from headwise.models.vision.frozen import rebuilt_frozen
from headwise.pipelines.engine.feature_cache import FeatureCache
from headwise.pipelines.engine.frozen import (
    Normalisation,
    frozen_classes,
    frozen_features,
    frozen_vectors,
    open_encoder,
)
from headwise.pipelines.engine.weights import Weights
from headwise.pipelines.metrics.frozen_fit import fit_penalty

NONE = Weights("none", "small", "random")


class Counted(TileEncoder):
    """Counts the pictures that it encodes."""

    def __init__(self, shift: float = 0.0) -> None:
        plain = build_encoder(RANDOM_FILTERS)
        super().__init__(plain.model, plain.width, mean=(0.5 + shift,) * 3, deviation=(0.25,) * 3)
        self.count = 0

    def features(self, pictures: Tensor) -> Tensor:
        self.count += len(pictures)
        return super().features(pictures)


def pictures(count: int = 7, side: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randint(0, 256, (count, 3, side, side), generator=generator).byte())


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features.sqlite")


def test_features_are_those_of_the_encoder_and_computed_once(cache: FeatureCache) -> None:
    encoder, images = Counted(), pictures()
    expected = encoder.features(torch.stack(images).float() / 255).numpy()
    encoder.count = 0
    for _ in range(2):
        features = frozen_features(images, encoder, batch=3, cache=cache)
        np.testing.assert_allclose(features, expected, atol=1e-5)
        assert features.dtype == np.float32
    assert encoder.count == 7
    shuffled = frozen_features([*images[::-1], images[2]], encoder, cache=cache)
    np.testing.assert_array_equal(shuffled, features[[6, 5, 4, 3, 2, 1, 0, 2]])
    assert encoder.count == 7


def test_copies_are_encoded_once_and_sizes_and_kinds_may_differ(cache: FeatureCache) -> None:
    encoder, images = Counted(), pictures()
    mixed = [images[0], images[1], images[0], *pictures(2, 24), images[1], images[2]]
    features = frozen_features(mixed, encoder, batch=2, cache=cache)
    assert encoder.count == 5
    for picture, feature in zip(mixed, features, strict=True):
        alone = encoder.features(picture[None].float() / 255).numpy()[0]
        np.testing.assert_allclose(feature, alone, atol=1e-5)
    floats = frozen_features([x.float() / 255 for x in images[:3]], encoder, cache=cache)
    np.testing.assert_allclose(floats, features[[0, 1, 6]], atol=1e-5)
    assert frozen_features([], encoder, cache=cache).shape == (0, encoder.width)


def test_other_weights_and_sizes_have_other_features(cache: FeatureCache) -> None:
    first, second, third = Counted(), Counted(0.1), Counted()
    third.size = (8, 8)
    features = [frozen_features(pictures(), each, cache=cache) for each in (first, second, third)]
    assert [encoder.count for encoder in (first, second, third)] == [7, 7, 7]
    assert not np.allclose(features[0], features[1])
    assert not np.allclose(features[0], features[2])


def test_a_damaged_or_foreign_file_only_costs_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "features.sqlite"
    path.write_bytes(b"no database, but notes of the user" * 100)
    encoder = Counted()
    features = frozen_features(pictures(), encoder, cache=FeatureCache(path))
    assert encoder.count == 7
    assert "computed and not kept" in capfd.readouterr().err
    assert path.read_bytes().startswith(b"no database")
    cache = FeatureCache(tmp_path / "a.sqlite")
    frozen_features(pictures(), encoder, cache=cache)
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        changed = b"x" * (4 * encoder.width + 4)
        connection.execute("UPDATE features SET value = ?", (changed,))
    np.testing.assert_array_equal(frozen_features(pictures(), encoder, cache=cache), features)


def test_the_file_is_bounded_and_loses_what_was_not_used(tmp_path: Path) -> None:
    encoder, images = Counted(), pictures(20)
    cache = FeatureCache(tmp_path / "f.sqlite", most_bytes=10 * (4 * encoder.width + 4))
    frozen_features(images[:10], encoder, cache=cache)
    frozen_features(images[:4], encoder, cache=cache)  # used again
    frozen_features(images[10:16], encoder, cache=cache)
    assert encoder.count == 16
    frozen_features([*images[:4], *images[10:16]], encoder, cache=cache)
    assert encoder.count == 16
    frozen_features(images[4:10], encoder, cache=cache)
    assert encoder.count == 22


def coloured(count: int, seed: int) -> tuple[list[Tensor], np.ndarray]:
    """Red and green pictures with noise, labels 0 and 1."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = generator.uniform(0.2, 0.6, (count, 3, 8, 8)).astype(np.float32)
    noise[np.arange(count), labels] += 0.3
    return [torch.from_numpy(x) for x in noise], labels


def test_a_classifier_of_frozen_features_is_called_as_the_domain_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    (train, labels), (held, held_labels) = coloured(40, 0), coloured(20, 1)
    fit = frozen_classes(
        open_encoder(NONE), NONE, train, labels, held, held_labels, 2,
        normalisation=Normalisation(0.449, 0.226), seed=0, output="probabilities",
    )  # fmt: skip
    test, truth = coloured(60, 2)
    normal = (torch.stack(test) - 0.449) / 0.226
    probability = fit.model(normal, torch.zeros(60, 1, 4, 4))
    assert (probability.argmax(1).numpy() == truth).mean() > 0.95
    assert fit.words.endswith("of frozen features (random filters)")
    again = rebuilt_frozen(fit.facts)
    again.load_state_dict(fit.model.state_dict())
    torch.testing.assert_close(again(normal), probability)
    assert (tmp_path / "features.sqlite").is_file()


def test_a_classifier_is_fitted_again_to_both_parts_with_its_penalty(cache: FeatureCache) -> None:
    (train, labels), (held, held_labels) = coloured(24, 0), coloured(20, 1)

    def fit(pictures: list[Tensor], truth: np.ndarray, other: list[Tensor], labels: np.ndarray):
        return frozen_classes(
            open_encoder(NONE), NONE, pictures, truth, other, labels, 2,
            normalisation=Normalisation(0.449, 0.226), seed=0, cache=cache,
        )  # fmt: skip

    first = fit(train, labels, held, held_labels)
    assert first.refit is not None
    again = first.refit()
    assert again.words == first.words
    both = frozen_features([*train, *held], first.model.encoder, cache=cache)
    penalty = float(first.words.split("(C ")[1].split(")")[0])
    truth = np.concatenate([labels, held_labels])
    expected = fit_penalty(both, truth, 2, penalty, seed=0)
    torch.testing.assert_close(again.model.weight, torch.from_numpy(expected.weight))
    assert not torch.allclose(first.model.weight, again.model.weight)
    assert fit(train, labels, held[:0], held_labels[:0]).refit is None


def test_vectors_of_frozen_features_find_the_same_identity(cache: FeatureCache) -> None:
    (train, labels), (held, held_labels) = coloured(40, 0), coloured(20, 1)
    fit = frozen_vectors(
        open_encoder(NONE), NONE, train, labels + 1, held, held_labels + 1,
        normalisation=Normalisation(0.5, 0.5), seed=0, cache=cache,
    )  # fmt: skip
    test, truth = coloured(30, 2)
    vectors = fit.model((torch.stack(test) - 0.5) / 0.5)
    similarity = (vectors @ vectors.T).fill_diagonal_(-2).numpy()
    assert (truth[similarity.argmax(1)] == truth).mean() > 0.9


@pytest.mark.parametrize(
    ("architecture", "picture", "size"),
    [
        ("tf_efficientnet_lite0", (1, 1), (224, 224)),
        ("resnet18", (128, 64), (320, 160)),
        ("vit_small_patch14_dinov2", (480, 480), (224, 224)),
        ("vit_small_patch16_224", (112, 92), (240, 208)),
    ],
)
def test_the_size_for_an_encoder_keeps_proportions(
    architecture: str, picture: tuple[int, int], size: tuple[int, int]
) -> None:
    from headwise.pipelines.engine.frozen import encoder_size

    assert encoder_size(Weights("any", architecture, "pretrained"), picture, None) == size
