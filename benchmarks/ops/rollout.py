"""One row of attention rollout compared with the usual product of full matrices: time and peak
memory.

    python benchmarks/ops/rollout.py [--threads 2] [--rounds 7]

12 layers of 12 heads of width 64, float32. "from q and k": `rollout_row` against the usual code,
which holds the softmax maps of all layers, takes the mean of the heads, then 0.5 A + 0.5 I,
multiplies the matrices from the first layer to the last, and reads row 0. "from stored maps": the
chain alone, given the mean maps: a vector times each matrix against the products of matrices. "q
k^T alone": the products of all layers but the last, which both ways need and no order of the chain
avoids; it bounds what the first comparison can show. Both forms must agree to 1e-5 before anything
is timed. They are called in turn; the median of each counts. Peak memory is the growth of a process
of its own over one call, with one thread: everything but the inputs.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from headwise.benchmarks.measure import (
    machine_load,
    medians,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.attention_stats import rollout_row

LAYERS, HEADS, WIDTH = 12, 12, 64
# Batch, tokens: a picture of 448 x 448 and a training batch of 256 x 128, patches of 16.
CASES = ((1, 785), (16, 129))
Layers = Sequence[tuple[Tensor, Tensor]]


def random_layers(batch: int, tokens: int) -> Layers:
    """Queries and keys; scores have a deviation of 2."""
    torch.manual_seed(0)
    shape = (batch, HEADS, tokens, WIDTH)
    return [(2 * torch.randn(shape), torch.randn(shape)) for _ in range(LAYERS)]


def scores(layers: Layers) -> None:
    """The products q k^T alone."""
    for query, key in layers[:-1]:
        torch.matmul(query, key.mT)


def by_product(layers: Layers) -> Tensor:
    """Row 0 by the maps of all layers and their product."""
    maps = [(query @ key.mT * WIDTH**-0.5).softmax(-1) for query, key in layers]
    return product([layer_map.mean(1) for layer_map in maps])


def product(means: Sequence[Tensor]) -> Tensor:
    """Row 0 of the product of (B, N, N) matrices."""
    eye = torch.eye(means[0].shape[-1])
    result = 0.5 * means[0] + 0.5 * eye
    for mean in means[1:]:
        result = (0.5 * mean + 0.5 * eye) @ result
    return result[:, 0]


def vector(means: Sequence[Tensor]) -> Tensor:
    """The same, a vector times each matrix."""
    row = torch.zeros_like(means[0][:, :1])
    row[..., 0] = 1.0
    for mean in reversed(means):
        row = 0.5 * (row @ mean) + 0.5 * row
    return row[:, 0]


def mean_maps(batch: int, tokens: int) -> list[Tensor]:
    """The maps of all layers, mean of the heads."""
    return [
        (query @ key.mT * WIDTH**-0.5).softmax(-1).mean(1)
        for query, key in random_layers(batch, tokens)
    ]


FORMS: dict[str, tuple[Callable, Callable, Callable]] = {
    "from q and k": (random_layers, rollout_row, by_product),
    "from stored maps": (mean_maps, vector, product),
}


def compare(name: str, batch: int, tokens: int, rounds: int) -> None:
    """Check that both forms agree, time them and print their row."""
    make, ours, theirs = FORMS[name]
    data = make(batch, tokens)
    torch.testing.assert_close(ours(data), theirs(data), rtol=0, atol=1e-5)
    forms = (ours, theirs, scores) if ours is rollout_row else (ours, theirs)
    times = [1e3 * seconds for seconds in medians([partial(form, data) for form in forms], rounds)]
    small, large = (peak_of(__file__, name, batch, tokens, form) / 2**20 for form in (0, 1))
    here, usually, *bound = (f"{ms:.1f}" for ms in times)
    memory = f"{small:.1f}", f"{large:.1f}", f"{small / large:.3f}"
    faster = f"{times[1] / times[0]:.1f}x"
    print_row(name, batch, tokens, here, usually, faster, *memory, *(bound or [""]))


@torch.no_grad()
def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="calls of each form")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        name, batch, tokens, form = arguments.peak[0], *map(int, arguments.peak[1:])
        print(peak_bytes(partial(FORMS[name][1 + form], FORMS[name][0](batch, tokens))))
        return
    with machine_load(f"{LAYERS} layers, {HEADS} heads of {WIDTH}, float32", arguments.threads):
        names = ("rollout", "batch", "tokens", "ms here", "ms usual", "faster", "MiB here")
        print_header(*names, "MiB usual", "share", "q k^T alone, ms")
        for name in FORMS:
            for batch, tokens in CASES:
                compare(name, batch, tokens, arguments.rounds)


if __name__ == "__main__":
    main()
