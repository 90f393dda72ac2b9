"""The README from its first command to its last, as a newcomer pastes it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- setup -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)


@pytest.fixture
def environment() -> dict[str, str]:
    """The installed package, as if its environment had been activated; one thread."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.timeout(900)  # half a minute on an idle machine
def test_every_block_of_the_readme_runs_in_order(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [language for setup, language, _ in blocks if not setup] == ["sh", "sh", "python"]
    for setup, language, text in blocks:
        if setup:
            continue
        command = ["bash", "-ec", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    for path in (
        "runs/first/report.html",
        "runs/first/figures/future.png",
        "forecasts.parquet",
        "runs/softmax/report.html",
    ):
        assert (tmp_path / path).stat().st_size > 1000, path


def test_the_set_up_lines_name_a_target_of_the_makefile() -> None:
    setup, _, text = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8")).groups()
    assert setup
    target = re.search(r"^make (\w+)$", text, re.MULTILINE)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
