"""Compile the launches of the Triton forms for GPUs that are not here, and say what each binary
uses.

    python tests/kernels/compiling.py [OPERATOR ...] [--for 80 86 90 100 120] [--all | --json]
    python tests/kernels/compiling.py --for gfx942

`OPERATOR/compiled.py` has a function `calls()` that gives (name, call), the calls of the Triton
form on tensors without values ("meta"). Each launch is recorded instead of run, and is compiled as
the driver would: with the sizes, strides and alignment that this launch has. A form that asked for
a value of a tensor, and so would wait for the GPU, fails here."""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "kernels"
NVIDIA = ("80", "86", "90", "100", "120")
# Shared memory of one program, in KiB, of each architecture.
SHARED = {"80": 163, "86": 99, "90": 227, "100": 227, "120": 99, "gfx942": 64}
INSTRUCTIONS = {"wgmma": "wgmma.mma_async", "tcgen05": "tcgen05.mma", "mma": "mma.sync"}


class Launch(NamedTuple):
    """One launch of a kernel; grid: its programs."""

    kernel: object
    grid: tuple[int, ...]
    arguments: tuple[object, ...]
    constants: dict[str, object]


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Within, launches of Triton's kernels are put into the list and nothing runs."""
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []
    run = JITFunction.run

    def record(self, *arguments, grid, warmup, **constants):
        launches.append(Launch(self, grid, arguments, constants))

    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = run


class Source(NamedTuple):
    """What the compiler takes of a launch. key: equal for launches that share a binary."""

    source: object
    options: dict[str, object]
    key: str


def target_of(architecture: str):
    """Triton's name of "90" or "gfx942"."""
    from triton.backends.compiler import GPUTarget

    if architecture.startswith("gfx"):
        return GPUTarget("hip", architecture, 64)
    return GPUTarget("cuda", int(architecture), 32)


def source_of(launch: Launch, architecture: str) -> Source:
    """The kernel with the types of these arguments and with what is known of their values."""
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel, backend = launch.kernel, make_backend(target_of(architecture))
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    constants = launch.constants | {"debug": False}
    bound, special, extra = bind(*launch.arguments, **constants)
    options, kinds, values, known = kernel._pack_args(backend, constants, bound, special, extra)
    source = ASTSource(kernel, kinds, values, known)
    return Source(source, options.__dict__, f"{kernel.__name__} {special} {values} {options}")


def resources(launch: Launch, architecture: str) -> dict[str, int | str]:
    """Of the compiled launch: registers of a thread; spills, bytes of memory of a thread in place
    of registers; shared, bytes of a program; products, the instruction of the tensor cores.
    """
    import triton

    source, options, _ = source_of(launch, architecture)
    compiled = triton.compile(source, target=target_of(architecture), options=options)
    shared = compiled.metadata.shared
    if architecture.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        number = {
            name: int(re.search(rf"\.{name}:?\s+(\d+)", text)[1])
            for name in ("vgpr_count", "vgpr_spill_count")
        }
        return {
            "registers": number["vgpr_count"],
            "spills": 4 * number["vgpr_spill_count"],
            "shared": shared,
            "products": "mfma" if "v_mfma" in text else "",
        }
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # The stack holds what does not fit the registers.
    used = {name: int(re.search(rf"{name}:(\d+)", report)[1]) for name in ("REG", "STACK", "LOCAL")}
    products = [name for name, text in INSTRUCTIONS.items() if text in compiled.asm["ptx"]]
    return {
        "registers": used["REG"],
        "spills": used["STACK"] + used["LOCAL"],
        "shared": shared,
        "products": " ".join(products),
    }


def operators() -> list[str]:
    """Operators that have a Triton form."""
    return sorted(path.parent.name for path in HERE.glob("*/compiled.py"))


def calls(operator: str) -> list[tuple[str, Callable[[], object]]]:
    """The calls of an operator that are compiled."""
    file = HERE / operator / "compiled.py"
    spec = importlib.util.spec_from_file_location(f"compiled_{operator}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.calls())


def launches(operator: str) -> list[tuple[str, Launch]]:
    """(name of the call, launch) of all calls of an operator."""
    out = []
    for name, call in calls(operator):
        with recorded() as some:
            call()
        assert some, (operator, name, "launched no kernel")
        out += [(name.replace("torch.", ""), launch) for launch in some]
    return out


def rows(
    operator: str, architecture: str, *, one_each: bool = False
) -> Iterator[dict[str, int | str]]:
    """What each binary of an operator uses; launches that share one give one row.

    one_each: the first binary of each kernel alone.
    """
    seen_keys = set()
    for name, launch in launches(operator):
        key = launch.kernel.__name__ if one_each else source_of(launch, architecture).key
        if key in seen_keys:
            continue
        seen_keys.add(key)
        kernel = launch.kernel.__name__.removesuffix("_kernel")
        about = {"operator": operator, "kernel": kernel, "call": name, "for": architecture}
        yield about | resources(launch, architecture)


def line(values: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, values))} |"


def summary(table: list[dict[str, int | str]]) -> list[object]:
    """The binaries of one operator for one architecture in one row: the most of each number."""
    most = {name: max(row[name] for row in table) for name in ("registers", "spills", "shared")}
    spilling = sum(row["spills"] > 0 for row in table)
    spills = f"{most['spills']} ({spilling} of {len(table)})" if spilling else 0
    used = Counter(row["products"] for row in table if row["products"])
    products = ", ".join(f"{name} {count}" for name, count in sorted(used.items()))
    first = table[0]["operator"], table[0]["for"], len(table)
    return [*first, most["registers"], spills, round(most["shared"] / 1024), products]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("operator", nargs="*", default=[])
    parser.add_argument("--for", nargs="+", dest="architectures", default=list(NVIDIA))
    parser.add_argument(
        "--one-each",
        nargs="+",
        default=[],
        help="architectures for which one binary a kernel will do",
    )
    parser.add_argument("--all", action="store_true", help="a row for each binary")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    options = parser.parse_args()
    hip = {name.startswith("gfx") for name in options.architectures}
    assert len(hip) == 1, "compile for ROCm in a process of its own"
    if hip == {True}:
        import torch

        torch.version.hip = "compiled for"  # kernels choose the precision of products by it
    columns = ("operator", "for", "binaries", "registers", "spills", "shared KiB", "products")
    if options.all:
        columns = ("operator", "kernel", "call", "for", "registers", "spills", "shared", "products")
    if not options.json:
        print(line(columns), line("---" for _ in columns), sep="\n")
    table = []
    for operator in options.operator or operators():
        for architecture in options.architectures:
            some = list(rows(operator, architecture, one_each=architecture in options.one_each))
            table += some
            if not options.json:
                lines = [row.values() for row in some] if options.all else [summary(some)]
                print(*map(line, lines), sep="\n", flush=True)
    if options.json:
        print(json.dumps(table))


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    main()
