"""Run by test_triton.py in a separate process: compiles ragged attention for sm_90."""

import json

import torch
from compiling import resources

from headwise.kernels.ragged_attention import fits
from headwise.kernels.ragged_attention import triton as device

KINDS = {"scale": "fp32", "offsets": "*i64", "lse": "*fp32"}
ELEMENTS = {"query", "key", "value", "grad", "out", "d_query", "d_key", "d_value"}


def used(kernel, element, queries, width, value_width):
    backward = kernel is device.backward_kernel
    dtype = {"*fp32": torch.float32, "*bf16": torch.bfloat16}[element]
    query, value = (
        torch.empty(1, queries, 1, width, dtype=dtype),
        torch.empty(1, 1, value_width, dtype=dtype),
    )
    if not fits(query, value):
        return None
    flags = device._flags(query, value, backward)
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    several = backward and queries > flags["QUERIES"]
    kinds = {}
    for name in kernel.arg_names:
        kinds[name] = (
            "constexpr"
            if name.isupper()
            else element
            if name in ELEMENTS
            else KINDS.get(name, "i32")
        )
    if several:
        kinds |= {"d_key": "*fp32", "d_value": "*fp32"}
    if backward:
        flags["ADD"] = several
    return resources(kernel, kinds, flags, warps, stages)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    sizes = [(8, 16, 32), (200, 64, 64), (40, 128, 128), (40, 256, 256)]
    table = {
        f"{name} {element} {' '.join(map(str, size))}": used(kernel, element, *size)
        for name, kernel in kernels.items()
        for size in sizes
        for element in ("*fp32", "*bf16")
    }
    print(json.dumps({name: numbers for name, numbers in table.items() if numbers}))
