"""Run by test_triton.py in a separate process: compiles gathered heads for sm_90."""

import json

import torch
from compiling import resources

from headwise.kernels.gathered_heads import triton as device

KINDS = {"scale": "fp32", "mask": "*u8", "order": "*i32", "counts": "*i32"}
FLOAT32 = {"gate", "lse", "delta", "d_key", "d_value"}
ELEMENTS = {"query", "key", "value", "grad", "out", "d_query"}


def used(kernel, element, width, masked, causal):
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in FLOAT32:
            kinds[name] = "*fp32"
        else:
            kinds[name] = element if name in ELEMENTS else KINDS.get(name, "i32")
    query = torch.empty(1, width, dtype={"*fp32": torch.float32, "*bf16": torch.bfloat16}[element])
    flags = device._flags(query, masked, causal, "backward" in kernel.__name__)
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    return resources(kernel, kinds, flags, warps, stages)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    cases = [
        ("*fp32", 64, True, False),
        ("*bf16", 64, False, True),
        ("*bf16", 128, True, True),
        ("*fp32", 128, False, False),
    ]
    table = {
        f"{name} {' '.join(map(str, case))}": used(kernel, *case)
        for name, kernel in kernels.items()
        for case in cases
    }
    print(json.dumps(table))
