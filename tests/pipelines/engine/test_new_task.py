"""`headwise new-task`: a skeleton in the form of the other tasks that works as it is."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from headwise.base.errors import InputError
from headwise.pipelines import TASKS
from headwise.pipelines.engine.new_task import new_task

ROOT = Path(__file__).parents[3]
CONTRACT = (
    "holds_what_it_promises or gives_the_figures or opened_from_python or is_documented or "
    "are_documented or columns or broken_item or test_the_export"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of this checkout with a new task in it."""
    root = tmp_path_factory.mktemp("copy") / "headwise"
    root.mkdir()
    for name in ("base", "data", "kernels", "models", "pipelines"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "tests" / "contract", root / "tests" / "contract")
    for name in ("conftest.py", "undrawn.py"):
        shutil.copy(ROOT / "tests" / name, root / "tests" / name)
    new_task("seedling", root)
    return root


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in which `headwise` is the copy."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.parent)}
    return subprocess.run(
        words, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_the_skeleton_passes_the_contract_of_all_tasks(checkout):
    pytest_words = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k")
    done = run(
        checkout,
        sys.executable,
        *pytest_words,
        f"seedling and ({CONTRACT}) or test_seedling",
        "tests/contract/test_tasks.py",
        "tests/pipelines/seedling",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "11 passed" in done.stdout


def test_the_options_that_it_pins_are_its_own(checkout):
    code = (
        "import json\nfrom headwise.pipelines import load_task\n"
        "from headwise.pipelines.engine.command_line import options_class, COMMON\n"
        "import dataclasses\n"
        "pinned = json.load(open('tests/pipelines/seedling/options.json'))\n"
        "card = load_task('seedling')\n"
        "assert list(pinned) == list(COMMON)\n"
        "for verb, names in pinned.items():\n"
        "    fields = dataclasses.fields(options_class(card, verb))\n"
        "    assert names == [field.name for field in fields], verb\n"
    )
    done = run(checkout, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_skeleton_is_formatted_and_clean(checkout):
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    if ruff is None:
        pytest.skip("ruff is not installed")
    folders = ("pipelines/seedling", "tests/pipelines/seedling")
    for words in (("check", "--no-cache"), ("format", "--no-cache", "--check")):
        done = run(checkout, ruff, *words, *folders)
        assert done.returncode == 0, done.stdout


def test_the_files_are_those_of_the_other_tasks(checkout):
    """A task may leave a file out, and add some: the skeleton has those that most tasks have."""
    folders = [ROOT / "pipelines" / task for task in TASKS]
    counts = Counter(path.name for folder in folders for path in folder.glob("*.py"))
    usual = {name for name, count in counts.items() if count > 0.75 * len(TASKS)}
    assert usual == {path.name for path in (checkout / "pipelines" / "seedling").glob("*.py")}
    assert all((ROOT / "tests" / "pipelines" / task / "options.json").is_file() for task in TASKS)


@pytest.mark.parametrize("name", ["Leaf", "leaf-growth", "1leaf", "class", "doctor", "engine", ""])
def test_a_name_that_cannot_be_used_is_refused(checkout, name):
    with pytest.raises(InputError, match="is no name for a task"):
        new_task(name, checkout)


def test_nothing_is_overwritten(checkout, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        new_task("seedling", checkout)
    with pytest.raises(InputError, match="works in a source checkout"):
        new_task("leaf", tmp_path)
    assert list(tmp_path.iterdir()) == []
