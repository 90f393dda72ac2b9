"""The body by itself: trained on lung masks, every mask scored by a body that has not seen it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors.torch import save
from torch import Tensor

from ....base.errors import InputError, fail
from ....base.files import write_aside, write_json
from ....data.formats.pictures import resized
from ....data.scenes.scenes import read_mask
from ....data.xrays.xrays import read_row, read_xray_set
from ....models.vision.medusa import Body
from ...engine.command_line.terminal import Progressbar, say
from ...engine.experiments.jobs import claimed
from ...engine.pipeline import AnyPipeline
from ...engine.runs.loaded import pick_device
from ...engine.training.order import mix
from ...metrics.bootstrap import interval_of_mean
from ..augment import moved, moves, standardised
from ..explain import read_lungs
from ..options import BodyOptions, MedicalOptions

SHOWN = 4


def body(pipeline: AnyPipeline, options: BodyOptions) -> dict[str, Any]:
    """Train on lung masks; writes body.safetensors (trained on all masks), body.json (Dice of each
    mask by the body of a fold that has not seen it, mean with 95 % interval by patient) and
    lungs.png. Returns what body.json holds."""
    pipeline.task.check(options)
    rows = read_xray_set(options.data)
    masks = read_lungs(rows, options.lungs)
    chosen = sorted(masks)
    patients = np.array([rows.patients[row] for row in chosen])
    names, group = np.unique(patients, return_inverse=True)
    if len(names) < options.folds:
        raise fail(
            options.lungs, f"masks of {len(names)} patients are too few for --folds {options.folds}"
        )
    size = (options.body_size[0], options.body_size[1])
    pictures = torch.from_numpy(np.stack([resized(read_row(rows, row), size) for row in chosen]))[
        :, None
    ]
    truth = torch.from_numpy(np.stack([read_mask(masks[row], size) for row in chosen]))[
        :, None
    ].float()
    device = pick_device(options.accelerator)
    output = Path(options.output)
    fold = (
        np.random.default_rng(mix(options.seed, 5)).permutation(len(names))[group] % options.folds
    )
    found = torch.zeros_like(truth)
    with claimed(output), Progressbar(total=options.folds + 1, unit="training", desc="body") as bar:
        for k in range(options.folds):
            own = torch.from_numpy(fold == k)
            found[own] = _lungs(
                _train(options, pictures[~own], truth[~own], k, device), pictures[own], device
            )
            bar.update()
        final = _train(options, pictures, truth, options.folds, device)
        bar.update()
        dice = _dice(found, truth)
        low, high = interval_of_mean(dice, patients, seed=options.seed)
        facts = {
            "masks": len(chosen),
            "patients": len(names),
            "dice": float(dice.mean()),
            "interval": [float(low), float(high)],
            "dice_of_the_mean_mask": float(
                _dice(truth.mean(0, keepdim=True).expand_as(truth), truth).mean()
            ),
            "each": {rows.names[row]: float(one) for row, one in zip(chosen, dice)},
            "body_size": list(size),
            "body_width": options.body_width,
        }
        state = {name: value.contiguous() for name, value in final.cpu().state_dict().items()}
        write_aside(output / "body.safetensors", lambda path: path.write_bytes(save(state)))
        write_json(output / "body.json", facts)
        drawn = _sheet(pictures, truth, found, dice, [rows.names[row] for row in chosen])
        write_aside(output / "lungs.png", lambda path: drawn.savefig(path, format="png", dpi=110))
    say(
        f"{len(chosen)} masks of {len(names)} patients: Dice {dice.mean():.3f} ({low:.3f} to {high:.3f}); of the mean "
        f"mask {facts['dice_of_the_mean_mask']:.3f}"
    )
    say(f"weights {output / 'body.safetensors'}")
    return facts


def _train(
    options: BodyOptions, pictures: Tensor, truth: Tensor, number: int, device: torch.device
) -> Body:
    """Cross-entropy and Dice, pictures varied as in training."""
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
            theta = moves(len(x), varied, device)
            x, y = moved(x, theta), (moved(y, theta) > 0.5).float()
            logits = model(standardised(x))[0]
            s = logits.sigmoid()
            dice = 1 - (2 * (s * y).sum((1, 2, 3)) + 1) / (s.sum((1, 2, 3)) + y.sum((1, 2, 3)) + 1)
            total = F.binary_cross_entropy_with_logits(logits, y) + dice.mean()
            if not torch.isfinite(total):
                raise InputError("the loss of the body is not finite; try a smaller --lr")
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def _lungs(model: Body, pictures: Tensor, device: torch.device) -> Tensor:
    return torch.cat(
        [model(standardised(one.to(device)))[0].sigmoid().cpu() for one in pictures.split(32)]
    )


def _dice(found: Tensor, truth: Tensor) -> np.ndarray:
    """2 |A B| / (|A| + |B|) of maps above .5, (N,); 1 where both are empty."""
    said, own = found > 0.5, truth > 0.5
    both, either = (said & own).sum((1, 2, 3)), said.sum((1, 2, 3)) + own.sum((1, 2, 3))
    return torch.where(either > 0, 2 * both / either.clamp_min(1), 1.0).double().numpy()


def _sheet(
    pictures: Tensor, truth: Tensor, found: Tensor, dice: np.ndarray, names: list[str]
) -> Figure:
    """The best, median and worst masks."""
    ranked = np.argsort(-dice, kind="stable")
    middle = len(ranked) // 2
    chosen = list(
        dict.fromkeys([*ranked[:SHOWN], *ranked[middle : middle + SHOWN], *ranked[::-1][:SHOWN]])
    )
    drawn = Figure(figsize=(1.6 * SHOWN, 1.9 * -(-len(chosen) // SHOWN)), layout="constrained")
    axes = drawn.subplots(-(-len(chosen) // SHOWN), SHOWN, squeeze=False).reshape(-1)
    for axis in axes:
        axis.set_axis_off()
    for axis, k in zip(axes, chosen):
        axis.imshow(pictures[k, 0], cmap="gray")
        axis.contour(truth[k, 0], [0.5], colors="C0", linewidths=1)
        axis.contour(found[k, 0], [0.5], colors="C3", linewidths=1)
        axis.set_title(f"{names[k].split('/')[-1][:18]} {dice[k]:.3f}", fontsize=6)
    return drawn
