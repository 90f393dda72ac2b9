"""Calls of the scores of gated attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.gated_scores import triton as gpu


def calls():
    for dtype in (torch.float32, torch.bfloat16):
        sizes = (512, 256), (256, 256), (256,), (5, 128), (5,)
        inputs = [torch.empty(size, dtype=dtype, device="meta") for size in sizes]
        yield (f"{dtype}", lambda inputs=inputs: gpu.backward(gpu.forward(*inputs), *inputs))
