"""Run by test_triton.py in a separate process: compiles the gate of experts for sm_90."""

import json

from compiling import resources

from headwise.kernels.expert_gate import triton as gpu

OTHER = {
    "present_mask": "*u8",
    "chosen": "*i64",
    "count_parts": "*i32",
    "scale": "fp32",
    "tiny": "fp32",
} | dict.fromkeys(("count", "experts"), "i32")


def used(kernel, experts, active, score):
    rows, padded = gpu._tile(experts)
    constants = {
        "ACTIVE": active,
        "CHOICES": gpu.triton.next_power_of_2(active),
        "SCORE": score,
        "NORMALISE": True,
        "BIAS": True,
        "MASK": True,
        "ROWS": rows,
        "EXPERTS": padded,
    }
    kinds = {
        name: "constexpr" if name.isupper() else OTHER.get(name, "*fp32")
        for name in kernel.arg_names
    }
    return resources(
        kernel,
        kinds,
        {name: value for name, value in constants.items() if name in kernel.arg_names},
    )


if __name__ == "__main__":
    table = {
        f"{kernel} {experts} {active} {score}": used(getattr(gpu, kernel), experts, active, score)
        for kernel in ("gate_kernel", "gate_backward_kernel")
        for experts, active in ((8, 2), (1024, 8))
        for score in (0, 1, 2)
    }
    print(json.dumps(table))
