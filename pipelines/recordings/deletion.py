"""Whether a recording loses its class sooner when the tokens of the highest importance are deleted
than when random ones are.

Shapes: B recordings of a batch, M of a part, N tokens, K shares of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...models.speech.classifier import RecordingClassifier
from ..engine.command_line.terminal import Progressbar
from ..metrics.bootstrap import Interval, interval_of_mean
from .data import RecordingSet

BATCH = 64
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # of frames that are deleted
HIGHEST, RANDOM, LOWEST = "highest first", "random", "lowest first"
ORDERS = (HIGHEST, RANDOM, LOWEST)


@dataclass(frozen=True)
class Deletion:
    """Log-probabilities of the true class. intact: (M,); curves: by order, (M, K) for each share;
    importance: of the tokens of each recording, (N,) that sum to 1.
    """

    shares: Sequence[float]
    intact: np.ndarray
    curves: Mapping[str, np.ndarray]
    importance: list[np.ndarray]
    groups: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """(M,): by how much more the log-probability falls, over all shares, when the highest are
        deleted than when random tokens are.
        """
        return (self.curves[RANDOM] - self.curves[HIGHEST]).mean(1)

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean gain, speakers (or groups) drawn anew."""
        return interval_of_mean(self.gains, self.groups)

    @property
    def sentence(self) -> str:
        """What the check says, in words."""
        low, high = self.interval
        span = f"{self.gains.mean():.3f} ({low:.3f} to {high:.3f})"
        verdict = "no sooner than"
        if low > 0:
            verdict = "sooner than"
        elif high < 0:
            verdict = "LATER than"
        return (
            f"Recordings lose their class {verdict} by chance when the tokens of the highest "
            f"importance are deleted: the log-probability falls by {span} more"
        )


def shares_of(tokens: int) -> list[float]:
    """The shares that are deleted. tokens: their fixed number, or 1 for frames."""
    return [k / tokens for k in range(1, tokens)] if tokens > 1 else list(SHARES)


@torch.no_grad()
def check_deletion(
    model: RecordingClassifier,
    part: RecordingSet,
    device: torch.device,
    *,
    draws: int = 10,
    seed: int = 0,
) -> Deletion:
    """Delete tokens of all recordings of a part, in three orders; the random one is the mean of
    `draws` orders.
    """
    shares, generator = shares_of(len(model.mean)), torch.Generator().manual_seed(seed)
    intact: list[Tensor] = []
    curves: dict[str, list[Tensor]] = {name: [] for name in ORDERS}
    weights: list[np.ndarray] = []
    with Progressbar(total=len(part), unit="recording", desc="deletion") as bar:
        for start in range(0, len(part), BATCH):
            batch = part.__getitems__(range(start, min(start + BATCH, len(part))))
            tokens, mask = batch["tokens"].to(device), batch["mask"].to(device)
            labels = batch["labels"].to(device)

            def truth(present: Tensor, tokens: Tensor = tokens, labels: Tensor = labels) -> Tensor:
                logits = model(tokens, present).double().log_softmax(1)
                return logits.gather(1, labels[:, None])[:, 0].cpu()

            importance = model.importance(tokens, mask)
            intact.append(truth(mask))
            curves[HIGHEST].append(_curve(truth, importance, mask, shares))
            curves[LOWEST].append(_curve(truth, -importance, mask, shares))
            random_orders = [
                torch.rand(mask.shape, generator=generator).to(device) for _ in range(draws)
            ]
            by_chance = [_curve(truth, order, mask, shares) for order in random_orders]
            curves[RANDOM].append(torch.stack(by_chance).mean(0))
            for values, present in zip(importance.cpu(), mask.cpu(), strict=True):
                present_values = values[present].double()
                weights.append((present_values / present_values.sum().clamp_min(1e-30)).numpy())
            bar.update(len(labels))
    return Deletion(
        shares,
        torch.cat(intact).numpy(),
        {name: torch.cat(values).numpy() for name, values in curves.items()},
        weights,
        part.groups,
    )


def _curve(
    truth: Callable[[Tensor], Tensor], score: Tensor, mask: Tensor, shares: Sequence[float]
) -> Tensor:
    """(B, K): log-probabilities of the true class without the tokens of the highest score."""
    hidden = score.masked_fill(~mask, -torch.inf)
    rank = hidden.argsort(1, descending=True).argsort(1)
    counts = mask.sum(1)
    values = []
    for share in shares:
        deleted = (share * counts).round().long().clamp_min(1).minimum(counts - 1)
        values.append(truth(mask & (rank >= deleted[:, None])))
    return torch.stack(values, 1)


def importance_factors(importance: Sequence[np.ndarray], bins: int | None) -> np.ndarray:
    """The importance factor: the mean over recordings, from 0 of the least to 1 of the most (IF =
    (w - min) / (max - min), arXiv 2401.11143).

    bins: stretches of equal length of recordings with any number of tokens; None: of tokens.
    """
    if bins is None:
        mean = np.mean(importance, axis=0)
    else:
        mean = np.mean([_binned(values, bins) for values in importance], axis=0)
    span = mean.max() - mean.min()
    return (mean - mean.min()) / span if span > 0 else np.zeros_like(mean)


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    """The mean of values, times their number, in stretches of equal length."""
    places = (np.arange(bins) + 0.5) / bins * len(values) - 0.5
    return np.interp(places, np.arange(len(values)), values * len(values))
