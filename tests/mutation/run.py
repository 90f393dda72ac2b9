"""Plants one bug at a time in a copy of the package and asks whether the named tests notice.

    python tests/mutation/run.py                  # all bugs
    python tests/mutation/run.py E2 X15           # these
    python tests/mutation/run.py --area engine    # those of one area
    python tests/mutation/run.py --check          # only that each bug can be planted

Prints a line for each bug and `caught / planted`. The exit code is 1 when a bug survives, 2 when a
bug cannot be planted (the text that it replaces is not there exactly once) or its tests do not pass
without it."""

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "headwise"  # whatever the checkout is called
# Slow to import, and nothing of the package: every run of tests begins with them.
SLOW = (
    "torch",
    "torch.distributed.checkpoint.state_dict",
    "lightning_fabric",
    "scipy.stats",
    "sklearn.linear_model",
    "matplotlib.figure",
    "tyro",
    "jinja2",
    "timm",
    "hypothesis",
    "pytest",
)
ALWAYS = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--durations=0")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.egg-info")


def all_mutants() -> list[Mutant]:
    """The tables `mutants*.py` beside this file, joined; an id that occurs twice is an error."""
    mutants = [
        mutant
        for file in sorted(Path(__file__).parent.glob("mutants*.py"))
        for mutant in _table(file)
    ]
    ids = [mutant.id for mutant in mutants]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise SystemExit(f"these ids occur more than once: {', '.join(twice)}")
    return mutants


def _table(file: Path) -> list[Mutant]:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTANTS


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """The mutants that the command line asks for."""
    mutants = all_mutants()
    if unknown := set(arguments.ids) - {mutant.id for mutant in mutants}:
        raise SystemExit(f"no such mutant: {', '.join(sorted(unknown))}")
    return [
        mutant
        for mutant in mutants
        if (not arguments.ids or mutant.id in arguments.ids)
        and (arguments.area is None or mutant.area == arguments.area)
    ]


def fault_of(mutant: Mutant, root: Path) -> str | None:
    """Why the bug cannot be planted; None where it can."""
    file = root / mutant.file
    if not file.is_file():
        return f"{mutant.file} is not there"
    count = file.read_text().count(mutant.old)
    if count != 1:
        return f"the old text occurs {count} times in {mutant.file}"
    if mutant.old == mutant.new:
        return "the new text is the old one"
    missing = [name for name in _test_files(mutant) if not (root / "tests" / name).exists()]
    return f"no such tests: {', '.join(missing)}" if missing else None


def _test_files(mutant: Mutant) -> list[str]:
    """The paths among a mutant's arguments of pytest; the word after -k is none."""
    words = mutant.tests
    return [
        word.split("::")[0]
        for number, word in enumerate(words)
        if not word.startswith("-") and (number == 0 or words[number - 1] != "-k")
    ]


def run_tests(mutant: Mutant, root: Path, timeout: float) -> tuple[str, str]:
    """What the mutant's tests say of the copy at `root`: "passed", "failed" or "broken", and the
    telling line.

    They run in a fork of this process, which has the slow libraries in it already, and nothing of
    the package."""
    files = _test_files(mutant)
    words = [
        f"tests/{word}" if word.split("::")[0] in files and not word.startswith("-") else word
        for word in mutant.tests
    ]
    log = root.parent / "log"
    child = os.fork()
    if not child:
        _become_pytest([*ALWAYS, *words], root, log)
    code = _wait(child, timeout)
    if code is None:
        return "failed", f"no end within {timeout:.0f} s"
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:] or [""]
    # pytest: 0 all passed, 1 some failed, 2 interrupted (a bug at import), 4 usage, 5 no test.
    return {0: "passed", 1: "failed", 2: "failed"}.get(code, "broken"), telling[0][:150]


def _become_pytest(words: list[str], root: Path, log: Path) -> NoReturn:
    """Run pytest in this forked process, in a group of its own so that all it starts can be
    ended.
    """
    os.setpgrp()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.chdir(root)
    sys.path.insert(0, str(root.parent))
    os.environ["PYTHONPATH"] = str(root.parent)
    code = 3
    try:
        import pytest

        module = importlib.import_module(PACKAGE)
        if Path(module.__file__ or "").resolve().parent == root:
            code = int(pytest.main(words))
        else:
            print(f"ERROR {PACKAGE} comes from {module.__file__}, not from the copy")
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(child: int, timeout: float) -> int | None:
    """The exit code of a forked process; None where it was ended since it took too long."""
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def judge(mutant: Mutant, root: Path, timeout: float) -> tuple[str, str]:
    """Plant the bug in the copy, run its tests and take the bug out again."""
    file = root / mutant.file
    text = file.read_text()
    try:
        file.write_text(text.replace(mutant.old, mutant.new))
        return run_tests(mutant, root, timeout)
    finally:
        file.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ids", nargs="*", help="ids of mutants; all without")
    parser.add_argument("--area", help="only mutants of this area")
    parser.add_argument(
        "--check", action="store_true", help="only look whether each bug can be planted"
    )
    parser.add_argument(
        "--timeout", type=float, default=600, help="most seconds for the tests of one bug"
    )
    arguments = parser.parse_args()
    mutants = chosen(arguments)
    faults = [(mutant, fault) for mutant in mutants if (fault := fault_of(mutant, ROOT))]
    for mutant, fault in faults:
        print(f"{mutant.id}: cannot be planted: {fault}")
    if faults or arguments.check:
        print(f"{len(mutants) - len(faults)} of {len(mutants)} can be planted")
        return 2 if faults else 0
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        root = Path(folder).resolve() / PACKAGE
        shutil.copytree(ROOT, root, ignore=NOT_COPIED)
        for name in SLOW:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        return _all(mutants, root, arguments.timeout)


def _all(mutants: list[Mutant], root: Path, timeout: float) -> int:
    """Judge each mutant. Tests that pass must pass without a bug as well, or a survivor would say
    nothing.
    """
    results = []
    clean: dict[tuple[str, ...], str] = {}
    for mutant in mutants:
        started = time.monotonic()
        if mutant.tests not in clean:
            clean[mutant.tests], line = run_tests(mutant, root, timeout)
            if clean[mutant.tests] != "passed":
                print(f"{mutant.id}: its tests do not pass without the bug: {line}", flush=True)
        result, line = (
            judge(mutant, root, timeout) if clean[mutant.tests] == "passed" else ("broken", "")
        )
        word = {"failed": "caught", "passed": "SURVIVED"}.get(result, "BROKEN")
        print(
            f"{mutant.id:6} {mutant.area:10} {word:9} {time.monotonic() - started:5.0f} s  {line}",
            flush=True,
        )
        results.append((mutant.area, word))
    for area in sorted({area for area, _ in results}):
        words = [word for of_area, word in results if of_area == area]
        print(f"{area}: {words.count('caught')} caught / {len(words)} planted")
    words = [word for _, word in results]
    print(f"in all: {words.count('caught')} caught / {len(words)} planted")
    return 2 if "BROKEN" in words else int("SURVIVED" in words)


if __name__ == "__main__":
    sys.exit(main())
