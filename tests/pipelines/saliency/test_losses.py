"""The loss against its formula, and the stages of the training."""

import pytest
import torch

from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.saliency import TASK
from headwise.pipelines.saliency.build import build, freeze, optimizer
from headwise.pipelines.saliency.losses import loss, saliency_loss

pytest.importorskip("timm", reason="the extra `vision` is not installed")


def options(**values):
    return parse(TASK, "train", [], values={"size": (32, 32), **values})


def batch():
    torch.manual_seed(0)
    return {
        "image": torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8),
        "depth": torch.rand(2, 1, 32, 32),
        "mask": torch.rand(2, 32, 32) < 0.3,
    }


def test_the_loss_of_a_map_is_its_formula():
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 1, 5, 7), (torch.rand(3, 1, 5, 7) < 0.4).float()
    s = 1 / (1 + torch.exp(-logits))
    entropy = -(mask * s.log() + (1 - mask) * (1 - s).log()).mean()
    overlap = torch.stack(
        [1 - (a * b).sum() / (a + b - a * b).sum() for a, b in zip(s, mask)]
    ).mean()
    torch.testing.assert_close(saliency_loss(logits, mask), entropy + overlap)


def test_four_maps_are_weighed():
    o = options(blank=0.0, colour=0.0, turn=0.0, zoom=0.0, flip=False)
    torch.manual_seed(0)
    model = build(o).eval()
    from headwise.pipelines.saliency.augment import normalise

    given = batch()
    found = model.scales(*normalise(given["image"], given["depth"]))
    mask = given["mask"][:, None].float()
    expected = sum(w * saliency_loss(x, mask) for w, x in zip((0.8, 0.6, 0.4, 0.2), found))
    torch.testing.assert_close(loss(model, given, o), expected, atol=1e-4, rtol=1e-4)


def test_parts_are_held_epoch_by_epoch():
    o = options(frozen_encoder=1, frozen_transformer=1, encoder_share=0.1, epochs=3)
    torch.manual_seed(0)
    model = build(o)
    steps = optimizer(model, o)
    parts = {"rgb": model.rgb, "stages": model.stages}
    names = {
        name: {f"{name}.{key}" for key, _ in part.named_parameters()}
        for name, part in parts.items()
    }
    for epoch, held in enumerate(({"rgb"}, {"stages"}, set())):
        freeze(model, steps, o, epoch)
        for group in steps.param_groups:
            group["lr"] = 1e-3 * group["share"]
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        model.train()
        steps.zero_grad(set_to_none=True)
        loss(model, batch(), o).backward()
        steps.step()
        moved = {
            key for key, value in model.named_parameters() if not torch.equal(value, before[key])
        }
        for part, own in names.items():
            assert bool(own & moved) == (part not in held), (epoch, part)
    shares = {group["part"]: group["share"] for group in steps.param_groups}
    assert shares == {"encoder": 0.1, "transformer": 1.0, "rest": 1.0}
