"""Run by test_triton.py in a separate process: compiles the read-outs of attention for sm_90."""

import json

from compiling import resources

from headwise.kernels.attention_stats import triton as device
from headwise.kernels.attention_stats.cpu import LARGEST_TOP

POINTERS = {
    "mask": "*u8",
    "numbers": "*fp32",
    "lse": "*fp32",
    "weights": "*fp32",
    "out_place": "*i32",
}
STEPS = {"mask_batch", "mask_head"}


def used(kernel, element, width, causal):
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in {"query", "key", "value"} or (name == "out" and kernel is device.read_kernel):
            kinds[name] = element
        elif name == "scale":
            kinds[name] = "fp32"
        elif name in POINTERS or name.startswith("out"):
            kinds[name] = POINTERS.get(name, "*fp32")
        else:
            kinds[name] = "i64" if name in STEPS else "i32"
    flags = device.tiles(width, element == "*fp32")
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    flags |= {
        "VALUE": 1,
        "NUMBERS": 1,
        "ENTROPY": 1,
        "WEIGHTED": 1,
        "MASKED": 1,
        "CAUSAL": causal,
        "TOP": LARGEST_TOP,
    }
    flags |= {"WIDTH": width, "VALUE_WIDTH": width}
    constants = {name: flags[name] for name in kernel.arg_names if name.isupper()}
    return resources(kernel, kinds, constants, warps, stages)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} width {width}": used(kernel, element, width, causal)
        for name, kernel in kernels.items()
        for element, width, causal in (
            ("*fp32", 64, 1),
            ("*bf16", 64, 0),
            ("*fp32", 128, 0),
            ("*bf16", 128, 1),
            ("*bf16", 256, 1),
        )
    }
    print(json.dumps(table))
