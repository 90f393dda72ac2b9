"""YAML files of options and schemas, read within limits.

Only plain values, lists and mappings are read. What YAML offers beyond them is bounded (merge keys,
by which a small file can unfold to any size), refused (tags that make objects), or left as text
(dates, and numbers to the base of sixty: `12:30` would become 750).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, one_line, shown
from .files import read_plain

if TYPE_CHECKING:
    import yaml

YAML_CAP = 1_000_000  # bytes
MERGE_CAP = 10_000  # pairs of a mapping, with those merged into it
_NUMBER_CAP = 100  # characters of a number
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


def read_yaml(path: Path) -> object:
    """What a YAML file holds; None for an empty file.

    Raises FileNotFoundError where there is none, and InputError, naming the file, for everything
    else: no plain file, too large, no YAML, a key that is written twice.
    """
    content = read_plain(path, YAML_CAP)
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML: {one_line(error)[:160]}") from None


def parse_yaml(text: str) -> object:
    """What a YAML text holds. Raises ValueError with the line of the problem."""
    import yaml  # takes 20 ms, and most commands read no YAML

    try:
        return yaml.load(text, _loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else str(problem)) from None
    except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(one_line(error)) from None


@lru_cache(maxsize=1)
def _loader() -> type[yaml.SafeLoader]:
    """The safe loader of PyYAML with fewer kinds of values."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads plain values, lists and mappings."""

        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.sizes: dict[int, int] = {}  # pairs of each mapping, with those merged into it

        def compose_mapping_node(self, anchor):  # pyright: ignore
            node = super().compose_mapping_node(anchor)
            names, count = set(), 0
            for key, value in node.value:
                if key.tag == _MERGE:
                    merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    # A mapping that is still being composed would be merged into itself.
                    count += sum(self.sizes.get(id(part), MERGE_CAP) for part in merged)
                elif (key.tag, name := str(key.value)) in names:
                    raise _problem(key, f"{shown(name)} is there twice; leave one of them out")
                else:
                    names.add((key.tag, name))
                if (count := count + 1) > MERGE_CAP:
                    raise _problem(key, "merge keys (<<) that unfold to too many values")
            self.sizes[id(node)] = count
            return node

        def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
            number = node.tag.endswith((":int", ":float"))
            if number and len(node.value) > _NUMBER_CAP:
                raise _problem(node, f"a number of {len(node.value)} characters")
            return super().construct_scalar(node)

    plain_tags = {f"tag:yaml.org,2002:{tag}" for tag in _TAGS}
    Loader.yaml_constructors = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in plain_tags  # None: says that the tag is unknown
    }
    plain = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
    Loader.yaml_implicit_resolvers = {
        first: [
            (tag, plain.get(tag, pattern))
            for tag, pattern in resolvers
            if not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _problem(node: yaml.Node, text: str) -> yaml.MarkedYAMLError:
    import yaml

    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)


# As in YAML 1.1, but without numbers to the base of sixty (12:30).
_INT = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?((?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
