"""Calls of ragged attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.ragged_attention import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, queries, width, value_width, keys in (
        (SINGLE, 8, 16, 32, 512),
        (HALF, 8, 16, 32, 512),
        (SINGLE, 200, 64, 64, 512),
        (HALF, 200, 64, 64, 512),
        (HALF, 40, 128, 128, 512),
        (HALF, 40, 256, 256, 512),
        # Split over several programs.
        (SINGLE, 5, 64, 64, 100_000),
        (HALF, 5, 64, 64, 100_000),
        (HALF, 40, 256, 256, 100_000),
    ):
        query = torch.empty(4, queries, 4, width, dtype=dtype, device="meta")
        key = torch.empty(keys, 4, width, dtype=dtype, device="meta")
        value = torch.empty(keys, 4, value_width, dtype=dtype, device="meta")
        offsets = torch.empty(5, dtype=torch.int64, device="meta")

        def call(query=query, key=key, value=value, offsets=offsets):
            out, lse = gpu.forward(query, key, value, offsets, 0.1)
            gpu.backward(out, query, key, value, offsets, out, lse, 0.1)

        yield f"{dtype} {queries} queries, widths {width} and {value_width}, {keys} keys", call
