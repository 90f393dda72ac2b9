"""Calls of softmax-free attention that are compiled; see `compiling`."""

import torch

from headwise.kernels.signed_root_attention import triton as gpu

HALF, SINGLE, FLOAT16 = torch.bfloat16, torch.float32, torch.float16


def calls():
    # Sizes and types with different resources: products are alike in both half precisions and from
    # 64 channels on. Turned: channels first, as convolutions lay them out. Maps of 8,192 tokens are
    # formed by tiles, those of 1,024 in memory.
    for dtype, width, value_width, turned, tokens in (
        (SINGLE, 16, 32, False, 8192),
        (HALF, 16, 32, True, 8192),
        (SINGLE, 64, 128, True, 8192),
        (HALF, 64, 128, False, 8192),
        (FLOAT16, 64, 128, True, 8192),
        (HALF, 320, 640, False, 8192),
        (SINGLE, 320, 640, True, 8192),
        (HALF, 320, 640, False, 1024),
        (SINGLE, 320, 640, False, 1024),
    ):
        query, value = (
            torch.empty(2, n, tokens, dtype=dtype, device="meta").mT
            if turned
            else torch.empty(2, tokens, n, dtype=dtype, device="meta")
            for n in (width, value_width)
        )

        def call(query=query, value=value):
            gpu.backward(gpu.forward(query, query, value, 1e-4), query, query, value, 1e-4)

        yield f"{dtype} widths {width} and {value_width}{' turned' * turned}, {tokens} tokens", call
