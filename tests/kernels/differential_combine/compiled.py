"""Run by test_triton.py in a separate process: compiles the end of differential attention for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.differential_combine import triton as device

INTEGERS = {"count", "signal", "noise", "group", "width"}
FLOAT32 = {"lam", "weight", "rstd", "d_lam", "d_weight"}


def used(kernel, element, width, norm):
    rows, padded = device._tile(width)
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in INTEGERS:
            kinds[name] = "i32"
        elif name in {"eps", "scale"}:
            kinds[name] = "fp32"
        else:
            kinds[name] = "*fp32" if name in FLOAT32 else element
    return resources(kernel, kinds, {"NORM": norm, "ROWS": rows, "WIDTH": padded})


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {width} {norm}": used(kernel, element, width, norm)
        for name, kernel in kernels.items()
        for element, width, norm in (
            ("*fp32", 64, True),
            ("*bf16", 256, True),
            ("*bf16", 128, False),
        )
    }
    print(json.dumps(table))
