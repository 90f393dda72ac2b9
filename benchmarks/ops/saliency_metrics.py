"""Metrics of saliency, compared with PySODMetrics: all of them together, one picture at a time and
in a batch.

    python benchmarks/ops/saliency_metrics.py [--rounds 15] [--pictures 8]

Needs `pip install --no-deps pysodmetrics==1.6.2 scikit-image`. Generated maps of 686 x 404 pixels,
drawn around a mask. S-measure, E-measure, F-measure, weighted F-measure and MAE; values must agree
to 1e-6 before anything is timed. Called in turn; the median of each counts.
"""

import numpy as np
import torch

from headwise.benchmarks.measure import medians, parser_of, print_header, print_row
from headwise.pipelines.metrics.saliency import saliency_scores

HEIGHT, WIDTH = 404, 686


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


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pictures", type=int, default=8, help="of the batch")
    arguments = parser.parse_args()
    pairs = [random_picture(number) for number in range(arguments.pictures)]
    level, mask = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs))
    scores = saliency_scores(level, mask)
    for place, pair in enumerate(pairs):
        for name, value in theirs(*pair).items():
            np.testing.assert_allclose(
                getattr(scores, name)[place].numpy(), value, atol=1e-6, rtol=0, err_msg=name
            )
    ours, rival, batch = medians(
        [
            lambda: saliency_scores(level[:1], mask[:1]),
            lambda: theirs(*pairs[0]),
            lambda: saliency_scores(level, mask),
        ],
        arguments.rounds,
    )
    print(f"{WIDTH} x {HEIGHT}, {torch.get_num_threads()} threads, ms a picture\n")
    print_header("here", "PySODMetrics", "share", "here, in a batch")
    print_row(
        f"{1e3 * ours:.1f}",
        f"{1e3 * rival:.1f}",
        f"{ours / rival:.2f}",
        f"{1e3 * batch / arguments.pictures:.1f}",
    )


if __name__ == "__main__":
    main()
