"""Packages of a Debian archive and their descriptions, out of its index files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ....base.errors import fail, reason, shown
from .index_files import read_fields

FIELDS = (
    "Package", "Source", "Tag", "Section", "Priority", "Architecture", "Installed-Size", "Size",
    "Depends", "Pre-Depends", "Recommends", "Suggests",
)  # fmt: skip
RELEASE_FIELDS = ("Origin", "Suite", "Codename", "Version", "Date")
_RELEASE_CAP = 1 << 20
_PACKAGE_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.\-]*)")
_TO_CHOOSE = "TODO"  # the tag of a facet that somebody still has to choose a tag of


@dataclass(frozen=True)
class Package:
    """A binary package.

    tags: without those that say that a tag is still to be chosen; relations: by field, the lists
    of packages that would do, for each thing that is needed; sizes in KiB and in bytes, None where
    the archive does not say; text_key: of the description, the same in all languages.
    """

    name: str
    source: str
    tags: tuple[str, ...]
    section: str
    priority: str
    architecture: str
    installed_size: int | None
    download_size: int | None
    relations: Mapping[str, tuple[tuple[str, ...], ...]]
    text_key: str


@dataclass
class Archive:
    """What index files hold.

    packages: in the order of the archive, the last of each name; texts: by language and key;
    release: what the archive says of itself, empty without an InRelease file; left_out: counts of
    what is not here, by what it is.
    """

    packages: list[Package]
    texts: dict[str, dict[str, str]]
    release: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


def read_archive(files: Sequence[Path], *, progress: bool = True) -> Archive:
    """Read index files, in any order; what each holds is seen in its fields.

    Raises InputError for a file that is none of them, and where there is no file of packages.
    """
    packages: dict[str, Package] = {}
    texts: dict[str, dict[str, str]] = {}
    older = choices = 0
    release: dict[str, str] = {}
    hidden = None if progress else True  # None: shown on a terminal
    with tqdm(unit=" packages", desc="index files", leave=False, disable=hidden) as bar:
        for path in files:
            if facts := _release(path):
                release = facts
                continue
            for number, fields in enumerate(read_fields(path, FIELDS), 1):
                bar.update()
                key = fields.get("Description-md5", "")
                names = [name for name in fields if name.startswith("Description-")]
                if languages := [name for name in names if name != "Description-md5"]:
                    for name in languages:
                        language = name.removeprefix("Description-")
                        texts.setdefault(language, {})[key] = plain_text(fields[name])
                    continue
                if "Package" not in fields:
                    problem = "has no Package; is this a Packages, Translation or InRelease file?"
                    raise fail(path, f"paragraph {number} {problem}")
                if "\n" in (description := fields.get("Description", "")):
                    # An archive without translations has the long text among its packages.
                    digest = hashlib.md5(description.encode(), usedforsecurity=False)
                    key = key or digest.hexdigest()
                    texts.setdefault("en", {}).setdefault(key, plain_text(description))
                older += fields["Package"] in packages
                choices += fields.get("Tag", "").count(f":{_TO_CHOOSE}")
                packages[fields["Package"]] = _package(fields, key)
    if not packages:
        named = ", ".join(map(str, files)) or "no file"
        raise fail(named, "holds no packages; name the Packages file of the archive as well")
    left_out = {"older versions of packages": older, "tags still to be chosen (TODO)": choices}
    left_out = {what: count for what, count in left_out.items() if count}
    return Archive(list(packages.values()), texts, release, left_out)


def _package(fields: Mapping[str, str], key: str) -> Package:
    tags = (tag.strip() for tag in fields.get("Tag", "").replace("\n", " ").split(","))
    names = ("Pre-Depends", "Depends", "Recommends", "Suggests")
    return Package(
        name=fields["Package"],
        source=fields.get("Source", fields["Package"]).split(" ")[0],
        tags=tuple(dict.fromkeys(tag for tag in tags if tag and not tag.endswith(_TO_CHOOSE))),
        section=fields.get("Section", "").rpartition("/")[2],
        priority=fields.get("Priority", ""),
        architecture=fields.get("Architecture", ""),
        installed_size=_number(fields.get("Installed-Size", "")),
        download_size=_number(fields.get("Size", "")),
        relations={name: _related(fields.get(name, "")) for name in names},
        text_key=key,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _related(text: str) -> tuple[tuple[str, ...], ...]:
    """The packages of a relation: "a (>= 1), b | c:any" as (("a",), ("b", "c"))."""
    entries = []
    for entry in text.replace("\n", " ").split(","):
        matches = [_PACKAGE_NAME.match(name) for name in entry.split("|")]
        if names := tuple(match.group(1) for match in matches if match):
            entries.append(names)
    return tuple(entries)


def plain_text(description: str) -> str:
    """A description as text: its short form on the first line, then a line for each paragraph.
    Lines with a further blank before them are those of a list or a drawing, and stay lines.

    >>> plain_text("tool\\n It\\n does.\\n .\\n  * this\\n  * that")
    'tool\\nIt does.\\n* this\\n* that'
    """
    short, *lines = description.split("\n")
    texts, flowing = [short.strip()], False
    for line in lines:
        content = line.strip()
        if content == ".":
            flowing = False
        elif line[1:2] in (" ", "\t"):
            texts.append(content)
            flowing = False
        elif flowing:
            texts[-1] += f" {content}"
        else:
            texts.append(content)
            flowing = True
    return "\n".join(text for text in texts if text)


def _release(path: Path) -> dict[str, str]:
    """What an InRelease or Release file says; empty for another file."""
    if not path.name.endswith("Release"):
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_RELEASE_CAP).decode(errors="replace")
    except OSError as error:
        raise fail(path, f"cannot be read ({reason(error)})") from error
    lines = (line.partition(":") for line in text.splitlines())
    facts: dict[str, str] = {}
    for name, _, value in lines:
        if name in RELEASE_FIELDS:
            facts.setdefault(name, value.strip())  # a signature below has a Version, too
    if not facts:
        raise fail(path, f"holds none of the fields {', '.join(map(shown, RELEASE_FIELDS))}")
    return facts


def tag_meanings(vocabulary: Path) -> dict[str, str]:
    """What each tag means, as debtags says it: the facet, the tag and its description."""
    facets: dict[str, str] = {}
    meanings: dict[str, str] = {}
    for fields in read_fields(vocabulary, ("Facet", "Tag")):
        short, *lines = plain_text(fields.get("Description", "")).split("\n")
        if "Facet" in fields:
            facets[fields["Facet"]] = short
        elif "Tag" in fields:
            facet = facets.get(fields["Tag"].partition("::")[0], "")
            meanings[fields["Tag"]] = ". ".join(filter(None, (facet, short, " ".join(lines))))
    return meanings


def part_of(group: str) -> str:
    """The part of a data set to which all texts of a group belong, always the same: 70 % train,
    10 % validation, 20 % test, by the checksum of its name.
    """
    place = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100
    return "train" if place < 70 else "validation" if place < 80 else "test"
