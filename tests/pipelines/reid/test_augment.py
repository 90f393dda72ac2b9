"""Pictures as the model takes them, and how training varies them: each effect by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.pipelines.reid.augment import ERASED_AREA, augment, normalise
from headwise.pipelines.reid.options import ReidOptions


def pictures(count: int = 6, height: int = 12, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 255, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def options(**values) -> ReidOptions:
    return ReidOptions(**{"size": (12, 8), "pad": 0, "flip": False, "erase": 0.0, **values})


def close(changed: Tensor, expected: Tensor) -> Tensor:
    """Bool, in numbers of which a step of a colour is 1/127.5."""
    return (changed - expected).abs() < 1e-4


def plain(images: Tensor) -> Tensor:
    """Colours from [0, 255] to [-1, 1]."""
    return images.double() / 127.5 - 1


def test_colours_go_from_minus_1_to_1() -> None:
    images = pictures()
    images[0], images[1] = 0, 255
    before = images.clone()
    normalised = normalise(images, (12, 8))
    torch.testing.assert_close(normalised, plain(images).float())
    assert (normalised[0] == -1).all()
    assert (normalised[1] == 1).all()
    assert torch.equal(images, before)


def test_larger_pictures_are_cropped_to_the_centre() -> None:
    images = pictures(2, 16, 11)
    torch.testing.assert_close(normalise(images, (12, 8)), plain(images[:, :, 2:14, 1:9]).float())


def test_without_any_change_it_is_the_picture() -> None:
    images = pictures()
    before = images.clone()
    torch.testing.assert_close(augment(images, options()), normalise(images, (12, 8)))
    assert torch.equal(images, before)


def test_half_are_mirrored() -> None:
    images = pictures(200)
    torch.manual_seed(0)
    augmented, straight = augment(images, options(flip=True)), plain(images).float()
    same = close(augmented, straight).flatten(1).all(1)
    mirrored = close(augmented, straight.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize(("pad", "height", "width"), [(2, 12, 8), (0, 14, 11), (1, 14, 11)])
def test_pictures_are_cropped_at_different_places(pad: int, height: int, width: int) -> None:
    images = pictures(60, height, width)
    torch.manual_seed(1)
    augmented = augment(images, options(pad=pad))
    assert augmented.shape == (60, 3, 12, 8)
    padded = F.pad(plain(images).float(), [pad] * 4)
    places = [(y, x) for y in range(height + 2 * pad - 11) for x in range(width + 2 * pad - 7)]
    cut = {
        place: padded[:, :, place[0] : place[0] + 12, place[1] : place[1] + 8] for place in places
    }
    fits = torch.stack([close(augmented, crop).flatten(1).all(1) for crop in cut.values()])
    assert fits.any(0).all()
    assert fits.any(1).float().mean() > 0.7  # of all places


def test_a_rectangle_is_erased_and_nothing_else_changes() -> None:
    height, width = 40, 20
    images = pictures(100, height, width)
    torch.manual_seed(2)
    augmented, before = (
        augment(images, options(size=(height, width), erase=1.0)),
        plain(images).float(),
    )
    changed = ~close(augmented, before)
    assert (augmented[changed] == 0).all()
    shares = []
    for erased in changed.any(1):
        rows, columns = erased.any(1).nonzero()[:, 0], erased.any(0).nonzero()[:, 0]
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert erased.sum() == area  # a full rectangle: no colour is the middle of the scale
        shares.append(float(area) / (height * width))
    low, high = ERASED_AREA
    assert low / 2 < min(shares)
    assert max(shares) < high + 0.05
    assert max(shares) - min(shares) > 0.25


def test_a_share_of_the_pictures_has_a_part_erased() -> None:
    images = pictures(300)
    torch.manual_seed(3)
    augmented = augment(images, options(erase=0.25))
    changed = (augmented == 0).flatten(1).any(1)
    assert 45 < int(changed.sum()) < 105


def test_torchs_seed_decides_all_changes() -> None:
    images, all_on = pictures(20), options(pad=2, flip=True, erase=0.5)
    torch.manual_seed(4)
    first = augment(images, all_on)
    torch.manual_seed(4)
    assert torch.equal(first, augment(images, all_on))
    assert not torch.equal(first, augment(images, all_on))
