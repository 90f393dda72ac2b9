"""Calls of the linear layers of many experts that are compiled; see `compiling`."""

import torch

from headwise.kernels.grouped_linear import triton as gpu


def calls():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(256, 128, dtype=dtype, device="meta")
        offsets = torch.empty(9, dtype=torch.int64, device="meta")
        tokens = torch.empty(512, dtype=torch.int64, device="meta")
        place = torch.empty(256, 2, dtype=torch.int64, device="meta")
        for activation, gated, gather in (
            ("none", False, True),
            ("gelu", False, False),
            ("silu", True, False),
        ):
            # In half precision the widest forms alone.
            if dtype == torch.bfloat16 and not gated:
                continue
            width = 128 // (2 if gated else 1)
            weight = torch.empty(8, 256, width, dtype=dtype, device="meta")
            bias = torch.empty(8, 256, dtype=dtype, device="meta")
            where = (offsets, tokens, place) if gather else (offsets, None, None)

            def call(x=x, weight=weight, bias=bias, where=where, last=(activation, gated)):
                out = gpu.forward(x, weight, bias, *where, *last)
                gpu.backward(out, x, weight, bias, *where, *last)

            yield f"{dtype} {activation}{' gated' * gated}{' gather' * gather}", call
