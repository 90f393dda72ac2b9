"""Calls of the end of differential attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.differential_combine import triton as gpu


def calls():
    for dtype, width, norm in (
        (torch.float32, 64, True),
        (torch.bfloat16, 256, True),
        (torch.bfloat16, 128, False),
    ):
        rows = torch.empty(512, 12, width, dtype=dtype, device="meta")
        lam = torch.empty((), device="meta")
        weight = torch.empty(width, device="meta") if norm else None

        def call(rows=rows, lam=lam, weight=weight):
            out, rstd = gpu.combine(rows, lam, weight, 8, 1e-5, 0.5)
            gpu.combine_backward(out, rows, lam, weight, rstd, 8, 0.5)

        yield f"{dtype} width {width}{' norm' * norm}", call
