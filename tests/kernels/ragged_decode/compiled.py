"""Calls of attention to caches that are compiled; see `compiling`."""

import torch

from headwise.kernels.ragged_decode import triton as gpu

HALF, SINGLE = torch.bfloat16, torch.float32


def calls():
    for dtype, caches, queries, width, value_width, limited in (
        (SINGLE, 3, 3, 64, 64, 0),
        (HALF, 3, 3, 64, 64, 0),
        (SINGLE, 3, 12, 64, 64, 4),
        (HALF, 3, 12, 64, 64, 4),
        (SINGLE, 64, 4, 128, 128, 0),
        (HALF, 64, 4, 128, 128, 2),
        (HALF, 64, 16, 128, 128, 4),
        (SINGLE, 8, 40, 128, 128, 4),
        (HALF, 8, 4, 256, 256, 0),
        (HALF, 8, 40, 256, 256, 4),
        (HALF, 8, 4, 96, 64, 2),
        # As many caches as programs.
        (HALF, 1024, 4, 128, 128, 0),
        (SINGLE, 1024, 16, 64, 64, 4),
    ):
        rows = 4096 * caches
        query = torch.empty(caches, queries, width, dtype=dtype, device="meta")
        key = torch.empty(rows, width, dtype=dtype, device="meta")
        value = torch.empty(rows, value_width, dtype=dtype, device="meta")
        shapes = (caches,), (caches,), (rows,), (caches, queries), (caches,), (caches,)
        whole = [torch.empty(shape, dtype=torch.int64, device="meta") for shape in shapes]
        about = (*whole[: 2 + limited], *(None,) * (4 - limited))

        def call(query=query, key=key, value=value, about=about):
            gpu.forward(query, key, value, *about, 0.1)

        yield f"{dtype} {caches} caches, {queries} queries, {width} wide, limits {limited}", call
