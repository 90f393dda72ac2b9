"""What `headwise.models`, `.attention` and `.moe` export: lazily, and as type checkers see it."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = ("headwise.models", "headwise.models.attention", "headwise.models.moe")


def seen_by_type_checkers(package: str) -> set[str]:
    tree = ast.parse(Path(str(import_module(package).__file__)).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_export_resolves_is_listed_and_is_known_to_type_checkers(package: str) -> None:
    module = import_module(package)
    exports = set(module.__all__)
    assert exports <= set(dir(module))
    for name in exports:
        assert getattr(module, name) is not None
    lazy = seen_by_type_checkers(package)
    assert lazy <= exports
    assert exports - lazy <= set(vars(module))
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchName'"):
        module.NoSuchName  # noqa: B018


def test_the_pieces_of_the_table_are_where_it_says() -> None:
    from headwise.models.moe import MOE

    for row in MOE.values():
        assert callable(getattr(import_module(f"headwise.models.moe.{row.module}"), row.name))
        assert row.summary


def test_importing_the_packages_does_not_load_torch() -> None:
    code = f"import sys, {', '.join(PACKAGES)}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
