"""Run by test_triton.py in a separate process: compiles the linear layers of many experts for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.grouped_linear import triton as gpu

INTEGERS = {"tokens": "*i64", "expert_of": "*i32", "first_of": "*i32", "offsets": "*i32"}
ELEMENTS = {"x", "weight", "bias", "hidden", "out", "grad", "d_weight", "d_bias"}


def used(kernel, element, flags):
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        else:
            kinds[name] = element if name in ELEMENTS else INTEGERS.get(name, "i32")
    constants = {
        name: value for name, value in (flags | gpu.TILE).items() if name in kernel.arg_names
    }
    return resources(kernel, kinds, constants)


if __name__ == "__main__":
    flags = ("GATHER", "ACTIVATION", "GATED", "BIAS", "SLOPE")
    cases = {
        "gather": (True, 0, False, True, False),
        "gelu": (False, 2, False, True, False),
        "swiglu": (False, 4, True, False, False),
        "slope of gelu": (False, 2, False, False, True),
        "slope of swiglu": (False, 4, True, False, True),
    }
    table = {}
    for element in ("*fp32", "*bf16"):
        for name, values in cases.items():
            # In half precision the widest forms alone.
            if element == "*bf16" and "swiglu" not in name:
                continue
            constants = dict(zip(flags, values))
            table[f"rows {name} {element}"] = used(gpu.rows_kernel, element, constants)
            if not constants["SLOPE"]:
                table[f"weight {name} {element}"] = used(gpu.weight_kernel, element, constants)
    print(json.dumps(table))
