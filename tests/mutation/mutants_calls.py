"""Every statement of the account taken out, one at a time: the calls of `note` and `doubt`.

The tests of a call are those of the folder that mirrors its file; what belongs to no task is tried
with the contract of the account, too.
"""

import ast
from pathlib import Path

from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("note", "doubt", "note_groups")
CONTRACT = "contract/test_account.py"
# What several readers of files state is tested for all of them at once, or by one that reads so.
SHARED = ("base/test_own_files.py", "base/test_spellings.py", "data/xrays/test_xrays.py")


def _tests(file: Path) -> tuple[str, ...]:
    room, name = file.parts[0], file.parts[1]
    if room == "data" and name.endswith(".py"):
        tests = ["data", CONTRACT]
    elif room == "pipelines" and name == "engine":
        of_file = f"pipelines/engine/test_{file.stem}.py"
        tests = [
            of_file,
            "pipelines/engine/test_output.py",
            "pipelines/engine/test_run.py",
            "pipelines/engine/test_older_runs.py",
            "contract/test_other_data.py",
            CONTRACT,
        ]
    else:
        tests = ["base", CONTRACT] if room == "base" else [f"{room}/{name}"]
        tests += SHARED if room == "data" else ()
    return tuple(test for test in tests if (ROOT / "tests" / test).exists())


def _calls(tree: ast.AST) -> list[ast.Expr]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in CALLS
    ]


def _mutant(file: Path, lines: list[str], call: ast.Expr) -> Mutant:
    """The call replaced by `pass`, with as many lines before it as make the text unique."""
    text = "".join(lines)
    assert call.end_lineno is not None
    first, last = call.lineno - 1, call.end_lineno
    head = lines[first][: call.col_offset]
    begin = first
    while text.count("".join(lines[begin:last])) > 1:
        begin -= 1
    before = "".join(lines[begin:first])
    number = sum(line.lstrip().startswith(CALLS) for line in lines[:first]) + 1
    parts = 3 if file.parent.name == "verbs" else 2  # several tasks have a verb of one name
    id = f"{'/'.join(file.with_suffix('').parts[-parts:])}:{number}"
    old = before + "".join(lines[first:last])
    return Mutant(id, "account", str(file), old, f"{before}{head}pass\n", _tests(file))


def _mutants() -> list[Mutant]:
    mutants = []
    for room in ("base", "data", "pipelines"):
        for path in sorted((ROOT / room).rglob("*.py")):
            file, lines = path.relative_to(ROOT), path.read_text().splitlines(keepends=True)
            if file == Path("base/account.py"):  # it has its own tests
                continue
            calls = sorted(_calls(ast.parse("".join(lines))), key=lambda call: call.lineno)
            mutants += [_mutant(file, lines, call) for call in calls]
    return mutants


MUTANTS = _mutants()
