"""Calls of the read-outs of attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.attention_stats import triton as gpu
from headwise.kernels.attention_stats.cpu import LARGEST_TOP

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, width, causal in (
        (SINGLE, 64, True),
        (HALF, 64, False),
        (SINGLE, 128, False),
        (HALF, 128, True),
        (HALF, 256, True),
    ):
        x = torch.empty(2, 4, 192, width, dtype=dtype, device="meta")
        mask = torch.empty(2, 1, 1, 192, dtype=torch.bool, device="meta")
        keys, weights = (torch.empty(2, n, 192, device="meta") for n in (4, 1))
        weights = weights[:, 0]

        def call(x=x, mask=mask, keys=keys, weights=weights, causal=causal):
            options = (0.1, causal, True, True, LARGEST_TOP)
            gpu.stats(x, x, x, mask, keys, weights, *options)

        yield f"{dtype} width {width}{' causal' * causal}", call
