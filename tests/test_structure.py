"""The layout of the package: which folder may import which, the same files in all tasks, names that
say what things are.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headwise.pipelines import TASKS

ROOT = Path(__file__).parents[1]
LIBRARY = ("base", "data", "kernels", "models", "pipelines")
TASK_FILES = {"__init__", "options", "data", "pipeline", "scoring", "prediction", "figures"}
MOST_LINES, MOST_FILES = 400, 22
# Names that do not say what a thing is, see CONTRIBUTING.md.
VAGUE = {
    "found", "said", "there", "given", "own", "one", "each", "other", "kept", "made", "wanted",
    "whole", "drawn", "every", "apart", "none", "left", "seen",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    """Source files of some folders of the library."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, as `data.formats.tables`."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            prefix = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            yield prefix
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def below(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


@pytest.mark.parametrize("task", TASKS)
def test_no_task_imports_another(task: str) -> None:
    others = [name for name in TASKS if name != task]
    for path in sources(f"pipelines/{task}"):
        for module in imported(path):
            assert not any(below(module, f"pipelines.{name}") for name in others), path


def test_no_domain_of_data_imports_another() -> None:
    domains = [
        path.name
        for path in (ROOT / "data").iterdir()
        if (path / "__init__.py").is_file() and path.name not in ("formats", "catalogue")
    ]
    assert len(domains) >= 7
    for domain in domains:
        others = [name for name in domains if name != domain]
        for path in sources(f"data/{domain}"):
            for module in imported(path):
                assert not any(below(module, f"data.{name}") for name in others), (path, module)


def test_formats_know_no_domain() -> None:
    for path in sources("data/formats"):
        for module in imported(path):
            assert not below(module, "data") or below(module, "data.formats"), (path, module)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_same_files(task: str) -> None:
    files = {path.stem for path in (ROOT / "pipelines" / task).glob("*.py")}
    assert files >= TASK_FILES
    assert not files & {"utils", "helpers", "common", "checks", "build", "infer", "cohort"}


def test_files_and_folders_are_of_a_size_to_read() -> None:
    paths = sources(*LIBRARY)
    assert len(paths) > 300
    long = {str(p.relative_to(ROOT)): n for p in paths if (n := lines_of(p)) > MOST_LINES}
    assert long == {}
    folders = {path.parent for path in paths}
    full = {str(f.relative_to(ROOT)): n for f in folders if (n := files_in(f)) > MOST_FILES}
    assert full == {}


def test_what_make_test_leaves_out_exists() -> None:
    """A test that was renamed would come back into `make test` unseen."""
    lines = (ROOT / "tests" / "full.txt").read_text().splitlines()
    nodes = {line.split("[")[0] for line in lines if line and not line.startswith("#")}
    assert len(nodes) > 100
    names: dict[str, set[str]] = {}
    for node in nodes:
        file, *parts = node.split("::")
        names.setdefault(file, set()).update(parts)
    for file, needed in names.items():
        tree = tree_of(ROOT / file)
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert needed <= defined, file


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


def files_in(folder: Path) -> int:
    return len(list(folder.glob("*.py")))


def test_names_say_what_things_are() -> None:
    functions = [
        (path, node)
        for path in sources(*LIBRARY)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
    ]
    vague = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {', '.join(words)}"
        for path, function in functions
        if (words := sorted(stored_names(function) & VAGUE))
    ]
    assert len(functions) > 2000
    assert len(vague) <= 0.02 * len(functions), "\n".join(vague)


def stored_names(function: ast.FunctionDef) -> set[str]:
    """Parameters and local variables."""
    nodes = list(ast.walk(function))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.arg for n in nodes if isinstance(n, ast.arg)}
