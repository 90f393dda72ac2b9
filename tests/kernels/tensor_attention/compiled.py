"""Run by test_triton.py in a separate process: compiles third-order attention for sm_90."""

import json

import torch
from compiling import resources

from headwise.kernels.tensor_attention import triton as device

INTEGERS = {"queries", "first", "second", "heads", "width", "size"}


def signature(names, element):
    kinds = {}
    for name in names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in INTEGERS:
            kinds[name] = "i32"
        elif name == "scale":
            kinds[name] = "fp32"
        elif name.startswith("mask"):
            kinds[name] = "*u8"
        else:
            kinds[name] = "*fp32" if name in {"lse", "delta"} else element
    return kinds


def used(kernel, element, width):
    dtype = torch.float32 if element == "*fp32" else torch.bfloat16
    constants = {
        "MASKED1": True,
        "MASKED2": True,
        **device._tiles(width, width, dtype, "backward" in kernel.__name__),
    }
    return resources(
        kernel, signature(kernel.arg_names, element), constants, warps=constants.pop("num_warps")
    )


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {width}": used(kernel, element, width)
        for name, kernel in kernels.items()
        for element in ("*bf16", "*fp32")
        for width in (64, 128)
        if element == "*bf16"
        or "backward" not in name  # the backward pass in float32 is the plain form's
    }
    print(json.dumps(table))
