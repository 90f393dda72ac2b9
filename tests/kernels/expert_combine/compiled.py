"""Calls of the sum over a token's experts that are compiled; see `compiling`."""

import torch

from headwise.kernels.expert_combine import triton as gpu


def calls():
    for dtype in (torch.float32, torch.bfloat16):
        y = torch.empty(512, 256, dtype=dtype, device="meta")
        weights = torch.empty(256, 2, device="meta")
        place = torch.empty(256, 2, dtype=torch.int64, device="meta")

        def call(y=y, weights=weights, place=place):
            gpu.backward(gpu.forward(y, weights, place), y, weights, place)

        yield f"{dtype}", call
