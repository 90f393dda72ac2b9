"""What the `compiled.py` scripts share: compiling a kernel for sm_90 without a GPU, and reading the
resources that it uses.
"""

import re
import subprocess
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def resources(
    kernel, kinds: dict[str, str], constants: dict[str, object], warps: int = 4, stages: int = 3
) -> dict:
    """Registers, spilled bytes, shared memory of the kernel; kinds: type of each argument ("*fp32",
    "constexpr").
    """
    kinds = {name: kinds[name] for name in kernel.arg_names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, kind in enumerate(kinds.values())
        if kind.startswith("*")
    }
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file:
        file.write(compiled.asm["ptx"].encode())
        file.flush()
        command = [
            triton.knobs.nvidia.ptxas.path,
            "-v",
            "--gpu-name=sm_90a",
            file.name,
            "-o",
            "/dev/null",
        ]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return {
        "registers": int(re.search(r"Used (\d+) registers", report)[1]),
        "spills": int(re.search(r"(\d+) bytes spill stores", report)[1]),
        "shared": compiled.metadata.shared,
    }
