"""Run by test_triton.py in a separate process: compiles the neighbourhood kernels for sm_90."""

import json

from compiling import resources

from headwise.kernels.neighbourhood import triton as device

INTEGERS = {"heads", "height", "width", "window", "features"}
FLOAT32 = {"lse", "delta", "out_lse"}


def used(kernel, element, flag):
    flags = {
        "CELLS": device.CELLS,
        "WIDTH": 64,
        "SOFTMAX": flag,
        "GRADIENT": flag,
        "CLAMP": flag,
        "MASKED": flag,
    }
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in INTEGERS:
            kinds[name] = "i32"
        elif name == "mask":
            kinds[name] = "*u8" if flag else element
        else:
            kinds[name] = "*fp32" if name in FLOAT32 and flag else element
    constants = {name: flags[name] for name in kernel.arg_names if name.isupper()}
    return resources(kernel, kinds, constants, warps=device.WARPS)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {flag}": used(kernel, element, flag)
        for name, kernel in kernels.items()
        for element, flag in (("*fp32", True), ("*bf16", True), ("*fp32", False))
    }
    print(json.dumps(table))
