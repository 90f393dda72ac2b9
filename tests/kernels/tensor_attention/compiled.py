"""Calls of third-order attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.tensor_attention import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, width in ((HALF, 64), (HALF, 128), (SINGLE, 64), (SINGLE, 128)):
        x = torch.empty(2, 4, 128, width, dtype=dtype, device="meta")
        mask = torch.empty(2, 128, dtype=torch.bool, device="meta")
        inputs = (x, x, x, x, x, mask, mask)

        def call(inputs=inputs):
            out, lse = gpu.forward(*inputs, 0.1)
            if out.dtype == HALF:  # the backward pass in float32 is the plain form's
                gpu.backward(out, *inputs, out, lse, 0.1)

        yield f"{dtype} width {width}", call
