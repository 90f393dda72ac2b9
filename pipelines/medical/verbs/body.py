"""The verb body: the body trained by itself on lung masks, each mask scored by a body that has not
seen its patient.

Shapes: N pictures with masks, y x x pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor

from ....base.account import note, opened
from ....base.errors import InputError, fail
from ....base.files import write_aside, write_json
from ....data.formats.pictures import resized
from ....data.scenes.scenes import read_mask
from ....data.xrays.records import Reading
from ....data.xrays.xrays import read_row, read_xray_set
from ....models.vision.medusa import Body
from ...engine.accounts import publish
from ...engine.command_line.terminal import Progressbar, say
from ...engine.experiments.jobs import claimed
from ...engine.runs.loaded import pick_device
from ...engine.training.order import mix
from ...figures.style import BLUE, RED, bare, save_png, styled_figure
from ...metrics.bootstrap import interval_of_mean
from ..augment import move, random_maps, standardise
from ..explain import read_lungs
from ..option_rules import check
from ..options import BodyOptions, MedicalOptions
from ..pipeline import MedicalPipeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4  # of the figure; as many of the best, of the middle and of the worst masks
BATCH = 32


class BodyFacts(TypedDict):
    """What body.json holds: Dice is the overlap of a map with its mask, from 0 to 1."""

    masks: int
    patients: int
    dice: float
    interval: list[float]
    dice_of_the_mean_mask: float
    each: dict[str, float]
    body_size: list[int]
    body_width: int


class LungMasks(NamedTuple):
    """Pictures that have a lung mask."""

    pictures: Tensor  # float32 (N, 1, y, x) in [0, 1]
    truth: Tensor  # float32 (N, 1, y, x), 0 or 1
    names: list[str]
    patients: np.ndarray  # (N,)


def body(pipeline: MedicalPipeline, options: BodyOptions) -> BodyFacts:
    """Train on lung masks; writes body.safetensors (trained on all masks), body.json (Dice of each
    mask by the body of a fold without its patient, mean with 95 % interval by patient) and
    lungs.png. Returns what body.json holds.

    Raises InputError for options and data that do not fit.
    """
    check(options)
    with opened() as account:
        data = _read(options)
        publish(account)
    device = pick_device(options.accelerator)
    output = Path(options.output)
    with claimed(output), Progressbar(total=options.folds + 1, unit="training", desc="body") as bar:
        predicted = torch.zeros_like(data.truth)
        folds = _folds(options, data.patients)
        for fold in range(options.folds):
            test = torch.from_numpy(folds == fold)
            model = _train(options, data.pictures[~test], data.truth[~test], fold, device)
            predicted[test] = _lungs(model, data.pictures[test], device)
            bar.update()
        final = _train(options, data.pictures, data.truth, options.folds, device)
        bar.update()
        dice = dice_of(predicted, data.truth)
        facts = _facts(options, data, dice)
        state = {name: value.contiguous() for name, value in final.cpu().state_dict().items()}
        write_aside(output / "body.safetensors", lambda path: path.write_bytes(save(state)))
        write_json(output / "body.json", facts)
        save_png(_sheet(data, predicted, dice), output / "lungs.png")
    low, high = facts["interval"]
    say(
        f"{facts['masks']} masks of {facts['patients']} patients: Dice {facts['dice']:.3f} "
        f"({low:.3f} to {high:.3f}); of the mean mask {facts['dice_of_the_mean_mask']:.3f}"
    )
    say(f"weights {output / 'body.safetensors'}")
    return facts


def _read(options: BodyOptions) -> LungMasks:
    xrays = read_xray_set(options.data, Reading(use_labels=False))
    masks = read_lungs(xrays, options.lungs)
    rows = sorted(masks)
    if len(rows) < len(xrays):
        note("left out", "pictures without a lung mask", count=len(xrays) - len(rows))
    patients = np.array([xrays.patients[row] for row in rows])
    if (count := len(set(patients))) < options.folds:
        message = f"masks of {count} patients are too few for --folds {options.folds}"
        raise fail(options.lungs, message)
    size = (options.body_size[0], options.body_size[1])
    pictures = np.stack([resized(read_row(xrays, row), size) for row in rows])
    truth = np.stack([read_mask(masks[row], size) for row in rows])
    return LungMasks(
        torch.from_numpy(pictures)[:, None],
        torch.from_numpy(truth)[:, None].float(),
        [xrays.names[row] for row in rows],
        patients,
    )


def _folds(options: BodyOptions, patients: np.ndarray) -> np.ndarray:
    """The fold of each picture, int (N,); patients are dealt out at random."""
    names, patient = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(mix(options.seed, 5)).permutation(len(names))
    return order[patient] % options.folds


def _facts(options: BodyOptions, data: LungMasks, dice: np.ndarray) -> BodyFacts:
    mean_mask = data.truth.mean(0, keepdim=True).expand_as(data.truth)
    return {
        "masks": len(data.names),
        "patients": len(set(data.patients)),
        "dice": float(dice.mean()),
        "interval": list(interval_of_mean(dice, data.patients, seed=options.seed)),
        "dice_of_the_mean_mask": float(dice_of(mean_mask, data.truth).mean()),
        "each": {name: float(value) for name, value in zip(data.names, dice)},
        "body_size": list(options.body_size),
        "body_width": options.body_width,
    }


def _train(
    options: BodyOptions, pictures: Tensor, truth: Tensor, number: int, device: torch.device
) -> Body:
    """Train by cross-entropy and Dice, with pictures varied as in the training of the classifier.

    number: of the training, for its random draws.
    """
    torch.manual_seed(mix(options.seed, number))
    model = Body(options.body_width).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    generator = np.random.default_rng(mix(options.seed, number, 1))
    varied = MedicalOptions()
    for _ in range(options.epochs):
        order = generator.permutation(len(pictures))
        for start in range(0, len(order), options.batch_size):
            places = torch.from_numpy(order[start : start + options.batch_size])
            x, y = pictures[places].to(device), truth[places].to(device)
            maps = random_maps(len(x), varied, device)
            x, y = move(x, maps), (move(y, maps) > 0.5).float()
            loss = _loss(model(standardise(x))[0], y)
            if not torch.isfinite(loss):
                raise InputError("the loss of the body is not finite; try a smaller --lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus one minus the soft Dice, with 1 added to both of its sums."""
    lungs, axes = logits.sigmoid(), (1, 2, 3)
    both, sizes = (lungs * truth).sum(axes), lungs.sum(axes) + truth.sum(axes)
    dice = 1 - (2 * both + 1) / (sizes + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) + dice.mean()


@torch.no_grad()
def _lungs(model: Body, pictures: Tensor, device: torch.device) -> Tensor:
    """Maps of the lungs in (0, 1), (N, 1, y, x)."""
    batches = (batch.to(device) for batch in pictures.split(BATCH))
    return torch.cat([model(standardise(batch))[0].sigmoid().cpu() for batch in batches])


def dice_of(predicted: Tensor, truth: Tensor) -> np.ndarray:
    """2 |A B| / (|A| + |B|) of maps above 0.5, float64 (N,); 1 where both are empty."""
    first, second, axes = predicted > 0.5, truth > 0.5, (1, 2, 3)
    both, sizes = (first & second).sum(axes), first.sum(axes) + second.sum(axes)
    return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).double().numpy()


def _sheet(data: LungMasks, predicted: Tensor, dice: np.ndarray) -> Figure:
    """The best, median and worst masks."""
    ranked = np.argsort(-dice, kind="stable")
    middle = len(ranked) // 2
    best, median, worst = ranked[:COLUMNS], ranked[middle : middle + COLUMNS], ranked[::-1]
    chosen = list(dict.fromkeys([*best, *median, *worst[:COLUMNS]]))
    rows = -(-len(chosen) // COLUMNS)
    with styled_figure(1.6 * COLUMNS, 1.9 * rows, grid=False) as figure:
        cells = figure.subplots(rows, COLUMNS, squeeze=False).reshape(-1)
        for axes in cells:
            bare(axes)
        for axes, k in zip(cells, chosen):
            axes.imshow(data.pictures[k, 0].numpy(), cmap="gray")
            axes.contour(data.truth[k, 0].numpy(), [0.5], colors=BLUE, linewidths=1)
            axes.contour(predicted[k, 0].numpy(), [0.5], colors=RED, linewidths=1)
            axes.set_title(f"{data.names[k].split('/')[-1][:18]} {dice[k]:.3f}", fontsize=6)
    return figure
