"""Calls of time warping and median filter that are compiled; see `compiling`."""

import torch

from headwise.kernels.time_warping import triton as gpu


def calls():
    for rows in (16, 512, 1024):
        cost = torch.empty(4, rows, 160, device="meta")
        sizes = torch.empty(4, dtype=torch.int64, device="meta")
        yield f"{rows} rows", lambda cost=cost, sizes=sizes: gpu.time_warp(cost, sizes, sizes)
    x = torch.empty(4, 32, 160, device="meta")
    sizes = torch.empty(4, dtype=torch.int64, device="meta")
    for width in (3, 7, 9):
        yield f"median of {width}", lambda width=width: gpu.median_filter(x, width, sizes)
