"""Run by test_triton.py in a separate process: compiles pair-wise cross-attention for sm_90."""

import json

import torch
from compiling import resources

from headwise.kernels.pair_attention import fits
from headwise.kernels.pair_attention import triton as device

KINDS = {
    "scale": "fp32",
    "partner": "*i64",
    "order": "*i64",
    "first": "*i64",
    "lse": "*fp32",
    "delta": "*fp32",
}
ELEMENTS = {"query", "key", "value", "grad", "out", "d_query", "d_key", "d_value"}


def used(kernel, element, width, value_width):
    dtype = {"*fp32": torch.float32, "*bf16": torch.bfloat16}[element]
    query, value = (
        torch.empty(1, 1, 1, width, dtype=dtype),
        torch.empty(1, 1, 1, value_width, dtype=dtype),
    )
    if not fits(query, value):
        return None
    flags = device._flags(query, value, "backward" in kernel.__name__)
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    kinds = {}
    for name in kernel.arg_names:
        kinds[name] = (
            "constexpr"
            if name.isupper()
            else element
            if name in ELEMENTS
            else KINDS.get(name, "i32")
        )
    return resources(kernel, kinds, flags, warps, stages)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {width} {value_width}": used(kernel, element, width, value_width)
        for name, kernel in kernels.items()
        for width, value_width in [(16, 32), (128, 128), (256, 256)]
        for element in ("*fp32", "*bf16")
    }
    print(json.dumps({name: numbers for name, numbers in table.items() if numbers}))
