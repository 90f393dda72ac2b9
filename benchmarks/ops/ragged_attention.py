"""A few queries per sample to ragged keys, compared with padding and with torch's nested tensors:
time and peak memory.

    python benchmarks/ops/ragged_attention.py [--seconds 0.5]

Forward and backward pass, float32, one thread, 4,096 samples. Lengths are generated: log-normal,
rounded down and cut at the longest, so that most samples are short, some empty and few long.
Padded: keys and values copied to (samples, longest), then `scaled_dot_product_attention` with a
boolean mask. The copy is one indexed write, because the backward pass of
`torch.nn.utils.rnn.pad_sequence` copies the whole gradient once per sample. Nested: the jagged
layout, no padding. All forms must agree in values and
gradients. Measured as `ratios.py` says; memory is everything but the inputs, gradients included.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, both_passes
from headwise.kernels.ragged_attention import ragged_attention

SAMPLES = 4096
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


def cases(size: Size) -> Iterator[Case]:
    """All forms, checked."""
    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
    for case in CASES[:1] if size == "tiny" else CASES:
        inputs, offsets = random_inputs(16 if size == "tiny" else SAMPLES, case)
        ours, *others = (both_passes(form, inputs, offsets) for form in FORMS.values())
        expected = ours()
        for other in others:
            torch.testing.assert_close(other(), expected, rtol=1e-4, atol=1e-4)
        queries, heads, width = case[:3]
        mean, longest = offsets.diff().float().mean(), offsets.diff().max()
        name = f"{queries} queries, {heads} heads of {width}, {mean:.1f} keys, at most {longest}"
        yield Case(name, ours, dict(zip(list(FORMS)[1:], others)))


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/ragged_attention"])
