"""Bugs in putting corpora of texts together: what is read, counted, limited and kept."""

from mutant import Mutant

_HOME = "data/catalogue/corpora"
DEBIAN = ("data/catalogue/test_debian.py",)
SENTIMENT = ("data/catalogue/test_sentiment.py",)

MUTANTS = [
    Mutant(
        "index-files-without-end",
        "data",
        f"{_HOME}/index_files.py",
        "if (total := total + len(chunk)) > TOTAL_CAP:",
        "if (total := total + len(chunk)) < 0:",
        DEBIAN,
    ),
    Mutant(
        "cut-xz-is-whole",
        "data",
        f"{_HOME}/index_files.py",
        '                    raise EOFError("the end is missing")',
        "                    return",
        DEBIAN,
    ),
    Mutant(
        "adoption-by-oneself",
        "data",
        f"{_HOME}/debian.py",
        "if source is not None and source != package.source:",
        "if source is not None:",
        DEBIAN,
    ),
    Mutant(
        "labels-of-the-test-part",
        "data",
        f"{_HOME}/debian.py",
        'if part_of(package.source) == "train"]',
        'if part_of(package.source) != "none"]',
        (*DEBIAN, "-k", "frequent"),
    ),
    Mutant(
        "unfinished-is-finished",
        "data",
        f"{_HOME}/building.py",
        "if not (home / SOURCE).is_file() or not (home / entry.file).is_file():",
        "if not (home / entry.file).is_file():",
        DEBIAN,
    ),
    Mutant(
        "ratings-of-a-neighbour",
        "data",
        f"{_HOME}/sentiment.py",
        "differing += abs(rating - sum(single) / len(single)) > 1e-3",
        "differing += abs(rating - sum(single) / len(single)) > 9",
        SENTIMENT,
    ),
    Mutant(
        "any-source-package",
        "data",
        f"{_HOME}/building.py",
        "        sound = checksum(paths[0]) == entry.sha256",
        "        sound = bool(checksum(paths[0]))",
        SENTIMENT,
    ),
]
