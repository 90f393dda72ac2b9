"""The documentation agrees with the code: generated pages, links, paths, and quoted lines."""

import ast
import functools
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from headwise.data.clicks.schema_file import parse_schema
from headwise.pipelines import TASKS
from headwise.pipelines.engine.command_line import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks" / "README.md"],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
HISTORY = "CHANGELOG.md"  # it names what is no longer there
PLACEHOLDERS = {"models/attention/averaging.py"}  # the file that a page tells the reader to write
LIBRARY = ("base", "data", "kernels", "models", "pipelines")
FOLDERS = (*LIBRARY, "benchmarks", "docs", "examples", "tests")
SOURCE_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\.(?:py|md|json|yaml)\b")
TEST_PATH = re.compile(r"(?<![\w./-])tests/[\w./-]*\w")
MODULE = re.compile(rf"\bheadwise\.(?:{'|'.join(LIBRARY)})[\w.]*")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@functools.cache
def generator() -> ModuleType:
    spec = spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date() -> None:
    pages = generator().pages()
    assert {f"options/{task}.md" for task in TASKS} < set(pages)
    stale = [name for name, text in pages.items() if text_of(f"docs/reference/{name}") != text]
    assert not stale, "run `make docs`"


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_every_page_can_be_reached_from_the_index() -> None:
    reached, waiting = set(), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
        linked = {(page.parent / target).resolve() for target in targets if "://" not in target}
        waiting += [path for path in linked - reached if path.is_relative_to(DOCS)]
    assert set(DOCS.rglob("*.md")) == reached


@pytest.mark.parametrize("name", [name for name in NAMES if name != HISTORY])
def test_no_page_names_a_file_or_module_that_does_not_exist(name: str) -> None:
    text = text_of(name)
    paths = set(SOURCE_PATH.findall(text)) | set(TEST_PATH.findall(text)) - PLACEHOLDERS
    for path in sorted(paths - PLACEHOLDERS):
        if re.search(r"[A-Z]{4,}", path) or "/grading" in path:  # NAME, or the task of an example
            continue
        assert list(ROOT.glob(path)) or list((ROOT / name).parent.glob(path)), path
    for module in set(MODULE.findall(text)):
        assert resolves(module.rstrip(".").split(".")[1:]), module


def test_the_tests_of_the_table_of_cases_exist() -> None:
    listed = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of("docs/measured/cases.md"))
    assert len(listed) > 150
    for path, name in listed:
        assert f"def test_{name}" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def resolves(parts: list[str]) -> bool:
    """Whether a dotted name is a module, or the name of something in the text of a module."""
    path = ROOT
    for index, part in enumerate(parts):
        if (path / part).is_dir():
            path = path / part
            continue
        file = path / f"{part}.py"
        if file.is_file():
            path, rest = file, parts[index + 1 :]
        else:
            path, rest = path / "__init__.py", parts[index:]
        return not rest or (path.is_file() and rest[0] in path.read_text(encoding="utf-8"))
    return (path / "__init__.py").is_file()


@functools.cache
def messages() -> tuple[tuple[list[str], re.Pattern[str]], ...]:
    """What the texts of the package look like once their fields are filled: the literals, and a
    pattern with a group for each.
    """
    patterns = []
    for path in (path for folder in LIBRARY for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in values]
            literals = [text for text in texts if isinstance(text, str)]
            if sum(map(len, literals)) >= 8:
                parts = [
                    f"({re.escape(text)})" if isinstance(text, str) else ".*?" for text in texts
                ]
                patterns.append((literals, re.compile("".join(parts))))
    return tuple(patterns)


def covered_share(line: str) -> float:
    """The share of a line that is text of the package, not a name or number of the example."""
    marked = [False] * len(line)
    # Most patterns are ruled out by their words, in a hundredth of the time of a search.
    likely = (p for words, p in messages() if all(word in line for word in words))
    for match in filter(None, (pattern.search(line) for pattern in likely)):
        for group in range(1, len(match.groups()) + 1):
            start, end = match.span(group)
            marked[start:end] = [True] * (end - start)
    return sum(marked) / len(line)


def quoted_lines(task: str) -> list[str]:
    """The answers in the table of mistakes of a page."""
    rows = re.findall(
        r"^\| [^|]+ \| (``.+?``|`[^`]+`)", text_of(f"docs/start/my-data/{task}.md"), re.M
    )
    return [row.strip("` ") for row in rows if ": " in row]


@pytest.mark.parametrize("task", TASKS)
def test_the_answers_quoted_on_a_page_are_lines_of_the_program(task: str) -> None:
    lines = quoted_lines(task)
    assert lines
    for line in lines:
        assert covered_share(line) > 0.25, line


def test_a_line_that_the_program_never_prints_is_noticed() -> None:
    assert covered_share("sales.csv: these numbers look odd to me; please mend them") < 0.25


def block(page: str, index: int) -> str:
    return re.findall(r"^```\w*\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)[index]


@pytest.mark.parametrize(
    ("task", "name", "index"), [("forecast", "sales", 2), ("text", "tickets", 1)]
)
def test_the_few_rows_of_a_page_train(
    task: str,
    name: str,
    index: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    page = f"docs/start/my-data/{task}.md"
    (tmp_path / f"{name}.csv").write_text(block(page, 0))
    with pytest.raises(SystemExit) as stop:
        main(block(page, index).splitlines()[0].split()[1:])
    assert stop.value.code == 0
    assert f"report runs/{name}/report.html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "index", "tasks"),
    [
        ("docs/start/my-data/ranking.md", 1, ["click", "buy"]),
        ("docs/reference/ranking.md", 0, ["like", "buy"]),
    ],
)
def test_the_schemas_of_the_pages_are_valid(page: str, index: int, tasks: list[str]) -> None:
    schema = parse_schema(yaml.safe_load(block(page, index)), page)
    assert list(schema.tasks) == tasks


def test_the_models_of_the_python_page_run() -> None:
    page = text_of("docs/start/python.md")
    blocks = re.findall(
        r"```python\n(.*?)```", page[page.index("## Models and the core") :], re.DOTALL
    )
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    for text in blocks:
        exec(text, namespace)
    assert namespace["mixed"].shape == namespace["tokens"].shape
    assert namespace["stats"].entropy.shape == (2, 8, 10)


def test_the_examples_of_the_page_on_generation_run() -> None:
    import torch

    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    for text in re.findall(r"```python\n(.*?)```", text_of("docs/how-to/generate.md"), re.DOTALL):
        exec(text, namespace)
    torch.testing.assert_close(torch.cat(namespace["parts"], 1), namespace["whole"])
    model, prompts, generated = (namespace[key] for key in ("model", "prompts", "generated"))
    letters = prompts
    for _ in range(6):
        best = model(letters, letters > 0)[:, -1:].argmax(-1)
        letters = torch.cat([letters, best], 1)
        # A generated padding letter is a token there, and would be none here.
        assert (best > 0).all()
    assert torch.equal(letters[:, 5:], generated)
