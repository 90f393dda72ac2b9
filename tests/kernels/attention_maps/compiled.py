"""Calls of attention with maps of its heads that are compiled; see `compiling`."""

import torch

from headwise.kernels.attention_maps import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    heads = torch.empty(2, dtype=torch.int64, device="meta")
    for dtype, width in ((SINGLE, 64), (SINGLE, 128), (HALF, 64), (HALF, 128), (HALF, 256)):
        x = torch.empty(2, 4, 192, width, dtype=dtype, device="meta")
        mask = torch.empty(2, 1, 1, 192, dtype=torch.bool, device="meta")
        yield (
            f"{dtype} width {width} masked",
            lambda x=x, mask=mask: gpu.attend(x, x, x, heads, False, mask, 0.1),
        )
