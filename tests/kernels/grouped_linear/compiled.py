"""Run by test_triton.py in a process of its own: compiles the linear layers of many experts for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.grouped_linear import triton as device

INTEGERS = {"tokens": "*i64", "expert_of": "*i32", "first_of": "*i32", "offsets": "*i32"}
ELEMENTS = {"x", "weight", "bias", "hidden", "out", "grad", "d_weight", "d_bias"}
SIZES = {"ROWS": device.ROWS, "COLUMNS": device.COLUMNS, "STEP": device.STEP}


def used(kernel, element, flags):
    kinds = {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        else:
            kinds[name] = element if name in ELEMENTS else INTEGERS.get(name, "i32")
    constants = {name: value for name, value in (flags | SIZES).items() if name in kernel.arg_names}
    return resources(kernel, kinds, constants)


if __name__ == "__main__":
    cases = {
        "gather": {"GATHER": True, "ACTIVATION": 0, "GATED": False, "BIAS": True, "SLOPE": False},
        "gelu": {"GATHER": False, "ACTIVATION": 2, "GATED": False, "BIAS": True, "SLOPE": False},
        "swiglu": {"GATHER": False, "ACTIVATION": 4, "GATED": True, "BIAS": False, "SLOPE": False},
        "slope of gelu": {
            "GATHER": False,
            "ACTIVATION": 2,
            "GATED": False,
            "BIAS": False,
            "SLOPE": True,
        },
        "slope of swiglu": {
            "GATHER": False,
            "ACTIVATION": 4,
            "GATED": True,
            "BIAS": False,
            "SLOPE": True,
        },
    }
    table = {}
    for element in ("*fp32", "*bf16"):
        for name, flags in cases.items():
            table[f"rows {name} {element}"] = used(device.rows_kernel, element, flags)
            if not flags["SLOPE"]:
                table[f"weight {name} {element}"] = used(device.weight_kernel, element, flags)
    print(json.dumps(table))
