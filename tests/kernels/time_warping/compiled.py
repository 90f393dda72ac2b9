"""Run by test_triton.py in a separate process: compiles time warping and median filter for
sm_90.
"""

import json

from compiling import resources

from headwise.kernels.time_warping import triton as gpu

KINDS = {"cost": "*fp32", "scratch": "*fp32", "x": "*fp32", "out": "*fp32", "moves": "*i8"}
LONG = {"rows", "columns", "first", "last"}


def used(kernel, warps, **flags):
    kinds = {}
    for name in kernel.arg_names:
        longs = name in LONG and not (name == "rows" and kernel is gpu.median_kernel)
        kinds[name] = (
            "constexpr" if name.isupper() else KINDS.get(name) or ("*i64" if longs else "i32")
        )
    return resources(kernel, kinds, flags, warps, 2)


if __name__ == "__main__":
    table = {
        f"warp {rows}": used(gpu.warp_kernel, max(1, min(8, rows // 32)), ROWS=rows)
        for rows in (16, 512, 1024)
    }
    table["trace"] = used(gpu.trace_kernel, 1)
    table |= {
        f"median {width}": used(
            gpu.median_kernel, 4, WIDTH=width, HALF=width // 2, COLUMNS=gpu.COLUMNS
        )
        for width in (3, 7, 9)
    }
    print(json.dumps(table))
