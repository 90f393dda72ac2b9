"""One row of attention rollout beside the usual product of whole matrices, time and peak memory.

    python benchmarks/rollout.py [--threads 2] [--rounds 7]

12 layers of 12 heads of width 64, float32. "from q and k": `rollout_row` beside the usual code,
which holds the softmax maps of all layers, takes the mean of the heads, then 0.5 A + 0.5 I,
multiplies the matrices from the first layer to the last, and reads row 0. "from stored maps": the
chain alone, given the mean maps: a vector times each matrix beside the products of matrices. "q k^T
alone": the products of all layers but the last, which both ways need and no order of the chain
avoids; it bounds what the first comparison can show. Both forms must agree to 1e-5 before anything
is timed. They are called in turn; the median of each counts. Peak memory is the growth of a process
of its own over one call, with one thread: all but the inputs."""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from measure import medians, peak_bytes, peak_of
from torch import Tensor

from headwise.kernels.attention_stats import rollout_row

LAYERS, HEADS, WIDTH = 12, 12, 64
CASES = (
    (1, 785),
    (16, 129),
)  # batch, tokens: a picture of 448 x 448 and a training batch of 256 x 128, patches of 16
Layers = Sequence[tuple[Tensor, Tensor]]


def drawn(batch: int, tokens: int) -> Layers:
    """Queries and keys; scores have a deviation of 2."""
    torch.manual_seed(0)
    shape = (batch, HEADS, tokens, WIDTH)
    return [(2 * torch.randn(shape), torch.randn(shape)) for _ in range(LAYERS)]


def scores(layers: Layers) -> None:
    for query, key in layers[:-1]:
        torch.matmul(query, key.mT)


def usual(layers: Layers) -> Tensor:
    maps = [(query @ key.mT * WIDTH**-0.5).softmax(-1) for query, key in layers]
    return product([each.mean(1) for each in maps])


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
    return [
        (query @ key.mT * WIDTH**-0.5).softmax(-1).mean(1) for query, key in drawn(batch, tokens)
    ]


FORMS: dict[str, tuple[Callable, Callable, Callable]] = {
    "from q and k": (drawn, rollout_row, usual),
    "from stored maps": (mean_maps, vector, product),
}


@torch.no_grad()
def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=7, help="calls of each form")
    arguments.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peak:
        name, batch, tokens, form = given.peak[0], *map(int, given.peak[1:])
        data = FORMS[name][0](batch, tokens)
        print(peak_bytes(partial(FORMS[name][1 + form], data)))
        return
    torch.set_num_threads(given.threads)
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, {given.threads} threads, {LAYERS} layers, {HEADS} heads of {WIDTH}, float32\n"
    )
    print(
        "| rollout | batch | tokens | ms here | ms usual | faster | MiB here | MiB usual | share | q k^T alone, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, (make, ours, theirs) in FORMS.items():
        for batch, tokens in CASES:
            data = make(batch, tokens)
            torch.testing.assert_close(ours(data), theirs(data), rtol=0, atol=1e-5)
            forms = (ours, theirs, scores) if ours is rollout_row else (ours, theirs)
            spent = medians([partial(form, data) for form in forms], given.rounds)
            mine, other, *alone = (1e3 * seconds for seconds in spent)
            small, large = (peak_of(__file__, name, batch, tokens, form) / 2**20 for form in (0, 1))
            bound = f"{alone[0]:.1f}" if alone else ""
            print(
                f"| {name} | {batch} | {tokens} | {mine:.1f} | {other:.1f} | {other / mine:.1f}x "
                f"| {small:.1f} | {large:.1f} | {small / large:.3f} | {bound} |",
                flush=True,
            )
    print(
        f"\nload of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (alone: about {given.threads})"
    )


if __name__ == "__main__":
    main()
