"""Run by test_triton.py in a separate process: attention to caches through Triton's interpreter."""

# isort: off
from interpreting import compare, in_any_layout, poison  # first
# isort: on

import random

import torch

from headwise.kernels.ragged_decode import naive
from headwise.kernels.ragged_decode import triton as gpu


def limits(rows, caches, queries):
    """Positions of rows and of queries, spans and sinks."""
    return (
        torch.randint(0, 60, (rows,)),
        torch.randint(0, 60, (caches, queries)),
        torch.randint(1, 30, (caches,)),
        torch.randint(0, 5, (caches,)),
    )


def case(name, lengths, queries, width, value_width, dtype=torch.float32, room=0, limited=0):
    torch.manual_seed(len(name))
    caches, count = len(lengths), torch.tensor(lengths, dtype=torch.int64)
    starts = (count + room).cumsum(0) - count
    rows = int((count + room).sum()) + 1
    query, key = torch.randn(caches, queries, width), torch.randn(rows, width)
    query, key = query.to(dtype), key.to(dtype)
    value = torch.randn(rows, value_width).to(dtype)
    about = limits(rows, caches, queries)
    about = (*about[:limited], *(None,) * (4 - limited))
    inputs = (query, key, value, starts, count, *about, 0.4)
    expected = naive.decode_attention(*inputs)
    # What lies between the caches is not read.
    owned = torch.zeros(rows, dtype=torch.bool)
    for start, length in zip(starts.tolist(), lengths):
        owned[start : start + length] = True
    bare = [x.masked_fill(~owned[:, None], torch.nan) for x in (key, value)]
    tolerance = 2e-5 if dtype == torch.float32 else 4e-3
    compare(name, gpu.forward(query, *bare, *inputs[3:]), expected, tolerance)
    print("ok", name)


def laid_out():
    torch.manual_seed(0)
    starts, lengths = torch.tensor([2, 9, 1]), torch.tensor([7, 30, 0])
    inputs = torch.randn(3, 3, 4), torch.randn(40, 4), torch.randn(40, 4), starts, lengths
    in_any_layout("limited", gpu.forward, *inputs, *limits(40, 3, 3), 0.4)
    both = torch.stack(inputs[1:3], 1)  # keys beside their values
    got = gpu.forward(inputs[0], *both.unbind(1), *inputs[3:], None, None, None, None, 0.4)
    compare("beside", got, naive.decode_attention(*inputs, None, None, None, None, 0.4), 1e-6)


def shared_rows():
    """Two caches share rows, so that they hold more keys than there are rows."""
    torch.manual_seed(1)
    starts, lengths = torch.tensor([0, 0, 10, 3]), torch.tensor([64, 64, 50, 60])
    inputs = torch.randn(4, 2, 8), torch.randn(64, 8), torch.randn(64, 8), starts, lengths
    inputs = *inputs, None, None, None, None, 0.4
    compare("shared", gpu.forward(*inputs), naive.decode_attention(*inputs), 2e-5)
    print("ok shared rows")


def cases():
    laid_out()
    shared_rows()
    case("a window and a full cache", [20, 200, 20], 3, 16, 16)
    case("room, short and empty", [3, 0, 1, 40, 0], 2, 16, 16, room=5)
    case("odd", [5, 33, 32, 0], 3, 5, 7, room=2)
    case("positions", [5, 33, 70, 0], 6, 8, 8, limited=2)
    case("windows", [5, 33, 70, 1], 6, 8, 20, room=1, limited=4)
    case("many queries", [20, 70], 75, 16, 12, limited=4)
    case("wide", [18, 3], 4, 130, 40, dtype=torch.float16)
    case("half", [34, 2, 0, 90], 8, 32, 16, dtype=torch.float16, limited=2)
    case("no keys", [0, 0, 0], 2, 4, 4, room=100)
    case("no caches", [], 2, 4, 4)


if __name__ == "__main__":
    poison()
    cases()  # as many programs as caches
    draw = random.Random(1)
    gpu.LEAST_KEYS, gpu.PROGRAMS = 8, 12
    cases()  # shares of caches
    for number in range(3):
        gpu.LEAST_KEYS, gpu.PROGRAMS = ((16, 5), (1, 40), (3, 9))[number]
        shared_rows()
        lengths = [draw.randint(0, 90) for _ in range(4)]
        sizes = (draw.randint(1, most) for most in (20, 40, 40))
        case(f"drawn {number}", lengths, *sizes, room=number, limited=2 * number)
