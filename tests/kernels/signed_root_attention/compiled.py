"""Run by test_triton.py in a separate process: compiles softmax-free attention for sm_90."""

import json

import torch
from compiling import resources

from headwise.kernels.signed_root_attention import triton as device

TENSORS = {"a", "b", "x", "y", "out"}


def used(kernel, element, width, value_width, turned):
    """turned: channels first, as convolutions lay them out."""
    dtype = {"*fp32": torch.float32, "*bf16": torch.bfloat16, "*fp16": torch.float16}[element]
    out = width if kernel.__name__.startswith("slope") else value_width
    flags = device._flags(width, value_width, out, dtype)
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    kinds = {}
    for name in kernel.arg_names:
        if name in TENSORS:
            kinds[name] = element
        elif name.endswith("_row" if turned else "_column") and name != "o_row":
            kinds[name], flags[name] = "constexpr", 1
        else:
            kinds[name] = (
                "constexpr" if name.isupper() else "fp32" if name in ("eps", "soft") else "i32"
            )
    return resources(kernel, kinds, flags, warps, stages)


if __name__ == "__main__":
    # Kernels, sizes and types with different resources: products are alike in both half precisions
    # and from 64 channels on.
    products = [(16, 32), (64, 128)], ("*fp32", "*bf16")
    slopes = [(64, 128), (320, 640)], ("*fp32", "*bf16", "*fp16")
    table = {
        f"{kernel.__name__} {element} {width} {value_width} {turned}": used(
            kernel, element, width, value_width, turned
        )
        for kernel, (sizes, elements) in (
            (device.product_kernel, products),
            (device.slope_kernel, slopes),
        )
        for width, value_width in sizes
        for element in elements
        for turned in (False, True)
    }
    print(json.dumps(table))
