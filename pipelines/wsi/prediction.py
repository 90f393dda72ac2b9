"""Batch prediction: slides, feature files and bags to probabilities, top tiles and heatmaps.

Shapes: n instances of a bag, D width of a feature, C classes, K branches of attention.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, NotRequired

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ...base.account import accepts, note
from ...base.errors import fail
from ...base.files import clear_aside, lies_in, pattern_home, place_below, walk_folder
from ...base.own_files import COMPANIONS, in_companion
from ...data.columns import parse_columns
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.listed import note_whole_folder
from ...data.slides.bag_tables import BagTable, is_bag_table, read_bag_table
from ...data.slides.bags import Cohort, read_cohort
from ...data.slides.features import SlideFeatures, read_features
from ...data.slides.files import FEATURE_SUFFIXES, feature_names, match_files, not_matched
from ...data.slides.slides import SLIDE_SUFFIXES, list_slides, one_of_each_series
from ...models.bags.acmil import BagModel
from ..engine.pipeline import Context, Item, Schema
from .data import WsiSpec
from .explain import open_slide, write_explanation
from .extraction import Extractor
from .options import COLUMN_FIELDS, WsiPredictOptions
from .scoring import attending
from .sources import match_features

PredictContext = Context[WsiPredictOptions, WsiSpec]


class BagItem(Item):
    """A bag to predict for: of a table, by its name, or a slide or feature file."""

    features: NotRequired[str]
    """Of a slide: its file in the folder of --features, be it there or not."""
    mpp: NotRequired[float]
    """Micrometres per pixel that the list gives for a slide."""


class BagFeatures(NamedTuple):
    """A bag that was read, and the file of its slide if there is one."""

    features: SlideFeatures
    slide: str | None


def list_inputs(options: WsiPredictOptions, spec: WsiSpec) -> list[BagItem]:
    """What --input holds, sorted: a bag of a table, or a file whose id is its path below the folder
    that --input names.

    Raises `InputError` if there is nothing, and where slides need an encoder that cannot be built.
    """
    path = Path(options.input)
    if not path.is_dir() and suffix_of(path) in TABLE_SUFFIXES and path.exists():
        items = _items_of_table(path, options, spec)
    else:
        home, files = _files_of(path, options)
        items = [BagItem(file=file, id=Path(file).relative_to(home).as_posix()) for file in files]
        slides = [item for item in items if is_slide(item)]
        if options.features and slides:
            names = feature_names([item["file"] for item in slides], home)
            _name_features(slides, names, options.features)
    kinds = {"slides": 0, "feature files": 0, "bags of a table": 0}
    for item in items:
        is_bag = suffix_of(Path(item["file"])) in TABLE_SUFFIXES
        kinds["slides" if is_slide(item) else "bags of a table" if is_bag else "feature files"] += 1
    for kind, count in kinds.items():
        if count:
            note("read", kind, count=count)
    _check_encoder(items, options, spec)
    return items


def is_slide(item: BagItem) -> bool:
    """Whether an item is a slide, not features."""
    return item["file"].lower().endswith(SLIDE_SUFFIXES)


def _files_of(path: Path, options: WsiPredictOptions) -> tuple[Path, list[str]]:
    """The slides and feature files that --input names, and the folder that all are below."""
    if path.is_dir():
        note_whole_folder(path, "slides and feature files")
        home, files = path, _files_below(path, options)
    elif glob.has_magic(options.input) and not path.exists():
        matches = glob.glob(options.input, recursive=True)
        if copies := [f for f in matches if in_companion(f, pattern_home(options.input))]:
            note("left out", COMPANIONS, sorted(copies))
            matches = sorted(set(matches) - set(copies))
        fitting = [f for f in matches if f.lower().endswith((*SLIDE_SUFFIXES, *FEATURE_SUFFIXES))]
        if other := sorted(set(matches) - set(fitting)):
            note("left out", "files of other kinds", other)
        files = [file for file in sorted(fitting) if Path(file).is_file()]
        home = _common_folder(files)
        files = one_of_each_series(_without_links_out(files, home))
    elif not path.is_file():
        raise fail(path, "there is no such slide, feature file, table or folder")
    elif path.suffix.lower() not in (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES):
        kinds = f"{', '.join((*SLIDE_SUFFIXES, *FEATURE_SUFFIXES))} or a table"
        raise fail(path, f"unknown kind of file {path.suffix!r}; give {kinds}")
    else:
        home, files = path.parent, [str(path)]
    if not files:
        raise fail(options.input, f"holds no slide and no feature file{links_below(path)}")
    return home, files


def _without_links_out(files: Sequence[str], home: Path) -> list[str]:
    """The files without links that lead out of a folder, unless these are accepted."""
    real = os.path.realpath(home)
    out = [f for f in files if os.path.islink(f) and not lies_in(os.path.realpath(f), real)]
    if accepts("links") or not out:
        return list(files)
    note("left out", "links that lead out of the folder (--accept links)", out)
    return [file for file in files if file not in out]


def _items_of_table(path: Path, options: WsiPredictOptions, spec: WsiSpec) -> list[BagItem]:
    """The bags of a table, or the slides (else feature files) that a list of slides names."""
    columns = parse_columns(options.columns, COLUMN_FIELDS)
    if is_bag_table(path, columns):
        names = _read_bags(path, options, spec).cohort.names
        return [BagItem(file=str(path), id=name) for name in names]
    if spec.bag_features is not None:
        raise fail(
            path,
            "there is no column 'bag', and the run was trained on a table of bags; name it with "
            "--columns bag=COLUMN",
        )
    cohort = read_cohort(path, columns, labelled=False, noted=False)
    home = Path(options.slides) if options.slides else path.parent
    listed = list_slides(home) if home.is_dir() else []
    stored = match_features(cohort.names, Path(options.features)) if options.features else {}
    slides = match_files(cohort.names, listed, path)
    items = [
        BagItem(file=slides.get(name) or str(stored[name]), id=name)
        for name in cohort.names
        if name in slides or name in stored
    ]
    missing = [name for name in cohort.names if name not in slides and name not in stored]
    if missing:
        folder = f" nor with features in {options.features}" if options.features else ""
        if not items:
            hint = "" if options.slides else "; say where with --slides"
            examples = not_matched(missing, listed)
            raise fail(path, f"no slide of it is in {home}{folder} ({examples}){hint}")
        note("left out", f"slides that are not in {home}{folder}", missing)
    _give_mpp(items, cohort)
    if options.features:
        in_list = [item for item in items if is_slide(item)]
        _name_features(in_list, [name_of(item) for item in in_list], options.features)
    return items


def _give_mpp(items: Sequence[BagItem], cohort: Cohort) -> None:
    known = dict(zip(cohort.names, cohort.mpp))
    for item in items:
        if (mpp := known[name_of(item)]) is not None:
            item["mpp"] = mpp


def _name_features(slides: Sequence[BagItem], names: Sequence[str], folder: str) -> None:
    """Give each slide its file in the folder of --features: the one that is there, or a new one."""
    stored = match_features(names, Path(folder))
    for item, name in zip(slides, names, strict=True):
        item["features"] = str(stored.get(name, place_below(Path(folder), f"{name}.h5")))


def _check_encoder(items: Sequence[BagItem], options: WsiPredictOptions, spec: WsiSpec) -> None:
    """Build the encoder, which is kept for the slides, if one of them has no features yet: what is
    wrong with it is no fault of the slides.
    """
    if spec.extraction is None:
        return
    new = [item for item in items if is_slide(item) and not feature_file(item, options).is_file()]
    if new:
        _ = extractor_of(options, spec, torch.device("cpu")).encoder


def _files_below(home: Path, options: WsiPredictOptions) -> list[str]:
    """Slides below a folder, and feature files of which there is no slide with the same name, such
    as those that an extraction stored; without what this very prediction writes.
    """
    written = Path(f"{options.output}.slides")
    slides = list_slides(home, FEATURE_SUFFIXES)
    stems = {Path(slide).stem for slide in slides}
    stored = [home / name for name in walk_folder(home, FEATURE_SUFFIXES, noted=False)]
    stored = [path for path in stored if not path.is_relative_to(written)]
    slides = [slide for slide in slides if not Path(slide).is_relative_to(written)]
    of_slides = [path.relative_to(home) for path in stored if path.stem in stems]
    if of_slides and not options.features:
        note("left out", "feature files of slides that are read themselves", of_slides)
    alone = [str(path) for path in stored if path.stem not in stems]
    stems_of_h5 = {Path(file).stem for file in alone if not file.endswith(".pt")}
    twice = [file for file in alone if file.endswith(".pt") and Path(file).stem in stems_of_h5]
    if twice:
        note("left out", "features as .pt that are there as .h5, too", twice)
    return sorted([*slides, *(file for file in alone if file not in twice)])


def links_below(folder: Path) -> str:
    """What to say of an empty folder that holds links, which lead nowhere or are not followed."""
    for home, folders, files in os.walk(folder):
        for path in (Path(home, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.exists():
                return f"; {path} is a link to nothing"
            if path.is_symlink() and not accepts("links"):
                return f"; {path} is a link, which --accept links follows"
    return ""


def _common_folder(files: Sequence[str]) -> Path:
    parents = [Path(file).parent for file in files]
    home = parents[0] if parents else Path()
    while not all(parent.is_relative_to(home) for parent in parents):
        home = home.parent
    return home


def _read_bags(path: Path, options: WsiPredictOptions, spec: WsiSpec) -> BagTable:
    """A table of bags with the features of the run, in its order."""
    return read_bag_table(
        path,
        parse_columns(options.columns, COLUMN_FIELDS),
        features=spec.features_of_bags,
        labelled=False,
        noted=False,
        copies_joined=False,
    )


class ItemReader:
    """Reads bags of tables, feature files and slides; a table, the folder of slides
    and the encoder are opened once.

    Raises `InputError` for an item that cannot be read.
    """

    def __init__(self, context: PredictContext) -> None:
        self.options, self.spec, self.device = context.options, context.spec, context.device
        self._table, self._slides = cache(self._read_table), cache(list_slides)

    def __call__(self, item: BagItem) -> BagFeatures:
        """Read an item by the kind of its file."""
        file = item["file"]
        if suffix_of(Path(file)) in TABLE_SUFFIXES:
            return self._bag_of_table(item)
        if file.lower().endswith(FEATURE_SUFFIXES):
            return self._feature_file(item)
        return self._slide(item)

    def _read_table(self, path: str) -> BagTable:
        return _read_bags(Path(path), self.options, self.spec)

    def _bag_of_table(self, item: BagItem) -> BagFeatures:
        table = self._table(item["file"])
        values = table.bag(table.cohort.names.index(name_of(item)))
        places = np.zeros((len(values), 2), np.int64)
        return BagFeatures(SlideFeatures(values, places, extent=0, has_places=False), None)

    def _feature_file(self, item: BagItem) -> BagFeatures:
        stem, folder = Path(item["file"]).stem, self.options.slides
        slides = match_files([stem], [] if folder is None else self._slides(folder), folder)
        if self.spec.extraction is not None:
            path, slide = Path(item["file"]), slides.get(stem)
            self._extractor.check(path, slide, self.options.mpp, tiles_only=True)
        return BagFeatures(read_features(item["file"], slide=stem), slides.get(stem))

    def _slide(self, item: BagItem) -> BagFeatures:
        file, path = item["file"], feature_file(item, self.options)
        if self.spec.extraction is None:
            if "features" in item and path.is_file():
                return BagFeatures(read_features(path, slide=name_of(item)), file)
            raise fail(
                file,
                "the model was trained on a table of bags or on features of another tool; slides "
                "are no input for it",
            )
        if path.is_file():
            self._extractor.check(path, file, mpp_of(item, self.options, self.spec))
        else:
            clear_aside(path.parent, path.name)
            self._extractor.ensure(path, file, mpp_of(item, self.options, self.spec))
        return BagFeatures(read_features(path, slide=name_of(item)), file)

    @cached_property
    def _extractor(self) -> Extractor:
        return extractor_of(self.options, self.spec, self.device)


def extractor_of(options: WsiPredictOptions, spec: WsiSpec, device: torch.device) -> Extractor:
    """What extracts features as the run did."""
    assert spec.extraction is not None
    by_hand = options.mpp is not None
    return Extractor(
        spec.extraction, device, mpp_first=by_hand, mpp_checked=by_hand, fetch=options.fetch_encoder
    )


def feature_file(item: BagItem, options: WsiPredictOptions) -> Path:
    """Where the features of a slide are, or will be."""
    if "features" in item:
        return Path(item["features"])
    return slide_folder(item, options) / "features.h5"


def name_of(item: BagItem) -> str:
    """What the table of predictions calls an item."""
    return item.get("id", Path(item["file"]).name)


def mpp_of(item: BagItem, options: WsiPredictOptions, spec: WsiSpec) -> float | None:
    """Micrometres per pixel of a slide, from its list, the options or the training."""
    return item.get("mpp", options.mpp if options.mpp is not None else spec.mpp)


def slide_folder(item: BagItem, options: WsiPredictOptions) -> Path:
    """The folder of what is written for a slide."""
    return place_below(Path(f"{options.output}.slides"), name_of(item))


def schema(classes: Sequence[str]) -> Schema:
    """prediction, p_CLASS, tiles, and the top tiles: places at level 0 and shares of the
    attention.
    """
    return {
        "prediction": pl.String(),
        **{f"p_{name}": pl.Float32() for name in classes},
        "tiles": pl.Int64(),
        "top_x": pl.List(pl.Int64),
        "top_y": pl.List(pl.Int64),
        "top_attention": pl.List(pl.Float32),
    }


def predict_item(
    model: BagModel, item: BagItem, bag: BagFeatures, context: PredictContext
) -> pl.DataFrame:
    """The row of an item; its heatmaps are written with --explain where the places of its tiles are
    known.

    Raises `InputError` for features of another width than the model's.
    """
    options, spec, (stored, slide) = context.options, context.spec, bag
    count, width = stored.features.shape
    if width != spec.width:
        raise fail(item["file"], f"features have width {width}, the model needs {spec.width}")
    probability, attention = classify(model, torch.from_numpy(stored.features).to(context.device))
    predicted = spec.classes[int(probability.argmax())]
    row: dict[str, object] = {"prediction": predicted, "tiles": count}
    row |= {f"p_{name}": float(p) for name, p in zip(spec.classes, probability)}
    if attention is not None:
        mean = attention.mean(1)
        best = np.argsort(-mean, kind="stable")[: options.top]
        row["top_attention"] = mean[best].tolist()
        if stored.has_places:
            row["top_x"] = stored.coords[best, 0].tolist()
            row["top_y"] = stored.coords[best, 1].tolist()
        if options.explain and stored.can_be_drawn:
            headline = f"{name_of(item)}: {predicted} ({probability.max():.0%}), {count} tiles"
            opened = open_slide(slide)
            folder = slide_folder(item, options)
            try:
                write_explanation(folder, stored, attention, opened, options.top, headline)
            finally:
                if opened is not None:
                    opened.close()
    return pl.DataFrame([row], schema=schema(spec.classes))


@torch.inference_mode()
def classify(model: BagModel, x: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities (C,) of a bag x (n, D), and its attention (n, K), None for a model without."""
    output = model.attend(x)
    probability = output.logits[0].float().softmax(0).cpu().numpy()
    attentive = attending(model)
    if attentive is None or output.scores is None:
        return probability, None
    return probability, attentive.attention_of(output.scores).float().cpu().numpy()
