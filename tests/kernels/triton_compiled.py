"""Run by test_triton.py in a process of its own: compiles every kernel for sm_90 and prints what each uses."""

import json
import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from headwise.kernels import softmax_pool_triton as device

INTEGERS = {"rows", "width", "heads", "bags", "splits"}
FLOAT32 = {"out_top", "out_total", "out_sum", "out_best", "lse", "delta"}
FLAGS = {"PACKED": 1, "MASKED": 1, "OWN": 0, "ROWS": device.ROWS, "WIDTH": device.WIDTH}


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


def resources(kernel, element, packed):
    names = kernel.arg_names
    flags = FLAGS | device.PER_HEAD if kernel.__name__.startswith("head_") else FLAGS
    constants = {name: flags[name] for name in names if name.isupper()}
    constants |= {"PACKED": packed, "MASKED": not packed}
    kinds = signature(names, element)
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if kinds[name].startswith("*")}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 3})
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file:
        file.write(compiled.asm["ptx"].encode())
        file.flush()
        command = [triton.knobs.nvidia.ptxas.path, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),
        "spills": int(re.search(r"(\d+) bytes spill stores", said)[1]),
        "shared": compiled.metadata.shared,
    }


if __name__ == "__main__":
    kernels = {name: value for name, value in vars(device).items() if name.endswith("_kernel")}
    table = {
        f"{name} {element} {'packed' if packed else 'masked'}": resources(kernel, element, packed)
        for name, kernel in kernels.items()
        for element, packed in (("*fp32", False), ("*bf16", True))
    }
    print(json.dumps(table))
