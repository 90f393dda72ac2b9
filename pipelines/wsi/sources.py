"""Where bags come from: a table of bags, or slides whose features are stored or extracted now.

Shapes: n instances of a bag, D width of a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, fail, one_line
from ...base.files import walk_folder
from ...data.columns import parse_columns
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.items import digest
from ...data.listed import labels_table
from ...data.slides.bag_tables import BagTable, is_bag_table, read_bag_table
from ...data.slides.bags import Cohort, read_cohort
from ...data.slides.features import SlideFeatures, read_attributes, read_features
from ...data.slides.files import FEATURE_SUFFIXES, match_files, not_matched
from ...data.slides.generate import SAMPLE
from ...data.slides.slides import list_slides
from ..engine.command_line.checks import changed_options
from ..engine.pipeline import Member
from ..engine.subsets import BoundedCache
from .extraction import (
    STATUS_FILE,
    Extraction,
    Extractor,
    extract_slides,
    extraction_in,
    extraction_of,
    feature_path,
    is_own,
)
from .options import COLUMN_FIELDS, WsiOptions, check_of_bags, preset_of

if TYPE_CHECKING:
    from .data import WsiSpec

MEMORY_BYTES = 8 << 30  # of features; what is more is read again each time


class BagSource:
    """Bags and what is known about them.

    extraction: how the features of slides are extracted; None for bags of a table and for features
    of other tools. digests: what tells the contents of the bags apart.
    """

    extraction: Extraction | None = None

    def __init__(self, cohort: Cohort, where: str, digests: Sequence[str] = ()) -> None:
        self.cohort, self.where, self.digests = cohort, where, list(digests)

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        raise NotImplementedError

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the features of a table of bags, where it has a header."""
        return None

    def members(self, row: int) -> list[Member]:
        """What later predictions may name as the item of a row."""
        raise NotImplementedError


class TableBags(BagSource):
    """The bags of a table, in memory."""

    def __init__(self, table: BagTable, where: str) -> None:
        digests = [digest(table.bag(row)) for row in range(len(table.cohort))]
        super().__init__(table.cohort, where, digests)
        self.table = table

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        return torch.from_numpy(self.table.bag(row))

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the features, where the table has a header."""
        return list(self.table.columns) if self.table.named else None

    def members(self, row: int) -> list[Member]:
        """The bag of the table."""
        return [Member(self.where, self.cohort.names[row])]


class SlideBags(BagSource):
    """Slides whose features are in files; those that were read are held in memory as far as they
    fit.

    files: the feature file of each slide. slides: the file of each slide, as far as they are at
    hand. Both by the name of the slide.
    """

    def __init__(
        self,
        cohort: Cohort,
        where: str,
        files: Mapping[str, Path],
        slides: Mapping[str, str],
        extraction: Extraction | None,
    ) -> None:
        super().__init__(cohort, where)
        self.files, self.slides, self.extraction = files, slides, extraction
        self._place = {name: place for place, name in enumerate(files)}
        self._cache = BoundedCache(self._read, MEMORY_BYTES)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": None}  # another process reads what it needs

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._cache = BoundedCache(self._read, MEMORY_BYTES)

    def _read(self, place: int) -> Tensor:
        return torch.from_numpy(self.stored(list(self._place)[place]).features)

    def stored(self, name: str) -> SlideFeatures:
        """The features of a slide and their places, by its name."""
        return read_features(self.files[name], slide=name)

    def bag(self, row: int) -> Tensor:
        """Features of a bag, float32 (n, D)."""
        return self._cache[self._place[self.cohort.names[row]]]

    def members(self, row: int) -> list[Member]:
        """The slide and its feature file."""
        name = self.cohort.names[row]
        files = [str(self.files[name]), *([self.slides[name]] if name in self.slides else [])]
        return [Member(file) for file in files]

    def leave_out_unusable(self, *, copies_joined: bool = True) -> None:
        """Leave out slides whose features cannot be read, which go into the account; with
        copies_joined exact copies share a patient.

        Raises `InputError` for features of two widths, where no slide remains, and for copies with
        two labels or in two parts.
        """
        rows, failed, digests = [], [], []
        first_of_width: dict[int, str] = {}
        for row, name in enumerate(self.cohort.names):
            try:
                bag = self.bag(row)
            except InputError as error:
                failed.append(f"{name}: {one_line(error)}")
                continue
            rows.append(row)
            digests.append(digest(bag.numpy()))
            first_of_width.setdefault(bag.shape[1], str(self.files[name]))
        if failed:
            note("left out", "slides whose features cannot be used", failed)
        if not rows:
            raise fail(self.where, f"no slide of it could be used; {failed[0]}")
        if len(first_of_width) > 1:
            (width, file), (other, other_file) = list(first_of_width.items())[:2]
            raise fail(
                self.where,
                f"features have the widths {width} ({file}) and {other} ({other_file}); take one "
                "encoder for all slides",
            )
        self.cohort, self.digests = self.cohort.take(rows), digests
        if copies_joined:
            self.cohort = self.cohort.joined(self.where, "slide", digests)


@dataclass(frozen=True, kw_only=True)
class EvaluatedOptions(WsiOptions):
    """The options of a training by which a run is evaluated."""

    fetch_encoder: bool = False
    """Whether the encoder of the run may be fetched from a repository of anybody."""


def read_source(options: WsiOptions, spec: WsiSpec | None = None) -> BagSource:
    """The bags that --data names; features that are missing are extracted.

    spec: of a trained run, whose settings of the extraction count then. Raises `InputError` for a
    list that cannot be read, and if none of its slides can be used.
    """
    table, joined = table_of(options), spec is None or spec.groups_joined
    columns = parse_columns(options.columns, COLUMN_FIELDS)
    if _holds_bags(table, options):
        if spec is None and not options.resume:  # an older run may hold such options
            check_of_bags(options)
        features = None if spec is None else spec.features_of_bags
        bags = read_bag_table(table, columns, features=features, copies_joined=joined)
        return TableBags(bags, str(table))
    cohort = read_cohort(table, columns, usual_names=joined)
    home = slides_home(options, table)
    used_endings = (*FEATURE_SUFFIXES, STATUS_FILE, table.name.lower())
    listed = list_slides(home, used_endings) if home.is_dir() else []
    slides = match_files(cohort.names, listed, table)
    if others := sorted(set(listed) - set(slides.values())):
        note("left out", "slides that are not in the list", others)
    folder = _feature_folder(options, home, spec)
    feature_files = match_features(cohort.names, folder, noted=options.features is not None)
    missing = [name for name in cohort.names if name not in slides and name not in feature_files]
    if missing:
        _report_missing(missing, cohort, options, table, home, folder, listed)
    extractor = _extractor_for(options, home, folder, feature_files, spec)
    mpp = {name: listed_mpp or options.mpp for name, listed_mpp in zip(cohort.names, cohort.mpp)}
    if extractor is not None:
        for name, path in feature_files.items():
            extractor.check(path, slides.get(name), mpp[name])
    to_extract = {name: path for name, path in slides.items() if name not in feature_files}
    if to_extract and extractor is None:
        note(
            "left out",
            f"slides without features in {folder}, which are of another tool",
            to_extract,
        )
    elif to_extract and extractor is not None:
        status = extract_slides(extractor, folder, to_extract, mpp)
        failed = set(status.filter(status["status"] == "error")["slide"])
        feature_files |= {
            name: feature_path(folder, name) for name in to_extract if name not in failed
        }
    listed_count = len(cohort)
    rows = [row for row, name in enumerate(cohort.names) if name in feature_files]
    if not rows:
        raise fail(table, f"no slide of it could be used; {folder / STATUS_FILE} says why")
    cohort = cohort.take(rows).one_row_a_file(table, feature_files)
    extraction = None if extractor is None else extractor.settings
    source = SlideBags(cohort, str(table), feature_files, slides, extraction)
    source.leave_out_unusable(copies_joined=joined)
    if len(source.cohort) < listed_count:
        note("read", "slides used", count=len(source.cohort))
    return source


def _settings(options: WsiOptions, home: Path, spec: WsiSpec | None) -> Extraction:
    """How slides are extracted by the run or, for a training, by the options."""
    if spec is not None and spec.extraction is not None:
        return spec.extraction
    return extraction_of(options, generated=home.name == SAMPLE)


def _extractor_for(
    options: WsiOptions, home: Path, folder: Path, files: Mapping[str, Path], spec: WsiSpec | None
) -> Extractor | None:
    """What extracts the features that are missing beside those of `files`; None where these are of
    another tool, or the run was trained on such.

    Raises `InputError` for a folder in which files of several tools are mixed.
    """
    attributes = {name: _attributes(path) for name, path in files.items()}
    ours = [name for name, values in attributes.items() if is_own(values)]
    foreign = [name for name in files if name not in ours]
    if ours and foreign:
        both = f"of Headwise ({files[ours[0]]}) and of another tool ({files[foreign[0]]})"
        raise fail(folder, f"holds features {both}; give each a folder of its own")
    if foreign:
        note("read", "feature files of another tool", [files[name] for name in foreign])
        return None
    if spec is not None and spec.extraction is None:
        return None
    adopts = bool(ours) and spec is None and options.features is not None
    if adopts:
        options = _with_stored_encoder(options, attributes[ours[0]])
    settings = _settings(options, home, spec)
    if adopts:
        settings = _adopted(options, settings, extraction_in(attributes[ours[0]], settings))
    training = spec is None  # a run's settings are the words of whoever made the run
    return Extractor(
        settings,
        torch.device("cpu"),
        options.encode_batch,
        options.threads,
        mpp_first=training,
        mpp_checked=training,
        fetch=training or (isinstance(options, EvaluatedOptions) and options.fetch_encoder),
    )


def _attributes(path: Path) -> dict[str, object]:
    try:
        return read_attributes(path)
    except InputError:
        return {}  # it fails when its features are read


def _with_stored_encoder(options: WsiOptions, attributes: Mapping[str, object]) -> WsiOptions:
    """The options with the encoder of stored features, unless they name one: no weights are looked
    for, or fetched, that nothing needs.
    """
    with preset_of(options):
        changed = changed_options(options)
    if {"encoder", "weights"} & set(changed):
        return options
    encoder, weights = str(attributes["encoder"]), str(attributes["weights"])
    return replace(options, encoder=encoder, weights=weights)


def _adopted(options: WsiOptions, settings: Extraction, stored: Extraction) -> Extraction:
    """The settings of stored features, but for those that the options name."""
    with preset_of(options):
        changed = changed_options(options)
    sources = {name: settings if name in changed else stored for name in Extraction.__annotations__}
    # Not every extraction has every entry.
    adopted = {name: source[name] for name, source in sources.items() if name in source}  # pyright: ignore
    words = ", ".join(f"{name} {value}" for name, value in adopted.items())
    note("assumed", f"slides are encoded as the stored features were: {words}")
    return Extraction(**adopted)  # pyright: ignore[reportArgumentType]


def match_features(names: Sequence[str], folder: Path, *, noted: bool = False) -> dict[str, Path]:
    """The feature file of each name below a folder, those in the folder itself first; names without
    one are left out.

    noted: whether files of other kinds go into the account. Raises `InputError` where two files
    match a name.
    """
    if not folder.is_dir():
        return {}
    files = walk_folder(folder, (*FEATURE_SUFFIXES, STATUS_FILE), noted=noted)
    files = [file for file in files if not file.endswith(STATUS_FILE)]
    written = {name: feature_path(folder, name) for name in names}
    matched = {name: str(path) for name, path in written.items() if path.is_file()}
    for candidates in ([file for file in files if "/" not in file], files):
        rest = [name for name in names if name not in matched]
        matched |= match_files(rest, [str(folder / file) for file in candidates], folder)
    return {name: Path(matched[name]) for name in names if name in matched}


def _report_missing(
    missing: Sequence[str],
    cohort: Cohort,
    options: WsiOptions,
    table: Path,
    home: Path,
    folder: Path,
    listed: Sequence[str],
) -> None:
    if len(missing) == len(cohort):
        present = walk_folder(folder, FEATURE_SUFFIXES, noted=False) if folder.is_dir() else []
        hint = "" if options.slides else "; say where with --slides, or --features"
        examples = not_matched(missing, [*listed, *present])
        raise fail(
            table,
            f"no slide of it lies in {home} and none has features in {folder} ({examples}){hint}",
        )
    note("left out", f"slides neither in {home} nor with features in {folder}", missing)


def _holds_bags(table: Path, options: WsiOptions) -> bool:
    columns = parse_columns(options.columns, COLUMN_FIELDS)
    return suffix_of(table) in TABLE_SUFFIXES and is_bag_table(table, columns)


def own_feature_folder(options: WsiOptions) -> str | None:
    """Where the features of a training's own slides are; None for a table of bags."""
    table = table_of(options)
    if _holds_bags(table, options):
        return None
    home = slides_home(options, table)
    return str(_feature_folder(options, home, None))


def table_of(options: WsiOptions) -> Path:
    """The file that lists the slides or holds the bags."""
    if options.data is None:
        raise InputError("wsi: name a list of slides or a table of bags with --data")
    path = Path(options.data)
    if not path.is_dir():
        return path
    if (table := labels_table(path)) is None:
        listed = "it lists the slides (slide,label and perhaps patient,split,mpp)"
        raise fail(path, f"holds no labels.csv; {listed}")
    return table


def slides_home(options: WsiOptions, table: Path) -> Path:
    """The folder of the slides."""
    return Path(options.slides) if options.slides else table.parent


def _feature_folder(options: WsiOptions, home: Path, spec: WsiSpec | None) -> Path:
    if options.features:
        return Path(options.features)
    extraction = _settings(options, home, spec)
    encoder = extraction["encoder"].replace("/", "-").replace(":", "-")
    side = f"-at-{extraction['encoder_side']}px" if "encoder_side" in extraction else ""
    return home / f"features-{encoder}{side}-{extraction['tile']}px-{extraction['tile_mpp']:g}um"
