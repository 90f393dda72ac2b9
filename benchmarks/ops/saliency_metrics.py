"""Metrics of saliency, compared with PySODMetrics: all of them together, one picture at a time and
in a batch.

    python benchmarks/ops/saliency_metrics.py [--seconds 0.5]

Needs `pip install --no-deps pysodmetrics==1.6.2 scikit-image`. Generated maps of 686 x 404 pixels,
drawn around a mask. S-measure, E-measure, F-measure, weighted F-measure and MAE; values must agree
to 1e-6. Measured as `ratios.py` says.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size
from headwise.pipelines.metrics.saliency import saliency_scores

HEIGHT, WIDTH, PICTURES = 404, 686, 8


def random_picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A map uint8 and a mask bool."""
    generator = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot((y - generator.uniform(120, 280)) / 90, (x - generator.uniform(200, 480)) / 130)
    mask = far + 0.1 * np.sin(x / 9) < 1
    level = 255 / (1 + np.exp(6 * (far - generator.uniform(0.8, 1.2)))) + generator.normal(
        0, 12, mask.shape
    )
    return np.clip(level, 0, 255).astype(np.uint8), mask


def theirs(level: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The scores of one picture by PySODMetrics."""
    import py_sod_metrics

    parts = [
        py_sod_metrics.Smeasure(),
        py_sod_metrics.Emeasure(),
        py_sod_metrics.Fmeasure(),
        py_sod_metrics.WeightedFmeasure(),
        py_sod_metrics.MAE(),
    ]
    for part in parts:
        part.step(level, mask * np.uint8(255))
    s, e, f, weighted, mae = parts
    return {
        "s_measure": s.sms[0],
        "e_curve": e.changeable_ems[0],
        "f_curve": f.changeable_fms[0],
        "weighted_f": weighted.weighted_fms[0],
        "mae": mae.maes[0],
    }


def cases(size: Size) -> Iterator[Case]:
    """One picture, and a picture of a batch, checked."""
    pairs = [random_picture(number) for number in range(1 if size == "tiny" else PICTURES)]
    level, mask = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs))
    scores = saliency_scores(level, mask)
    for place, pair in enumerate(pairs):
        for name, value in theirs(*pair).items():
            np.testing.assert_allclose(
                getattr(scores, name)[place].numpy(), value, atol=1e-6, rtol=0, err_msg=name
            )
    of_one = partial(saliency_scores, level[:1], mask[:1])
    of_all = partial(saliency_scores, level, mask)
    by_theirs = {"PySODMetrics": lambda: [theirs(*pair) for pair in pairs]}
    first = {"PySODMetrics": lambda: theirs(*pairs[0])}
    yield Case(f"one picture, {WIDTH} x {HEIGHT}", of_one, first, memory=False)
    yield Case(f"{len(pairs)} pictures in a batch", of_all, by_theirs, memory=False)


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/saliency_metrics"])
