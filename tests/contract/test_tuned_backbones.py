"""--tune of the tasks with a backbone: what a step of their training changes of it."""

import dataclasses
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from headwise.base.errors import InputError
from headwise.models.layers.tuning import TunedBackbone
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.tests.contract.conftest import sample_of

# The backbone that a task is given, and what "last" leaves of it to be trained.
BACKBONES = {
    "medical": ("resnet10t", {"backbone.model.layer4"}),
    "saliency": ("resnet10t", {"rgb.model.layer4", "depth.model.layer4"}),
    "reid": ("vit_tiny_patch16_224", {"trunk.model.blocks.10", "trunk.model.blocks.11"}),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import timm

    folder = tmp_path_factory.mktemp("weights")
    for name, _ in BACKBONES.values():
        torch.manual_seed(3)
        save_file(
            timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors"
        )
    return {name: str(folder / f"{name}.safetensors") for name, _ in BACKBONES.values()}


@pytest.mark.parametrize("run_of_task", tuple(BACKBONES), indirect=True)
@pytest.mark.parametrize("tune", ["all", "last", "none"])
def test_a_step_changes_what_tune_names(trained: Any, weights: dict[str, str], tune: str) -> None:
    task, run = trained
    pipeline, loaded = task.load(), load_run(task.load(), str(run), "cpu")
    backbone, last = BACKBONES[task.name]
    options = dataclasses.replace(
        loaded.options,
        data=str(sample_of(run)),
        backbone=backbone,
        weights=weights[backbone],
        tune=tune,
    )
    splits = pipeline.open_data(options)
    torch.manual_seed(0)
    model = pipeline.build_model(options, splits.spec)
    pipeline.load_initial_weights(model, options, splits.spec)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = pipeline.optimizer(model, options)
    for group in optimizer.param_groups:
        group.update(lr=0.1, weight_decay=0.1)
    model.train()
    batch = torch.utils.data.default_collate([splits.train[row] for row in range(4)])
    pipeline.loss(model, batch, options).backward()
    optimizer.step()
    held = [module for module in model.modules() if isinstance(module, TunedBackbone)]
    of_backbone = {id(weight) for module in held for weight in module.parameters()}
    names = {id(weight): name for name, weight in model.named_parameters()}
    changed = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    in_backbone = {names[key] for key in of_backbone & set(names)}
    assert changed - in_backbone, "nothing around the backbone has learnt"
    moved = changed & in_backbone
    if tune == "none":
        assert not moved
    elif tune == "last":
        assert moved
        assert all(name.startswith((*last, "trunk.model.norm")) for name in moved)
    else:
        assert any(not name.startswith((*last, "trunk.model.norm")) for name in moved)


@pytest.mark.parametrize("run_of_task", tuple(BACKBONES), indirect=True)
def test_weights_that_nobody_trained_are_not_held(trained: Any) -> None:
    task, run = trained
    pipeline, loaded = task.load(), load_run(task.load(), str(run), "cpu")
    options = dataclasses.replace(cast(Any, loaded.options), weights="none", tune="last")
    model = pipeline.build_model(options, loaded.spec)
    with pytest.raises(InputError, match="--tune last: would leave weights as they are"):
        pipeline.load_initial_weights(model, options, loaded.spec)
