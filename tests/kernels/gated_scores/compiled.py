"""Run by test_triton.py in a separate process: compiles the scores of gated attention for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.gated_scores import triton as gpu

SIZES = ("rows", "width", "inner", "branches")


def used(kernel, element):
    kinds = dict.fromkeys(kernel.arg_names, element)
    kinds |= dict.fromkeys(SIZES, "i32") | dict.fromkeys(gpu.TILE, "constexpr")
    kinds = {name: "*" + kind if kind == element else kind for name, kind in kinds.items()}
    return resources(kernel, kinds, gpu.TILE)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(gpu).items() if name.endswith("_kernel")}
    table = {
        f"{name} {kind}": used(kernel, kind)
        for name, kernel in kernels.items()
        for kind in ("fp32", "bf16")
    }
    print(json.dumps(table))
