"""Pictures as the model takes them, and how training varies them: every effect by itself."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.pipelines.reid.augment import ERASED_AREA, augment, normalise


def pictures(count: int = 6, height: int = 12, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 255, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def options(**given) -> SimpleNamespace:
    return SimpleNamespace(**{"size": (12, 8), "pad": 0, "flip": False, "erase": 0.0, **given})


def close(found: Tensor, expected: Tensor) -> Tensor:
    """Bool, in numbers of which a step of a colour is 1/127.5."""
    return (found - expected).abs() < 1e-4


def plain(images: Tensor) -> Tensor:
    """Colours from [0, 255] to [-1, 1]."""
    return images.double() / 127.5 - 1


def test_colours_go_from_minus_1_to_1() -> None:
    images = pictures()
    images[0], images[1] = 0, 255
    before = images.clone()
    found = normalise(images, (12, 8))
    torch.testing.assert_close(found, plain(images).float())
    assert (found[0] == -1).all()
    assert (found[1] == 1).all()
    assert torch.equal(images, before)


def test_larger_pictures_are_cut_out_of_the_middle() -> None:
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
    found, straight = augment(images, options(flip=True)), plain(images).float()
    same = close(found, straight).flatten(1).all(1)
    mirrored = close(found, straight.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


@pytest.mark.parametrize(("pad", "height", "width"), [(2, 12, 8), (0, 14, 11), (1, 14, 11)])
def test_each_is_cut_at_a_place_of_its_own(pad: int, height: int, width: int) -> None:
    images = pictures(60, height, width)
    torch.manual_seed(1)
    found = augment(images, options(pad=pad))
    assert found.shape == (60, 3, 12, 8)
    padded = F.pad(plain(images).float(), [pad] * 4)
    places = [(y, x) for y in range(height + 2 * pad - 11) for x in range(width + 2 * pad - 7)]
    cut = {
        place: padded[:, :, place[0] : place[0] + 12, place[1] : place[1] + 8] for place in places
    }
    fits = torch.stack([close(found, one).flatten(1).all(1) for one in cut.values()])
    assert fits.any(0).all()
    assert fits.any(1).float().mean() > 0.7  # of all places


def test_a_rectangle_is_blotted_out_and_nothing_else_changes() -> None:
    height, width = 40, 20
    images = pictures(100, height, width)
    torch.manual_seed(2)
    found, before = augment(images, options(size=(height, width), erase=1.0)), plain(images).float()
    changed = ~close(found, before)
    assert (found[changed] == 0).all()
    shares = []
    for one in changed.any(1):
        rows, columns = one.any(1).nonzero()[:, 0], one.any(0).nonzero()[:, 0]
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert one.sum() == area  # one whole rectangle: no colour is the middle of the scale
        shares.append(float(area) / (height * width))
    low, high = ERASED_AREA
    assert low / 2 < min(shares)
    assert max(shares) < high + 0.05
    assert max(shares) - min(shares) > 0.25


def test_a_share_of_the_pictures_is_blotted_out() -> None:
    images = pictures(300)
    torch.manual_seed(3)
    found = augment(images, options(erase=0.25))
    changed = (found == 0).flatten(1).any(1)
    assert 45 < int(changed.sum()) < 105


def test_all_follows_from_torchs_seed() -> None:
    images, all_on = pictures(20), options(pad=2, flip=True, erase=0.5)
    torch.manual_seed(4)
    first = augment(images, all_on)
    torch.manual_seed(4)
    assert torch.equal(first, augment(images, all_on))
    assert not torch.equal(first, augment(images, all_on))
