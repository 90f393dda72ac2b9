"""Calls of the neighbourhood operators that are compiled; see `compiling`."""

import torch

from headwise.kernels.neighbourhood import triton as gpu


def calls():
    layout = (16, 16, 7)
    for dtype, clamp in ((torch.float32, True), (torch.bfloat16, True), (torch.float32, False)):
        value = torch.empty(2, 4, 256, 64, dtype=dtype, device="meta")
        logits = torch.empty(2, 4, 256, 49, dtype=dtype, device="meta")
        mask = torch.empty(2, 256, dtype=torch.bool, device="meta") if clamp else None

        def call(value=value, logits=logits, mask=mask, clamp=clamp):
            out, lse = gpu.read(logits, value, mask, *layout, clamp)
            gpu.read_backward(out, lse, logits, value, mask, out, lse, *layout, clamp)
            if not clamp:
                gpu.products(value, value, *layout, clamp)
                gpu.weighted(logits, value, *layout, clamp)
                gpu.scattered(logits, value, *layout, clamp)

        yield f"{dtype}{' clamped, masked' * clamp}", call
