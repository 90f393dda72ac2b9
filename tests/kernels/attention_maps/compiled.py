"""Run by test_triton.py in a separate process: compiles attention with maps of its heads for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.attention_maps import triton as device

POINTERS = {"mask": "*u8", "lse": "*fp32", "out": "*fp32", "chosen": "*i64"}
STEPS = {"mask_batch", "mask_head"}


def used(element, width):
    kernel, kinds = device.maps_kernel, {}
    for name in kernel.arg_names:
        if name.isupper():
            kinds[name] = "constexpr"
        elif name in {"query", "key"}:
            kinds[name] = element
        elif name in {"scale", "share"}:
            kinds[name] = "fp32"
        else:
            kinds[name] = POINTERS.get(name) or ("i64" if name in STEPS else "i32")
    flags = device.tiles(width, element == "*fp32")
    warps, stages = flags.pop("num_warps"), flags.pop("num_stages")
    return resources(
        kernel, kinds, flags | {"MASKED": 1, "CAUSAL": 0, "WIDTH": width}, warps, stages
    )


if __name__ == "__main__":
    cases = [("*fp32", 64), ("*fp32", 128), ("*bf16", 64), ("*bf16", 128), ("*bf16", 256)]
    print(
        json.dumps(
            {f"maps {element} width {width}": used(element, width) for element, width in cases}
        )
    )
