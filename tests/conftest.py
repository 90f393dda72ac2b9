"""Settings of all tests: one thread each (two run side by side), no network, and where the real
data is.
"""

import contextlib
import gc
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by every process that a test starts
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does
os.environ["HEADWISE_OFFLINE"] = "1"
# Weights that this machine has fetched change no result: without them, `--weights auto` is none.
os.environ["HEADWISE_CACHE"] = tempfile.mkdtemp(prefix="headwise-cache-")
os.environ["HF_HUB_CACHE"] = os.path.join(os.environ["HEADWISE_CACHE"], "hub")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import pytest
from hypothesis import settings

settings.register_profile("headwise", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("headwise")

ROOT = Path(__file__).parents[1]


MEMORY = Path("/dev/shm")
IN_MEMORY = pytest.StashKey[str]()
TEMPORARY_BYTES = 8 << 30  # the files of all tests together are 3 GB


def pytest_configure(config: pytest.Config) -> None:
    """Before workers start: temporary files go to memory where there is plenty of it (thousands of
    flushed files take a disk minutes to write and to remove), and yapf's cache is filled: yapf
    renames the file before it has written it, so that the second of two first imports (mmengine
    imports it) reads nothing.
    """
    if hasattr(config, "workerinput"):
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("yapf")
    chosen = config.option.basetemp or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    if not chosen and free_memory() > 2 * TEMPORARY_BYTES:
        for left in MEMORY.glob("headwise-tests-*"):  # by runs that were killed
            if not Path("/proc", left.name.split("-")[2]).exists():
                shutil.rmtree(left, ignore_errors=True)
        root = tempfile.mkdtemp(prefix=f"headwise-tests-{os.getpid()}-", dir=MEMORY)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = config.stash[IN_MEMORY] = root


def free_memory() -> int:
    """Bytes that files in memory may take: 0 where there is no such folder."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < TEMPORARY_BYTES:
        return 0
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(n.split()[1]) << 10 for n in lines if n.startswith("MemAvailable")), 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache of this process, and what is in memory."""
    shutil.rmtree(os.environ["HEADWISE_CACHE"], ignore_errors=True)
    if root := config.stash.get(IN_MEMORY, ""):
        shutil.rmtree(root, ignore_errors=True)


FULL = Path(__file__).with_name("full.txt")


def pytest_collection_finish() -> None:
    """What the imports and the collection made stays to the end: full collections of garbage need
    not walk through it again (they took 6 % of the tests' time).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only `make test-all` and CI run: the tests that `full.txt` names, by whole tests or
    by single cases.
    """
    if not FULL.is_file():  # a copy of the contract alone, for the skeleton of a task
        return
    names = {line for line in FULL.read_text().splitlines() if line and not line.startswith("#")}
    for item in items:
        if {item.nodeid, item.nodeid.split("[")[0]} & names:
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; a test that needs it is skipped, saying so, where it is not."""
    folder = Path(os.environ.get("HEADWISE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set HEADWISE_DATA)")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cheap_pictures(request):
    """Pictures of reports are drawn in modules marked `drawn` alone."""
    from headwise.tests.undrawn import pictures

    with pictures(as_dots=request.node.get_closest_marker("drawn") is None):
        yield


@pytest.fixture
def headwise(capfd):
    """Run the command line in this process: `headwise("forecast", "train", …)` gives (exit code,
    stderr lines).
    """
    from headwise.pipelines.engine.command_line import main

    def run(*words: object) -> tuple[int, list[str]]:
        capfd.readouterr()
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.stderr.flush()
        return code, [line for line in capfd.readouterr().err.splitlines() if line.strip()]

    return run
