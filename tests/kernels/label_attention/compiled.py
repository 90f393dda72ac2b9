"""Calls of attention by labels that are compiled; see `compiling`."""

import torch

from headwise.kernels.label_attention import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, width, labels, masked in (
        (SINGLE, 96, 145, True),
        (SINGLE, 16, 20, False),
        (HALF, 64, 1000, True),
        (HALF, 384, 145, True),
        (HALF, 100, 10, False),
    ):
        h = torch.empty(16, 208, width, dtype=dtype, device="meta")
        query = torch.empty(labels, width, dtype=dtype, device="meta")
        mask = torch.empty(16, 208, dtype=torch.bool, device="meta") if masked else None

        def call(h=h, query=query, mask=mask):
            pooled, lse = gpu.forward(h, query, query, mask, 0.1)
            gpu.backward(pooled, h, query, query, mask, pooled, lse, 0.1)

        yield f"{dtype} width {width} labels {labels}{' mask' * masked}", call
