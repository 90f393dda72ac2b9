"""One planted bug: what a mutation test replaces, and which tests must notice."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug of one place. `old` must occur exactly once in `file`."""

    id: str
    area: str  # engine, pipelines, data, models
    file: str  # path below the package, as in `pipelines/engine/training/loop.py`
    old: str
    new: str
    tests: tuple[
        str, ...
    ]  # arguments of pytest, paths below `tests/`: `contract/test_tasks.py::test_x`, `-k forecast`
