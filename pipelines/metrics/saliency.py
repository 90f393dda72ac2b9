"""Metrics of salient object detection: S-measure, E-measure, F-measure, weighted F-measure, MAE,
precision and recall.

Shapes: P pictures, Y x X pixels, 256 thresholds. Maps have 8 bits and are stretched to [0, 1]
before they are scored, as the tools of the field do (a constant map is only divided by 255); a mask
is True where something is salient. Thresholds: a pixel counts at threshold t = 0..255 if int(255 s)
>= 255 - t, s its stretched value, so curves run from strict to lenient. Variants of a metric are
always named: max and mean are of the mean curve of all pictures, adaptive is at min(2 mean(s), 1).

Toolboxes disagree about these conventions; these are PySODMetrics', whose values are matched to
1e-6 (tested). All but weighted F and the quadrants of S are functions of two histograms of 256
bytes; weighted F searches for nearest salient pixels only where they can count."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import correlate1d, distance_transform_edt
from torch import Tensor

from .bootstrap import DRAWS, Interval, bootstrap_intervals

BETA2 = 0.3  # of the F-measure (Achanta et al., CVPR 2009)
ALPHA = 0.5  # of the S-measure
TINY = float(np.spacing(1))
FAR = 128  # pixels from anything salient at which the importance of weighted F is 2 up to 2^-25
WINDOW, SIGMA = 3, 5.0  # half side and deviation of weighted F's Gaussian


@dataclass(frozen=True)
class SaliencyScores:
    """Scores of P pictures, float64: (P,) each, curves and `precision` and `recall` (P, 256)."""

    s_measure: Tensor
    mae: Tensor
    weighted_f: Tensor
    e_curve: Tensor
    e_adaptive: Tensor
    f_curve: Tensor
    f_adaptive: Tensor
    precision: Tensor
    recall: Tensor

    def __len__(self) -> int:
        return len(self.s_measure)

    @classmethod
    def join(cls, parts: Sequence["SaliencyScores"]) -> "SaliencyScores":
        """The pictures of all parts, in their order. Raises ValueError without any."""
        if not parts:
            raise ValueError("SaliencyScores.join: needs at least one part")
        return cls(
            **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        )

    def of(self, places: Tensor) -> "SaliencyScores":
        """The pictures at these places."""
        return SaliencyScores(**{f.name: getattr(self, f.name)[places] for f in fields(self)})

    def table(self) -> dict[str, float]:
        """Every metric over the set, by its full name; NaN without pictures."""
        return {
            name: float(value)
            for name, value in self.named(lambda x: x.mean(0, keepdim=True)).items()
        }

    def named(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Every metric by its full name, (W,), from W means over the pictures; `mean` maps (P, ...)
        to (W, ...).
        """
        e, f = mean(self.e_curve), mean(self.f_curve)
        return {
            "S-measure": mean(self.s_measure),
            "max E-measure": e.amax(1),
            "mean E-measure": e.mean(1),
            "adaptive E-measure": mean(self.e_adaptive),
            "max F-measure": f.amax(1),
            "mean F-measure": f.mean(1),
            "adaptive F-measure": mean(self.f_adaptive),
            "weighted F-measure": mean(self.weighted_f),
            "MAE": mean(self.mae),
        }


def saliency_scores(prediction: Tensor, mask: Tensor) -> SaliencyScores:
    """Scores of P maps against P masks of the same size.

    prediction: uint8 (P, Y, X), or floats in [0, 1], which are rounded to 8 bits as saved maps are;
    mask: bool, or uint8 where more than 128 is salient. S-measure: Fan et al., ICCV 2017;
    E-measure: Fan et al., IJCAI 2018; weighted F: Margolin et al., CVPR 2014, beta 1. Without
    anything salient S is 1 - mean(s) and F and weighted F are 0.

    Raises ValueError where shapes do not fit, pictures are empty, or floats are not finite or not
    in [0, 1]."""
    level, truth = _checked(prediction, mask)
    jobs = list(zip(level, truth))
    if len(jobs) > 1 and torch.get_num_threads() > 1:
        # Most of the time is spent in scipy, without the interpreter's lock.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            results = list(pool.map(lambda job: _score(*job), jobs))
    else:
        results = [_score(*job) for job in jobs]
    names = [f.name for f in fields(SaliencyScores)]
    empty = {
        name: (0, 256) if name.endswith("curve") or name in ("precision", "recall") else (0,)
        for name in names
    }
    return SaliencyScores(
        **{
            name: torch.from_numpy(np.array([result[name] for result in results], np.float64))
            if results
            else torch.zeros(empty[name], dtype=torch.float64)
            for name in names
        }
    )


def _checked(prediction: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """uint8 and bool, each (P, Y, X)."""
    if prediction.ndim != 3 or prediction.shape != mask.shape:
        raise ValueError(
            "saliency_scores: needs maps and masks of one shape (P, Y, X), got "
            f"{tuple(prediction.shape)} and {tuple(mask.shape)}"
        )
    if prediction.shape[1] * prediction.shape[2] == 0:
        raise ValueError(
            f"saliency_scores: pictures of {tuple(prediction.shape[1:])} have no pixels"
        )
    if mask.dtype == torch.uint8:
        mask = mask > 128
    if mask.dtype != torch.bool:
        raise ValueError(f"saliency_scores: mask must be bool or uint8, got {mask.dtype}")
    if prediction.dtype != torch.uint8:
        if not prediction.is_floating_point():
            raise ValueError(
                f"saliency_scores: maps must be uint8 or floats, got {prediction.dtype}"
            )
        if prediction.numel() and not bool(((prediction >= 0) & (prediction <= 1)).all()):
            raise ValueError("saliency_scores: maps of floats must be finite and in [0, 1]")
        prediction = (255 * prediction.double()).round().to(torch.uint8)
    return prediction.cpu().numpy(), mask.cpu().numpy()


def _score(level: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray | float]:
    """All scores of one picture: level uint8 and truth bool, (Y, X)."""
    salient = np.bincount(level[truth], minlength=256)
    background = np.bincount(level.ravel(), minlength=256) - salient
    value = _stretched(np.flatnonzero(salient + background))
    s = value[level]
    size, positives = level.size, int(salient.sum())
    mean = float(((salient + background) * value).sum() / size)
    byte = (value * 255).astype(np.uint8)  # of the thresholds; cut off, not rounded
    hits, wrong = (
        np.cumsum(np.bincount(byte, counts, 256)[::-1]) for counts in (salient, background)
    )
    at = value >= min(2 * float(s.mean()), 1.0)
    own_hits, own_wrong = float(salient[at].sum()), float(background[at].sum())
    precision, recall = hits / np.maximum(hits + wrong, 1), hits / max(positives, 1)
    once = _f_measure(
        *(np.array([own_hits / max(n, 1)]) for n in (own_hits + own_wrong, positives))
    )
    return {
        "s_measure": _s_measure(s, truth, value, salient, background, mean),
        "mae": float((salient * (1 - value) + background * value).sum() / size),
        "weighted_f": _weighted_f(s, truth) if positives else 0.0,
        "e_curve": _e_measure(hits, wrong, positives, size),
        "e_adaptive": float(
            _e_measure(np.array([own_hits]), np.array([own_wrong]), positives, size)[0]
        ),
        "f_curve": _f_measure(precision, recall),
        "f_adaptive": float(once[0]),
        "precision": precision,
        "recall": recall,
    }


def _stretched(bytes_present: np.ndarray) -> np.ndarray:
    """The value in [0, 1] of each byte, stretched between the lowest and highest byte present."""
    value = np.arange(256) / 255
    low, high = value[bytes_present[0]], value[bytes_present[-1]]
    return np.clip((value - low) / (high - low), 0, 1) if high > low else value


def _f_measure(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    above = (1 + BETA2) * precision * recall
    return above / np.where(above == 0, 1, BETA2 * precision + recall)


def _e_measure(hits: np.ndarray, wrong: np.ndarray, positives: int, size: int) -> np.ndarray:
    """Enhanced alignment of binary maps by their counts alone: a pixel is one of four kinds."""
    chosen = hits + wrong
    if positives == 0:
        total = size - chosen
    elif positives == size:
        total = chosen
    else:
        mean, truth = chosen / size, positives / size
        counts = (hits, wrong, positives - hits, size - chosen - (positives - hits))
        pairs = ((1 - mean, 1 - truth), (1 - mean, -truth), (-mean, 1 - truth), (-mean, -truth))
        total = np.zeros_like(mean)
        for count, (a, b) in zip(counts, pairs):
            aligned = 2 * a * b / (a * a + b * b + TINY)
            total = total + count * (aligned + 1) ** 2 / 4
    return total / (size - 1 + TINY)


def _s_measure(
    s: np.ndarray,
    truth: np.ndarray,
    value: np.ndarray,
    salient: np.ndarray,
    background: np.ndarray,
    mean: float,
) -> float:
    positives, size = int(salient.sum()), truth.size
    if positives == 0:
        return 1 - mean
    if positives == size:
        return mean
    share = positives / size
    alike = share * _object(value, salient) + (1 - share) * _object(1 - value, background)
    return max(0.0, ALPHA * alike + (1 - ALPHA) * _region(s, truth))


def _object(value: np.ndarray, count: np.ndarray) -> float:
    """How uniformly high the map is where it should be high."""
    n = count.sum()
    mean = (count * value).sum() / n
    spread = np.sqrt((count * (value - mean) ** 2).sum() / (n - 1)) if n > 1 else 0.0
    return float(2 * mean / (mean * mean + 1 + spread + TINY))


def _region(s: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity in the four quadrants around the middle of what is salient, by their
    sizes.
    """
    rows, columns = truth.sum(1), truth.sum(0)
    n = rows.sum()
    height, width = truth.shape
    y = int(np.round((rows * np.arange(height)).sum() / n)) + 1
    x = int(np.round((columns * np.arange(width)).sum() / n)) + 1
    area = truth.size
    weights = [x * y / area, y * (width - x) / area, (height - y) * x / area]
    parts = [
        (slice(0, y), slice(0, x)),
        (slice(0, y), slice(x, None)),
        (slice(y, None), slice(0, x)),
        (slice(y, None), slice(x, None)),
    ]
    total = 0.0
    for weight, part in zip([*weights, 1 - sum(weights)], parts):
        if s[part].size:
            total += weight * _alike(s[part], truth[part])
    return total


def _alike(s: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of a quadrant."""
    n = s.size
    positives = int(np.count_nonzero(truth))
    x, y = float(s.mean()), positives / n
    if positives in (0, n) and s.min() == s.max():
        # Whether two constants are alike is left to the rounding of the mean, here as in the tools
        # of the field.
        return float((x * x + y * y) * n * (float(s.flat[0]) - x) ** 2 == 0)
    flat = s.ravel()
    var_x = float(flat @ flat) - n * x * x
    var_y = positives * (1 - y)
    both = float(s.sum(where=truth)) - n * x * y
    if positives in (0, n):
        both = 0.0
    above = 4 * x * y * both / (n - 1 + TINY)
    below = (x * x + y * y) * (var_x + var_y) / (n - 1 + TINY)
    if above != 0:
        return above / (below + TINY)
    return float(below == 0)


@lru_cache(maxsize=4)
def _importance(squares: int) -> np.ndarray:
    """2 - 2^(-d / 5) of a squared distance in pixels: an error far from what is salient counts
    twice.
    """
    return 2 - np.exp(np.log(0.5) / 5 * np.sqrt(np.arange(squares)))


def _weighted_f(s: np.ndarray, truth: np.ndarray) -> float:
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    near = tuple(slice(max(0, int(p[0]) - FAR), int(p[-1]) + FAR + 1) for p in (rows, columns))
    part, error = truth[near], np.abs(s[near] - truth[near])
    positives = int(np.count_nonzero(part))
    # The nearest salient pixel of each background pixel: its error replaces that of the background
    # pixel, and its distance sets the weight.
    nearest = distance_transform_edt(~part, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    down = nearest[0] - np.arange(part.shape[0], dtype=np.int32)[:, None]
    right = nearest[1] - np.arange(part.shape[1], dtype=np.int32)
    squared = down * down + right * right
    weight = _importance(1 << int(squared.max() + 1).bit_length())[squared]
    outside = ~part
    wrong = float((error * weight).sum(where=outside))
    beyond = float(s.sum()) - float(s[near].sum()) if part.size < s.size else 0.0
    wrong += 2 * beyond
    # The mean error around a salient pixel: only pixels within a window of one matter.
    inner = tuple(
        slice(max(0, int(p[0]) - cut.start - WINDOW), int(p[-1]) - cut.start + WINDOW + 1)
        for p, cut in zip((rows, columns), near)
    )
    salient = part[inner]
    errors = np.where(salient, error[inner], error[nearest[0][inner], nearest[1][inner]])
    kernel = np.exp(-(np.arange(-WINDOW, WINDOW + 1) ** 2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    smooth = correlate1d(
        correlate1d(errors, kernel, 0, mode="constant"), kernel, 1, mode="constant"
    )
    least = float(np.minimum(smooth, errors).sum(where=salient))
    right_share = positives - least
    recall = 1 - least / positives
    precision = right_share / (right_share + wrong + TINY)
    return float(2 * recall * precision / (recall + precision + TINY))


def bootstrap_table(
    scores: SaliencyScores,
    groups: Sequence[object] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Mapping[str, Interval]:
    """95 % percentile intervals of `SaliencyScores.table`, groups (scenes, by default pictures)
    drawn with replacement.

    Raises ValueError unless there is one group per picture, and at least one picture.
    """
    count = len(scores)
    if not count or (groups is not None and len(groups) != count):
        raise ValueError(
            f"bootstrap_table: {count} pictures and "
            f"{'no' if groups is None else len(groups)} groups"
        )

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        share = torch.from_numpy(weights / weights.sum(1, keepdims=True))
        return {name: values.numpy() for name, values in scores.named(lambda x: share @ x).items()}

    names = np.arange(count) if groups is None else np.array([str(group) for group in groups])
    return bootstrap_intervals(means, names, draws=draws, seed=seed, block=draws)
