"""Calls of pair-wise cross-attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.pair_attention import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, width, value_width in (
        (SINGLE, 16, 32),
        (HALF, 16, 32),
        (SINGLE, 128, 128),
        (HALF, 128, 128),
        (HALF, 256, 256),
    ):
        query = torch.empty(4, 208, 4, width, dtype=dtype, device="meta").transpose(1, 2)
        value = torch.empty(4, 208, 4, value_width, dtype=dtype, device="meta").transpose(1, 2)
        partner = torch.empty(4, dtype=torch.int64, device="meta")

        def call(query=query, value=value, partner=partner):
            out, lse = gpu.forward(query, query, value, partner, 0.1)
            gpu.backward(out, query, query, value, partner, out, lse, 0.1)

        yield f"{dtype} widths {width} and {value_width}", call
