"""A few queries per sample to ragged keys, compared with padding and with torch's nested tensors:
time and peak memory.

    python benchmarks/ops/ragged_attention.py [--samples 4096] [--seconds 1]

Forward and backward pass, float32, one thread. Lengths are generated: log-normal, rounded down and
cut at the longest, so that most samples are short, some empty and few long. Padded: keys and values
copied to (samples, longest), then `scaled_dot_product_attention` with a boolean mask. The copy is
one indexed write, because the backward pass of `torch.nn.utils.rnn.pad_sequence` copies the whole
gradient once per sample. Nested: the jagged layout, no padding. All forms must agree in values and
gradients before anything is timed; they are called in turn and the fastest call counts. Peak memory
is the growth of a process of its own over one call: everything but the inputs, gradients included.
"""

import argparse
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks.measure import (
    both_passes,
    fastest,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.kernels.ragged_attention import ragged_attention

# queries, heads, width of a head, mean and deviation of the logarithm of a length, longest
CASES = (
    (8, 4, 16, 1.8, 1.1, 100),
    (8, 2, 32, 1.8, 1.1, 100),
    (8, 4, 8, 3.0, 0.8, 100),
    (1, 4, 16, 1.8, 1.1, 100),
)
Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def padded(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Attention to keys copied to (samples, longest), with a mask."""
    lengths = offsets.diff()
    inside = torch.arange(int(lengths.max())) < lengths[:, None]
    place = inside.nonzero(as_tuple=True)
    k, v = (
        x.new_zeros((*inside.shape, *x.shape[1:])).index_put(place, x).transpose(1, 2)
        for x in (key, value)
    )
    # An empty sample sees one padded value, which is 0, instead of a row of nothing but masked
    # keys.
    inside[:, 0] = True
    return F.scaled_dot_product_attention(
        query.transpose(1, 2), k, v, attn_mask=inside[:, None, None]
    ).transpose(1, 2)


def nested(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
    """Attention to nested tensors of the jagged layout."""
    samples, queries = query.shape[:2]
    longest = int(offsets.diff().max())
    q = torch.nested.nested_tensor_from_jagged(
        query.flatten(0, 1),
        torch.arange(samples + 1) * queries,
        min_seqlen=queries,
        max_seqlen=queries,
    )
    k, v = (
        torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=0, max_seqlen=longest)
        for x in (key, value)
    )
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    output = F.scaled_dot_product_attention(q, k, v)
    return output.transpose(1, 2).values().view(query.shape)


FORMS: dict[str, Form] = {"ours": ragged_attention, "padded": padded, "nested": nested}


def random_inputs(samples: int, case: tuple[float, ...]) -> tuple[list[Tensor], Tensor]:
    """Query, key and value with gradients, and offsets."""
    queries, heads, width, longest = (int(size) for size in (*case[:3], case[5]))
    mean, deviation = case[3:5]
    torch.manual_seed(0)
    lengths = torch.empty(samples).log_normal_(mean, deviation).long().clamp_(max=longest)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    total = int(offsets[-1])
    shapes = (samples, queries, heads, width), (total, heads, width), (total, heads, width)
    return [torch.randn(shape, requires_grad=True) for shape in shapes], offsets


def compare(samples: int, seconds: float) -> None:
    """Check that all forms agree, time them and print a row for each case."""
    times_head = " / ".join(FORMS)
    names = ("queries, heads, width", "mean, longest, empty", f"ms {times_head}", "MiB")
    print_header(*names, "faster than", "memory")
    for number, case in enumerate(CASES):
        inputs, offsets = random_inputs(samples, case)
        steps = [both_passes(form, inputs, offsets) for form in FORMS.values()]
        expected = steps[0]()
        for rival in steps[1:]:
            torch.testing.assert_close(rival(), expected, rtol=1e-4, atol=1e-4)
        times = fastest(steps, seconds)
        words = (number, "--samples", samples)
        memory = [peak_of(__file__, form, *words) / 2**20 for form in FORMS]
        lengths = offsets.diff()
        print_row(
            ", ".join(map(str, case[:3])),
            f"{lengths.float().mean():.1f}, {lengths.max()}, {(lengths == 0).float().mean():.1%}",
            " / ".join(f"{1e3 * t:.1f}" for t in times),
            " / ".join(f"{m:.0f}" for m in memory),
            f"padded {times[1] / times[0]:.1f}x, nested {times[2] / times[0]:.1f}x",
            f"{memory[0] / memory[1]:.2f} of padded, {memory[0] / memory[2]:.2f} of nested",
        )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
    torch.set_num_threads(1)
    if arguments.peak:
        form, number = arguments.peak
        inputs, offsets = random_inputs(arguments.samples, CASES[int(number)])
        print(peak_bytes(both_passes(FORMS[form], inputs, offsets)))
        return
    compare(arguments.samples, arguments.seconds)


if __name__ == "__main__":
    main()
