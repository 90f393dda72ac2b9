"""Run by test_triton.py in a separate process: compiles softmax pooling and drawing for sm_90."""

import json

from compiling import resources

from headwise.kernels.softmax_pool import triton as gpu

INTEGERS = {"rows", "width", "heads", "bags", "splits"}
FLOAT32 = {"out_top", "out_total", "out_sum", "out_best", "lse", "delta"}
FLAGS = {"PACKED": 1, "MASKED": 1, "OWN": 0, "ROWS": gpu.ROWS, "WIDTH": gpu.WIDTH}


def signature(names, element):
    kinds = {}
    for name in names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in INTEGERS:
            kinds[name] = "i32"
        elif name in {"offsets", "out_row", "seed"}:
            kinds[name] = "*i64"
        elif name == "mask":
            kinds[name] = "*u8"
        else:
            kinds[name] = "*fp32" if name in FLOAT32 else element
    return kinds


def used(kernel, element, packed):
    names = kernel.arg_names
    flags = FLAGS | gpu.PER_HEAD if kernel.__name__.startswith("head_") else FLAGS
    constants = {name: flags[name] for name in names if name.isupper()}
    constants |= {"PACKED": packed, "MASKED": not packed}
    return resources(kernel, signature(names, element), constants)


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(gpu).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {'packed' if packed else 'masked'}": used(kernel, element, packed)
        for name, kernel in kernels.items()
        for element, packed in (("*fp32", False), ("*bf16", True))
    }
    print(json.dumps(table))
