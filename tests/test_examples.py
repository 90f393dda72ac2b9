"""Every script of examples/ runs, in a process of its own, and says something."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# Less than a reader wants to see: every mechanism is trained in the tests of the core.
SHORTER = {"read_outs": ["20"], "swap_attention": ["star", "moh"]}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(path: Path) -> None:
    command = [sys.executable, path, *SHORTER.get(path.stem, [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
