"""Calls of softmax pooling and drawing that are compiled; see `compiling`."""

import torch

from headwise.kernels.softmax_pool import triton as gpu


def calls():
    for dtype, packed in ((torch.float32, False), (torch.bfloat16, True)):
        lead = (4096,) if packed else (8, 512)
        values = torch.empty(*lead, 256, dtype=dtype, device="meta")
        scores = torch.empty(*lead, 5, dtype=dtype, device="meta")
        mask = None if packed else torch.empty(lead, dtype=torch.bool, device="meta")
        offsets = torch.empty(9, dtype=torch.int64, device="meta") if packed else None
        seed = torch.empty((), dtype=torch.int64, device="meta")

        def call(scores=scores, values=values, seed=seed, bags=(mask, offsets)):
            for of, per_head in ((values, False), (scores, True)):
                out, lse = gpu.pool(of, values, *bags, per_head)
                gpu.pool_backward(out, of, values, *bags, out, lse, per_head)
            gpu.draw(values, seed, *bags)

        yield f"{dtype} {'packed' if packed else 'masked'}", call
