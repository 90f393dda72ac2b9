"""Two small real tasks for comparing mechanisms: flowers from pixels and digits from log-mel
frames.

Shared by models/matrix.py and the claim checks. Both train a small model from scratch on one thread
in about a minute.
"""

import copy
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.io import wavfile
from torch import Tensor, nn

from headwise.benchmarks.cells import DATA
from headwise.models.attention.base import auxiliary_loss
from headwise.models.layers.vit import TokenModel, VisionTransformer

SIDE = 64  # pixels of a flower
RATE, MELS, FRAMES = 8000, 40, 96
HELD_OUT = ("theo", "yweweler")  # speakers of the digits that are never heard in training


@dataclass
class Split:
    """Inputs (B, ...), labels (B,), and for ragged inputs a mask (B, N), True = a frame."""

    x: Tensor
    y: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)


def flowers(folder: Path = DATA, side: int = SIDE) -> tuple[Split, Split]:
    """Oxford 17 flowers, training and test part, (B, 3, side, side) in [-1, 1]."""
    root = folder / "reid" / "flowers17"
    parts: dict[str, tuple[list, list]] = {"train": ([], []), "test": ([], [])}
    with open(root / "labels.csv", newline="") as file:
        for row in csv.DictReader(file):
            image = Image.open(root / row["path"]).convert("RGB")
            short = min(image.size)
            x, y = (image.width - short) // 2, (image.height - short) // 2
            square = image.crop((x, y, x + short, y + short))
            image = square.resize((side, side), Image.Resampling.BICUBIC)
            images, labels = parts[row["split"]]
            images.append(np.asarray(image))
            labels.append(int(row["class_id"]) - 1)

    def split(images: list, labels: list) -> Split:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Split(pixels, torch.tensor(labels))

    return split(*parts["train"]), split(*parts["test"])


def mel_filters() -> Tensor:
    """Triangles (MELS, 129) on the mel scale of O'Shaughnessy, from 0 to half the sampling rate."""
    mel = torch.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), MELS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequency = torch.linspace(0, RATE / 2, 129)
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp_min(0)


def digits(folder: Path = DATA) -> tuple[Split, Split]:
    """Free spoken digits as log-mel frames (B, 96, 40) with their mask; two speakers are the test
    part.

    Frames of 32 ms every 16 ms, the mean level of each recording taken out; longer recordings are
    cut.
    """
    filters, window = mel_filters(), torch.hann_window(256)
    parts: dict[bool, list] = {False: [], True: []}
    for path in sorted((folder / "speech" / "fsdd" / "recordings").glob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        wave = torch.from_numpy(wavfile.read(path)[1].astype(np.float32) / 32768)
        wave = F.pad(wave, (0, max(0, 256 - len(wave))))
        power = (
            torch.stft(wave, 256, 128, window=window, center=False, return_complex=True).abs() ** 2
        )
        frames = (filters @ power + 1e-6).log().T[:FRAMES]
        parts[speaker in HELD_OUT].append((frames - frames.mean(), int(digit)))

    def split(rows: list) -> Split:
        x, mask = (
            torch.zeros(len(rows), FRAMES, MELS),
            torch.zeros(len(rows), FRAMES, dtype=torch.bool),
        )
        for i, (frames, _) in enumerate(rows):
            x[i, : len(frames)], mask[i, : len(frames)] = frames / 3, True
        return Split(x, torch.tensor([digit for _, digit in rows]), mask)

    return split(parts[False]), split(parts[True])


def flower_model(
    attention: str | tuple[str, ...], *, depth: int = 4, heads: int = 4, **more
) -> VisionTransformer:
    """64 patches of 8 x 8 pixels, 4 layers of width 64."""
    return VisionTransformer(
        image=(SIDE, SIDE),
        patch=8,
        classes=17,
        width=64,
        depth=depth,
        heads=heads,
        attention=attention,
        hidden=128,
        **more,
    )


def digit_model(attention: str | tuple[str, ...], *, heads: int = 4, **more) -> TokenModel:
    """96 frames, 3 layers of width 64."""
    return TokenModel(
        MELS,
        10,
        tokens=FRAMES,
        width=64,
        depth=3,
        heads=heads,
        attention=attention,
        hidden=128,
        **more,
    )


def shifted(x: Tensor, dice: torch.Generator) -> Tensor:
    """Flowers flipped by half and moved by up to 6 pixels of 64, all by as many."""
    side = x.shape[-1]
    most = 6 * side // SIDE
    x = torch.where((torch.rand(len(x), generator=dice) < 0.5)[:, None, None, None], x.flip(3), x)
    down, right = (int(v) for v in torch.randint(0, 2 * most + 1, (2,), generator=dice))
    padded = F.pad(x, (most,) * 4, mode="reflect")
    return padded[:, :, down : down + side, right : right + side]


def run(model: nn.Module, split: Split, rows: Tensor | slice) -> Tensor:
    """Logits of some rows."""
    return (
        model(split.x[rows]) if split.mask is None else model(split.x[rows], mask=split.mask[rows])
    )


def fit(
    model: nn.Module,
    train: Split,
    *,
    epochs: int,
    seed: int,
    batch: int = 64,
    lr: float = 2e-3,
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    loss_of: Callable[[nn.Module], Tensor | None] = auxiliary_loss,
    limit: float = 150.0,
    tested: int = 1000,
) -> dict[str, float]:
    """Train with AdamW, one cycle of warm-up and cosine, label smoothing .1. Returns the steps and
    the median seconds per step.

    limit: seconds of training and of a test on `tested` cases together. Where they would take
    longer, the cycle has fewer steps, as many as fit (`steps` of `planned`), so that the cycle is
    still complete.
    """
    per_epoch = len(train) // batch
    planned = epochs * per_epoch
    torch.manual_seed(seed)
    # A step on a copy tells how long one takes; a forward pass takes about a third of it.
    once = seconds_a_step(copy.deepcopy(model), train, batch=batch)
    total = max(1, min(planned, int((limit - once * tested / batch / 3) / once)))
    dice = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=total, pct_start=0.15)
    model.train()
    times, order = [], torch.empty(0)
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.randperm(len(train), generator=dice)
        rows = order[step % per_epoch * batch : (step % per_epoch + 1) * batch]
        part = Split(train.x[rows], train.y[rows], None if train.mask is None else train.mask[rows])
        if change is not None:
            part.x = change(part.x, dice)
        start = time.perf_counter()
        loss = F.cross_entropy(run(model, part, slice(None)), part.y, label_smoothing=0.1)
        extra = loss_of(model)
        optimiser.zero_grad(set_to_none=True)
        (loss if extra is None else loss + extra).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        times.append(time.perf_counter() - start)
    return {"steps": total, "planned": planned, "seconds_a_step": float(np.median(times))}


def seconds_a_step(model: nn.Module, train: Split, *, batch: int = 64, repeats: int = 2) -> float:
    """Forward and backward of the first batch, the fastest of some."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        F.cross_entropy(run(model.train(), train, slice(0, batch)), train.y[:batch]).backward()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def accuracy(
    model: nn.Module, test: Split, change: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Share of the test part that is right, after `change` of its inputs."""
    model.eval()
    if change is not None:
        test = Split(change(test.x), test.y, test.mask)
    right = 0
    for rows in torch.arange(len(test)).split(128):
        right += int((run(model, test, rows).argmax(1) == test.y[rows]).sum())
    return right / len(test)


def interval(right: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of count independent cases (Wilson 1927)."""
    z = 1.959964
    middle = (right + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(right * (1 - right) / count + z * z / (4 * count * count))
    )
    return middle - half, middle + half
