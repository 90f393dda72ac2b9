"""A few queries a sample to ragged keys: ours beside padding and beside torch's nested tensors,
time and peak memory.

    python benchmarks/ragged_attention.py [--samples 4096] [--seconds 1]

Forward and backward pass, float32, one thread. Lengths are generated: log-normal, rounded down and
cut at the longest, so that most samples are short, some empty and few long. Padded: keys and values
copied to (samples, longest), then `scaled_dot_product_attention` with a boolean mask. The copy is
one indexed write, because the backward pass of `torch.nn.utils.rnn.pad_sequence` copies the whole
gradient once a sample. Nested: the jagged layout, no padding. All forms must agree in values and
gradients before anything is timed; they are called in turn and the fastest call counts. Peak memory
is the growth of a process of its own over one call: all but the inputs, gradients included."""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import fastest, memory_environment, peak_bytes
from torch import Tensor

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
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    return out.transpose(1, 2).values().view(query.shape)


FORMS: dict[str, Form] = {"ours": ragged_attention, "padded": padded, "nested": nested}


def drawn(samples: int, case: tuple) -> tuple[list[Tensor], Tensor]:
    """Query, key and value with gradients, and offsets."""
    queries, heads, width, mean, deviation, longest = case
    torch.manual_seed(0)
    lengths = torch.empty(samples).log_normal_(mean, deviation).long().clamp_(max=longest)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    total = int(offsets[-1])
    shapes = (samples, queries, heads, width), (total, heads, width), (total, heads, width)
    return [torch.randn(shape, requires_grad=True) for shape in shapes], offsets


def step(form: Form, given: list[Tensor], offsets: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward pass: the output and the gradients."""

    def call() -> tuple[Tensor, ...]:
        out = form(*given, offsets)
        # A gradient that differs from place to place and keeps nothing beside it alive.
        return out.detach(), *torch.autograd.grad(out, given, out.detach())

    return call


def peak(form: str, case: int, samples: int) -> float:
    """MiB that a step needs, in a process of its own: what one form leaves behind hides what
    another needs.
    """
    words = [sys.executable, __file__, "--samples", str(samples), "--peak", form, str(case)]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | memory_environment(), check=True
    )
    return float(done.stdout) / 2**20


def main(samples: int, seconds: float) -> None:
    print(
        "| queries, heads, width | mean, longest, empty | ms ours / padded / nested | MiB | faster than | memory |"
    )
    print("|---|---|---|---|---|---|")
    for number, case in enumerate(CASES):
        given, offsets = drawn(samples, case)
        steps = [step(form, given, offsets) for form in FORMS.values()]
        expected = steps[0]()
        for other in steps[1:]:
            torch.testing.assert_close(other(), expected, rtol=1e-4, atol=1e-4)
        times, memory = fastest(steps, seconds), [peak(form, number, samples) for form in FORMS]
        lengths = offsets.diff()
        cells = [
            ", ".join(map(str, case[:3])),
            f"{lengths.float().mean():.1f}, {lengths.max()}, {(lengths == 0).float().mean():.1%}",
            " / ".join(f"{1e3 * t:.1f}" for t in times),
            " / ".join(f"{m:.0f}" for m in memory),
            f"padded {times[1] / times[0]:.1f}x, nested {times[2] / times[0]:.1f}x",
            f"{memory[0] / memory[1]:.2f} of padded, {memory[0] / memory[2]:.2f} of nested",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    o = parser.parse_args()
    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
    torch.set_num_threads(1)
    if o.peak:
        print(peak_bytes(step(FORMS[o.peak[0]], *drawn(o.samples, CASES[int(o.peak[1])]))))
    else:
        main(o.samples, o.seconds)
