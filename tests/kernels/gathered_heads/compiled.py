"""Calls of gathered heads that are compiled; see `compiling`."""

import torch

from headwise.kernels.gathered_heads import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, width, masked, causal in (
        (SINGLE, 64, True, False),
        (HALF, 64, False, True),
        (HALF, 128, True, True),
        (SINGLE, 128, False, False),
    ):
        query = torch.empty(2, 256, 4, width, dtype=dtype, device="meta").transpose(1, 2)
        key = torch.empty(2, 256, 2, width, dtype=dtype, device="meta").transpose(1, 2)
        gate = torch.empty(2, 4, 256, device="meta")
        mask = torch.empty(2, 1, 1, 256, dtype=torch.bool, device="meta") if masked else None

        def call(query=query, key=key, gate=gate, mask=mask, causal=causal):
            out, lse = gpu.forward(query, key, key, gate, mask, causal, 0.1)
            gpu.backward(out, query, key, key, gate, mask, out, lse, causal, 0.1)

        yield f"{dtype} width {width}{' masked' * masked}{' causal' * causal}", call
