"""Run by test_triton.py in a separate process: compiles the sum over a token's experts for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.expert_combine import triton as gpu

KNOWN = {"weights": "*fp32", "d_weights": "*fp32", "place": "*i64"} | dict.fromkeys(
    ("count", "active", "width"), "i32"
)


def used(kernel, element):
    kinds = {
        name: "constexpr" if name.isupper() else KNOWN.get(name, element)
        for name in kernel.arg_names
    }
    return resources(kernel, kinds, {"ROWS": gpu.ROWS, "COLUMNS": gpu.COLUMNS})


if __name__ == "__main__":
    table = {
        f"{kernel} {element}": used(getattr(gpu, kernel), element)
        for kernel in ("combine_kernel", "combine_backward_kernel")
        for element in ("*fp32", "*bf16")
    }
    print(json.dumps(table))
