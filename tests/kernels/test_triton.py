"""The Triton kernels without a GPU: their values in the interpreter, their resources from the
compiler for each architecture.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from headwise.tests.kernels import compiling

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is optional and not installed"
)
HERE = Path(__file__).parent
MOST_SPILLS = 72  # bytes of a thread: docs/measured/kernels.md says which kernels have any


def scripts(name: str) -> list[str]:
    """The scripts of a name, one an operator, relative to this folder."""
    return sorted(str(path.relative_to(HERE)) for path in HERE.glob(f"*/{name}"))


def measured() -> list[str]:
    """Options that count the lines of the other process, too, where this one is run with
    coverage.
    """
    if find_spec("coverage") is None:
        return []
    from coverage import Coverage

    current = Coverage.current()
    if current is None:
        return []
    source = ",".join(current.get_option("run:source") or [])  # type: ignore[arg-type]
    file = f"--data-file={current.get_option('run:data_file')}"
    return ["-m", "coverage", "run", "--parallel-mode", file, f"--source={source}"]


def run(script: str, *words: str) -> str:
    # Interpreter and compiler cannot share a process: Triton decides between them when a kernel is
    # decorated.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["OMP_NUM_THREADS"] = "1"
    # Where `interpreting` and `compiling` are.
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(HERE), environment.get("PYTHONPATH")])
    )
    command = [sys.executable, *measured(), HERE / script, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", scripts("interpreted.py"))
def test_in_the_interpreter_kernels_equal_the_plain_form(script: str) -> None:
    assert run(script).count("ok ") >= 4


def compiled(*words: str) -> list[dict]:
    """What the binaries of `python compiling.py` use."""
    return json.loads(run("compiling.py", *words, "--json"))


def assert_runs(table: list[dict]) -> None:
    """Every binary fits the shared memory of its architecture and spills a few registers at
    most.
    """
    assert table
    for used in table:
        assert used["registers"] <= 255, used
        assert used["spills"] <= MOST_SPILLS, used
        assert used["shared"] <= compiling.SHARED[used["for"]] * 1024, used


# The least shared memory, and the one whose products have an instruction of their own: CI compiles
# for these, `make architectures` for all.
USUAL = ("86", "90")


@pytest.mark.parametrize("operator", compiling.operators())
def test_kernels_compile_as_launched(operator: str) -> None:
    assert_runs(compiled(operator, "--for", *USUAL))


@pytest.mark.slow
@pytest.mark.parametrize("operator", compiling.operators())
def test_kernels_compile_as_launched_for_every_other_architecture(operator: str) -> None:
    assert_runs(compiled(operator, "--for", *sorted({*compiling.NVIDIA} - {*USUAL})))


@pytest.mark.parametrize(
    "operator",
    [
        name
        if name in ("expert_gate", "softmax_pool")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in compiling.operators()
    ],
)
def test_kernels_compile_for_rocm(operator: str) -> None:
    table = compiled(operator, "--for", "gfx942")
    assert table
    assert max(used["shared"] for used in table) <= compiling.SHARED["gfx942"] * 1024


def test_a_kernel_compiles_for_the_oldest_and_the_newest_architecture() -> None:
    assert_runs(compiled("expert_combine", "--for", compiling.NVIDIA[0], compiling.NVIDIA[-1]))


def test_every_triton_file_has_both_scripts() -> None:
    files = list((HERE.parents[1] / "kernels").glob("*/triton.py"))
    assert files
    for path in files:
        assert (HERE / path.parent.name / "interpreted.py").exists(), path.parent.name
        assert (HERE / path.parent.name / "compiled.py").exists(), path.parent.name
