"""The corpora of a Debian archive as tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ....base.errors import InputError, shown
from .archive import Archive, Package, part_of

LEAST_TEXTS = 50  # of the training part, for a label of the table of one package a source
_KINDS = ("Recommends", "Suggests")
_NEEDS = ("Pre-Depends", "Depends")


@dataclass(frozen=True)
class Built:
    """A corpus: its tables by the name of their file, and what to say of it."""

    tables: Mapping[str, pl.DataFrame]
    counts: Mapping[str, int]


def tag_tables(archive: Archive, languages: Sequence[str]) -> Built:
    """A row for each tagged package and language that describes it, and, for each language, a table
    of one package a source (of several languages also its test part alone).

    Of a source, that is the package with the most tags, the first of these in the archive; its
    labels are those that at least `LEAST_TEXTS` of the training part have; a small archive has no
    such label, and no such table.

    Raises InputError where nothing is tagged, or a language has no text.
    """
    tagged = [package for package in archive.packages if package.tags]
    if not tagged:
        raise InputError("debian-tags: no package has tags; use the archive of Debian itself, main")
    counts = {
        "packages": len(archive.packages),
        "packages with tags": len(tagged),
        "labels": len({tag for package in tagged for tag in package.tags}),
    }
    rows = [
        (package, language, text)
        for package in tagged
        for language in languages
        if (text := archive.texts.get(language, {}).get(package.text_key))
    ]
    table = _tag_rows(rows, {tag for package in tagged for tag in package.tags})
    for language in languages:
        texts = archive.texts.get(language, {})
        described = sum(bool(texts.get(package.text_key)) for package in archive.packages)
        if not described:
            problem = "describes no package; Debian has de, en, es, fr, it, ja, pt_BR and others"
            raise InputError(f"debian-tags: language {shown(language)} {problem}")
        counts[f"texts in {language}"] = described
        counts[f"texts in {language} with tags"] = table.filter(language=language).height
    tables = {"debian-tags.parquet": table}
    singles = _one_a_source(tagged)
    frequent = _frequent_labels(singles)
    chosen = {package.name for package in singles}
    counts["labels of one package a source"] = len(frequent)
    for language in languages if frequent else ():
        of_language = [row for row in rows if row[1] == language and row[0].name in chosen]
        single = _tag_rows(of_language, frequent)
        tables[f"one-a-source-{language}.parquet"] = single
        if len(languages) > 1:
            # For a model of another language, which has met the packages of the other parts.
            tables[f"one-a-source-{language}-test.parquet"] = single.filter(part="test")
        for part, number in parts_of(single).items():
            counts[f"one package a source in {language}: {part}"] = number
    return Built(tables, counts)


def _one_a_source(tagged: Sequence[Package]) -> list[Package]:
    of_source: dict[str, Package] = {}
    for package in tagged:
        before = of_source.get(package.source)
        if before is None or len(package.tags) > len(before.tags):
            of_source[package.source] = package
    return list(of_source.values())


def _frequent_labels(packages: Sequence[Package]) -> set[str]:
    training = [package for package in packages if part_of(package.source) == "train"]
    counts = Counter(tag for package in training for tag in package.tags)
    return {tag for tag, count in counts.items() if count >= LEAST_TEXTS}


def _tag_rows(rows: Sequence[tuple[Package, str, str]], labels: set[str]) -> pl.DataFrame:
    """Without packages that have none of the labels."""
    chosen = [row for row in rows if not labels.isdisjoint(row[0].tags)]
    packages = [package for package, _, _ in chosen]
    return pl.DataFrame(
        {
            "id": [package.name for package in packages],
            "text": [text for _, _, text in chosen],
            "labels": [[tag for tag in package.tags if tag in labels] for package in packages],
            "group": [package.source for package in packages],
            "language": [language for _, language, _ in chosen],
            "part": [part_of(package.source) for package in packages],
            "section": [package.section for package in packages],
            "priority": [package.priority for package in packages],
            "architecture": [package.architecture for package in packages],
            "installed_size": [package.installed_size for package in packages],
            "download_size": [package.download_size for package in packages],
            "dependencies": [_related(package, _NEEDS) for package in packages],
            "recommends": [_related(package, _KINDS[:1]) for package in packages],
            "suggests": [_related(package, _KINDS[1:]) for package in packages],
        },
        schema_overrides={
            "labels": pl.List(pl.String),
            "installed_size": pl.Int64,
            "download_size": pl.Int64,
        },
    )


def _related(package: Package, kinds: Sequence[str]) -> int:
    return sum(len(package.relations[kind]) for kind in kinds)


def adoption_table(archive: Archive) -> Built:
    """A row for each source package with an English description: `target` is log(1 + number of
    other sources of which a package depends on, recommends or suggests one of its packages).

    Text, section and priority are those of its package of the same name, else of the one with the
    longest text; sizes and numbers of relations are summed over its packages. Raises InputError
    where nothing is described.
    """
    texts = archive.texts.get("en", {})
    of_source: dict[str, list[Package]] = defaultdict(list)
    for package in archive.packages:
        of_source[package.source].append(package)
    users = _users(archive.packages)
    rows = []
    for source, packages in of_source.items():
        described = [package for package in packages if texts.get(package.text_key)]
        if not described:
            continue
        main = max(described, key=lambda p: (p.name == source, len(texts[p.text_key])))
        pieces = source.split("-")
        rows.append(
            {
                "id": source,
                "text": texts[main.text_key],
                "target": float(np.log1p(users.get(source, 0))),
                "part": part_of(source),
                "section": main.section,
                "priority": main.priority,
                "architecture": main.architecture,
                "packages": len(packages),
                "installed_size": _sum(package.installed_size for package in packages),
                "download_size": _sum(package.download_size for package in packages),
                "dependencies": sum(_related(package, _NEEDS) for package in packages),
                "recommends": sum(_related(package, _KINDS[:1]) for package in packages),
                "suggests": sum(_related(package, _KINDS[1:]) for package in packages),
                "name_begin": "lib"
                if source.startswith("lib")
                else pieces[0]
                if pieces[1:]
                else "",
                "name_end": pieces[-1] if pieces[1:] else "",
            }
        )
    if not rows:
        raise InputError("debian-adoption: no text in English; name Translation-en as well")
    table = pl.DataFrame(rows)
    counts = {
        "source packages": len(of_source),
        "texts": table.height,
        "used by another source": int((table["target"] > 0).sum()),
        **parts_of(table),
    }
    return Built({"debian-adoption.parquet": table}, counts)


def _users(packages: Sequence[Package]) -> dict[str, int]:
    """How many other sources name a package of each source in a relation."""
    source_of = {package.name: package.source for package in packages}
    users: dict[str, set[str]] = defaultdict(set)
    for package in packages:
        for entries in package.relations.values():
            for name in (name for names in entries for name in names):
                source = source_of.get(name)
                if source is not None and source != package.source:
                    users[source].add(package.source)
    return {source: len(others) for source, others in users.items()}


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def parts_of(table: pl.DataFrame) -> dict[str, int]:
    return {part: table.filter(part=part).height for part in ("train", "validation", "test")}
