"""Batch-hard triplets against a plain loop; the loss of DCAL against its formula."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.layers.label_losses import ClassLoss
from headwise.models.layers.vit_trunk import build_trunk
from headwise.models.vision.cca import ConditionalEmbedder
from headwise.models.vision.dcal import DCAL
from headwise.pipelines.reid import TASK
from headwise.pipelines.reid.augment import augment
from headwise.pipelines.reid.options import ReidOptions
from headwise.pipelines.reid.pipeline import ReidPipeline, triplet_loss

PIPELINE = ReidPipeline(TASK)
OPTIONS = ReidOptions(size=(32, 16), pad=0, flip=False, erase=0.0, smoothing=0.1, margin=None)


def plain_triplet(
    x: Tensor, labels: list[int], margin: float | None, group: list[int] | None = None
) -> float:
    """By loops over all triples."""
    losses = []
    group = [0] * len(x) if group is None else group
    for a in range(len(x)):
        far = [
            float((x[a] - x[p]).norm()) for p in range(len(x)) if p != a and labels[p] == labels[a]
        ]
        near = [
            float((x[a] - x[n]).norm())
            for n in range(len(x))
            if labels[n] != labels[a] and group[n] == group[a]
        ]
        if far and near:
            gap = max(far) - min(near)
            losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("margin", [None, 0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_triplets_are_those_of_a_plain_loop(margin: float | None, seed: int) -> None:
    torch.manual_seed(seed)
    x, labels = torch.randn(14, 5), torch.randint(0, 5, (14,))
    value = triplet_loss(x, labels, margin)
    assert float(value) == pytest.approx(plain_triplet(x, labels.tolist(), margin), rel=1e-4)
    group = labels % 2
    value = triplet_loss(x, labels, margin, group)
    assert float(value) == pytest.approx(
        plain_triplet(x, labels.tolist(), margin, group.tolist()), rel=1e-4
    )


def test_pictures_of_other_groups_are_no_negatives() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.1, 0.0], [5.0, 0.0], [9.0, 0.0]])
    labels, group = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 0, 0])
    # The picture at .1 is nearest to both of label 0, but of another group; it is itself without a
    # positive.
    expected = [0.3 + 1 - 5, 0.3 + 1 - 4, 0.3 + 4 - 4, 0.3 + 4 - 8]
    expected = sum(max(0.0, value) for value in expected) / 4
    assert float(triplet_loss(x, labels, 0.3, group)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["no positive", "no negative"])
def test_without_a_pair_of_both_kinds_the_loss_is_0_with_gradients(labels: list[int]) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    value = triplet_loss(x, torch.tensor(labels))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize("margin", [None, 0.3])
def test_duplicates_have_finite_gradients(margin: float | None) -> None:
    pictures = torch.randn(3, 64) * 4
    x = pictures[[0, 0, 1, 1, 2, 2, 0]].clone().requires_grad_()
    triplet_loss(x, torch.tensor([0, 0, 1, 1, 2, 2, 1]), margin).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    same = torch.ones(4, 8, requires_grad=True)
    triplet_loss(same, torch.tensor([0, 0, 1, 1]), margin).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_autocast_does_not_blur_distances() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(12, 192) * 0.01 + 3 * torch.randn(192), torch.arange(12) // 4
    with torch.autocast("cpu", torch.bfloat16):
        value = triplet_loss(x, labels, 0.0)
    assert float(value) == pytest.approx(plain_triplet(x.double(), labels.tolist(), 0.0), rel=0.05)


def batch_of(count: int = 8, *, triplet: bool = True) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {
        "image": torch.randint(0, 256, (count, 3, 32, 16), dtype=torch.uint8),
        "label": torch.arange(count) // 2 % 4,
        "condition": torch.arange(count) % 2,
        "triplet": torch.full((count,), triplet),
    }


def model_of(**options) -> DCAL:
    torch.manual_seed(1)
    trunk = build_trunk("scratch", image=(32, 16), patch=8, width=16, depth=1, heads=2)
    model = DCAL(trunk, 4, **options)
    model.objective = ClassLoss("none", torch.ones(4), smoothing=OPTIONS.smoothing)
    with torch.no_grad():
        model.log_variance.copy_(torch.randn_like(model.log_variance))
        for head in model.classifiers.values():
            head.classify.weight.normal_()
    return model.train()


def plain_branches(model: DCAL, batch: dict[str, Tensor], options: ReidOptions) -> list[float]:
    torch.manual_seed(7)
    branches = model.branches(augment(batch["image"], options))
    losses = []
    for name, logits in branches.logits.items():
        classes, labels = logits.shape[1], batch["label"]
        goal = F.one_hot(labels, classes) * (1 - options.smoothing) + options.smoothing / classes
        entropy = -(goal * (logits - logits.logsumexp(1, keepdim=True))).sum(1).mean().item()
        triplets = (
            plain_triplet(branches.tokens[name].detach(), labels.tolist(), options.margin)
            if batch["triplet"][0]
            else 0
        )
        losses.append(entropy + triplets)
    return losses


@pytest.mark.parametrize(
    "options", [{}, {"pwca": False}, {"glca": 0}, {"glca": 0, "pwca": False}], ids=str
)
@pytest.mark.parametrize("triplet", [True, False])
def test_branches_are_weighted_by_their_variances(options: dict, triplet: bool) -> None:
    model, batch = model_of(**options), batch_of(triplet=triplet)
    losses = plain_branches(model, batch, OPTIONS)
    assert len(losses) == 3 - (options.get("glca") == 0) - (options.get("pwca") is False)
    torch.manual_seed(7)
    value = PIPELINE.loss(model, batch, OPTIONS)
    variances = model.log_variance.tolist()
    expected = sum(math.exp(-w) * loss + w for w, loss in zip(variances, losses, strict=True)) / 2
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    assert model.log_variance.grad is not None
    gradient = [(1 - math.exp(-w) * loss) / 2 for w, loss in zip(variances, losses)]
    assert model.log_variance.grad.tolist() == pytest.approx(gradient, rel=1e-3, abs=1e-4)
    torch.manual_seed(7)
    alike = replace(OPTIONS, balance=False)
    assert float(PIPELINE.loss(model, batch, alike)) == pytest.approx(sum(losses), rel=1e-4)


def test_cca_has_triplets_among_pictures_of_one_condition() -> None:
    torch.manual_seed(2)
    trunk = build_trunk("scratch", image=(32, 16), patch=8, width=16, depth=1, heads=2)
    model, batch = ConditionalEmbedder(trunk, 2, vector=5), batch_of()
    batch["label"] = batch["condition"] * 10 + torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    value = PIPELINE.loss(model, batch, OPTIONS)
    vectors = model.embed(augment(batch["image"], OPTIONS), batch["condition"]).detach()
    expected = plain_triplet(vectors, batch["label"].tolist(), None, batch["condition"].tolist())
    assert float(value) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["dcal", "cca"])
def test_mixed_precision_reaches_the_model(kind: str) -> None:
    from lightning_fabric import Fabric

    trunk = build_trunk("scratch", image=(32, 16), patch=8, width=16, depth=1, heads=2)
    plain = DCAL(trunk, 4) if kind == "dcal" else ConditionalEmbedder(trunk, 2)
    if isinstance(plain, DCAL):
        plain.objective = ClassLoss("none", torch.ones(4))
    types = []
    trunk.blocks[0].mlp.fc1.register_forward_hook(
        lambda layer, inputs, out: types.append(out.dtype)
    )
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = fabric.setup_module(plain)
    value = PIPELINE.loss(model, batch_of(), OPTIONS)
    assert types == [torch.bfloat16] * (1 + (kind == "dcal"))  # of DCAL, PWCA too
    assert value.dtype == torch.float32
    fabric.backward(value)
    assert all(weight.grad.isfinite().all() for weight in trunk.blocks.parameters())
