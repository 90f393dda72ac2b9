"""The loss against its formula, and the stages of the training."""

import pytest
import torch

pytest.importorskip("timm", reason="the extra `vision` is not installed")

from headwise.pipelines.saliency import TASK
from headwise.pipelines.saliency.augment import normalise
from headwise.pipelines.saliency.data import SaliencySpec
from headwise.pipelines.saliency.options import SaliencyOptions
from headwise.pipelines.saliency.pipeline import SaliencyPipeline, saliency_loss

PIPELINE = SaliencyPipeline(TASK)


def new_model(options: SaliencyOptions):
    spec = SaliencySpec(
        input={"scenes": 2, "size": [32, 32], "near": "bright"},
        layout="folders",
        sets=["a"],
        parts={},
        inverted=None,
    )
    torch.manual_seed(0)
    return PIPELINE.build_model(options, spec)


def random_batch():
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


def test_four_maps_are_weighted():
    options = SaliencyOptions(size=(32, 32), blank=0.0, colour=0.0, turn=0.0, zoom=0.0, flip=False)
    model = new_model(options).eval()
    batch = random_batch()
    maps = model.scales(*normalise(batch["image"], batch["depth"]))
    mask = batch["mask"][:, None].float()
    expected = sum(w * saliency_loss(x, mask) for w, x in zip((0.8, 0.6, 0.4, 0.2), maps))
    loss = PIPELINE.loss(model, batch, options)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_parts_are_frozen_epoch_by_epoch():
    options = SaliencyOptions(
        size=(32, 32), frozen_encoder=1, frozen_transformer=1, encoder_share=0.1, epochs=3
    )
    model = new_model(options)
    optimizer = PIPELINE.optimizer(model, options)
    parts = {"rgb": model.rgb, "stages": model.stages}
    names_of = {
        name: {f"{name}.{key}" for key, _ in part.named_parameters()}
        for name, part in parts.items()
    }
    for epoch, frozen in enumerate(({"rgb"}, {"stages"}, set())):
        PIPELINE.begin_epoch(model, optimizer, options, epoch)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * group["share"]
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        model.train()
        optimizer.zero_grad(set_to_none=True)
        PIPELINE.loss(model, random_batch(), options).backward()
        optimizer.step()
        moved = {
            key for key, value in model.named_parameters() if not torch.equal(value, before[key])
        }
        for part, names in names_of.items():
            assert bool(names & moved) == (part not in frozen), (epoch, part)
    shares = {group["part"]: group["share"] for group in optimizer.param_groups}
    assert shares == {"encoder": 0.1, "transformer": 1.0, "rest": 1.0}
