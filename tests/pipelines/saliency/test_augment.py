"""Scenes varied together: colour, depth and mask move alike; no variation changes nothing."""

import torch

from headwise.pipelines.saliency.augment import BLANK, DEVIATION, MEAN, augment, normalise
from headwise.pipelines.saliency.options import SaliencyOptions

STILL = {"flip": False, "zoom": 0.0, "turn": 0.0, "colour": 0.0, "blank": 0.0}


def scene(batch=4, size=(32, 48)):
    """A square that is bright in every picture, and black around it."""
    mask = torch.zeros(batch, *size, dtype=torch.bool)
    mask[:, 8:20, 10:30] = True
    image = (mask[:, None].expand(-1, 3, -1, -1) * 255).to(torch.uint8)
    return {"image": image, "depth": mask[:, None].float(), "mask": mask}


def test_without_variation_it_is_the_plain_scene():
    batch = scene()
    image, depth, mask = augment(batch, SaliencyOptions(**STILL))
    plain = normalise(batch["image"], batch["depth"])
    torch.testing.assert_close(image, plain[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(depth, plain[1], atol=1e-4, rtol=0)
    assert torch.equal(mask[:, 0] > 0, batch["mask"])


def test_colour_depth_and_mask_stay_together():
    torch.manual_seed(0)
    batch = scene(16)
    image, depth, mask = augment(
        batch, SaliencyOptions(**{**STILL, "flip": True, "zoom": 0.4, "turn": 40.0})
    )
    bright = (image[:, 0] * DEVIATION[0] + MEAN[0]) > 0.5
    near = depth[:, 0] * 0.25 + 0.5 > 0.5
    assert torch.equal(near, bright)
    assert torch.equal(mask[:, 0] > 0, bright)
    assert len({scene_mask.sum().item() for scene_mask in mask}) > 8


def test_mirrored_halves_and_turned_squares():
    torch.manual_seed(0)
    batch = scene(64)
    _, _, mask = augment(batch, SaliencyOptions(**{**STILL, "flip": True}))
    mirrored = [torch.equal(varied[0] > 0, batch["mask"][0].flip(1)) for varied in mask]
    same = [torch.equal(varied[0] > 0, batch["mask"][0]) for varied in mask]
    assert 20 < sum(mirrored) < 44
    assert sum(mirrored) + sum(same) == 64
    _, _, mask = augment(batch, SaliencyOptions(**{**STILL, "turn": 180.0}))
    # Reflections add some at the border; the shape itself keeps its size.
    area = mask.sum((1, 2, 3))
    assert (area >= 0.9 * batch["mask"][0].sum()).float().mean() > 0.9


def test_colours_change_and_depth_is_blanked():
    torch.manual_seed(0)
    batch = scene(64)
    image, depth, _ = augment(batch, SaliencyOptions(**{**STILL, "colour": 0.5, "blank": 0.25}))
    assert len({round(picture.max().item(), 4) for picture in image}) > 20
    blanked = (depth == (BLANK - 0.5) / 0.25).flatten(1).all(1)
    assert 5 < int(blanked.sum()) < 30
