"""One row of attention rollout compared with the usual product of full matrices: time and peak
memory.

    python benchmarks/ops/rollout.py [--threads 2] [--seconds 0.5]

12 layers of 12 heads of width 64, float32. "from q and k": `rollout_row` against the usual code,
which holds the softmax maps of all layers, takes the mean of the heads, then 0.5 A + 0.5 I,
multiplies the matrices from the first layer to the last, and reads row 0. "from stored maps": the
chain alone, given the mean maps: a vector times each matrix against the products of matrices. "q
k^T alone": the products of all layers but the last, which both ways need and no order of the chain
avoids; it bounds what the first comparison can show. Both forms must agree to 1e-5. Measured as
`ratios.py` says; memory is everything but the inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size
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


def cases(size: Size) -> Iterator[Case]:
    """Both forms, checked."""
    for name, (make, ours, theirs) in FORMS.items():
        for batch, tokens in ((1, 16),) if size == "tiny" else CASES:
            data = make(batch, tokens)
            torch.testing.assert_close(ours(data), theirs(data), rtol=0, atol=1e-5)
            others = {"product of matrices": partial(theirs, data)}
            if ours is rollout_row:
                others["q k^T alone"] = partial(scores, data)
            yield Case(f"{name}, batch {batch}, {tokens} tokens", partial(ours, data), others)


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/rollout"])
