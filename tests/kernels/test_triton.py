"""The Triton kernels without a GPU: their values in the interpreter, their resources from the
compiler for each architecture.
"""

import json
import multiprocessing
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from headwise.tests.kernels import compiling, forked

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is optional and not installed"
)
HERE = Path(__file__).parent
MOST_SPILLS = 72  # bytes of a thread: docs/measured/kernels.md says which kernels have any


def scripts(name: str) -> list[str]:
    """The scripts of a name, one an operator, relative to this folder."""
    return sorted(str(path.relative_to(HERE)) for path in HERE.glob(f"*/{name}"))


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch"])  # imported once for all scripts


def run(script: str, *words: str) -> str:
    """What a script prints, in a process of its own.

    Interpreter and compiler cannot share a process: Triton decides between them when a kernel is
    decorated.
    """
    with tempfile.NamedTemporaryFile("r") as output:
        arguments = (str(HERE / script), words, output.name, forked.coverage_here())
        process = FORKS.Process(target=forked.run, args=arguments)
        process.start()
        process.join()
        printed = output.read()
    assert process.exitcode == 0, printed
    return printed


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


# CI compiles every launch for the least shared memory, and each kernel once where products have an
# instruction of their own; `make architectures` compiles all for all.
LEAST, NEWER = "86", "90"


@pytest.mark.parametrize("operator", compiling.operators())
def test_kernels_compile_as_launched(operator: str) -> None:
    table = compiled(operator, "--for", LEAST, NEWER, "--one-each", NEWER)
    assert_runs(table)
    kernels = {
        name: {row["kernel"] for row in table if row["for"] == name} for name in (LEAST, NEWER)
    }
    assert kernels[LEAST] == kernels[NEWER]


@pytest.mark.slow
@pytest.mark.parametrize("operator", compiling.operators())
def test_kernels_compile_as_launched_for_every_other_architecture(operator: str) -> None:
    assert_runs(compiled(operator, "--for", *sorted({*compiling.NVIDIA} - {LEAST})))


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
