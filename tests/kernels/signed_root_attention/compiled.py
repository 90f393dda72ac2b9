"""Calls of softmax-free attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.signed_root_attention import triton as gpu

HALF, SINGLE, FLOAT16 = torch.bfloat16, torch.float32, torch.float16


def calls():
    # Sizes and types with different resources: products are alike in both half precisions and from
    # 64 channels on. Turned: channels first, as convolutions lay them out.
    for dtype, width, value_width, turned in (
        (SINGLE, 16, 32, False),
        (HALF, 16, 32, True),
        (SINGLE, 64, 128, True),
        (HALF, 64, 128, False),
        (FLOAT16, 64, 128, True),
        (HALF, 320, 640, False),
        (SINGLE, 320, 640, True),
    ):
        query, value = (
            torch.empty(2, n, 1024, dtype=dtype, device="meta").mT
            if turned
            else torch.empty(2, 1024, n, dtype=dtype, device="meta")
            for n in (width, value_width)
        )

        def call(query=query, value=value):
            gpu.backward(gpu.forward(query, query, value, 1e-4), query, query, value, 1e-4)

        yield f"{dtype} widths {width} and {value_width}{' turned' * turned}", call
