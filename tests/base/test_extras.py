"""Optional packages: which are missing, and the line that installs them."""

import json
import sys
from importlib import metadata

import pytest

from headwise.base import extras
from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task


@pytest.mark.parametrize("task", [name for name in TASKS if load_task(name).extra])
def test_a_task_without_its_packages_is_one_line_before_anything_is_made(
    task, headwise, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = extras.MODULES[load_task(task).extra][0]
    monkeypatch.setitem(sys.modules, missing, None)
    code, lines = headwise(task, "train", "--run", "run")
    assert code == 2
    line = extras.install_line(load_task(task).extra)
    assert lines == [f"headwise: {task} needs the package {missing}; {line}"]
    assert not list(tmp_path.iterdir())


def test_all_missing_packages_are_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"^it needs the packages timm, PIL; pip install"):
        extras.check_extra("vision", "it")
    extras.check_extra("unknown", "it")


class Installed:
    """A distribution that was installed from somewhere."""

    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self.origin) if self.origin else None


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "pip install 'headwise[wsi]'"),
        ({"url": "file:///w/h.whl"}, "pip install 'headwise[wsi] @ file:///w/h.whl'"),
        (
            {"url": "https://x/h.git", "vcs_info": {"vcs": "git"}},
            "pip install 'headwise[wsi] @ git+https://x/h.git'",
        ),
    ],
)
def test_the_line_says_where_the_package_came_from(origin, line, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "headwise" / "base" / "extras.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(origin))
    extras.install_line.cache_clear()
    try:
        assert extras.install_line("wsi") == line
    finally:
        extras.install_line.cache_clear()


def test_in_a_clone_the_line_works_from_any_folder() -> None:
    line = extras.install_line("speech")
    assert line.startswith("pip install -e '/")
    assert line.endswith("[speech]'")
