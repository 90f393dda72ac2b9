"""Batch prediction: slides, feature files and bags to probabilities, top tiles and heatmaps.

Shapes: n instances of a bag, D width of a feature, C classes, K branches of attention.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ...base.errors import fail
from ...base.files import clear_aside, place_below, walk_folder
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.slides.bags import is_bag_table, match_files, read_bag_table, read_cohort
from ...data.slides.features import SlideFeatures, read_features
from ...data.slides.slides import SLIDE_SUFFIXES, list_slides, one_of_each_series
from ...models.bags.acmil import ACMIL, BagModel
from ..engine.pipeline import Context, Item, Schema
from .data import WsiSpec
from .explain import open_slide, write_explanation
from .extraction import Extractor
from .options import WsiPredictOptions

FEATURE_SUFFIXES = (".h5", ".hdf5")

PredictContext = Context[WsiPredictOptions, WsiSpec]


BagItem = Item
"""A bag to predict for: of a table, by its name, or a slide or feature file."""


class BagFeatures(NamedTuple):
    """A bag that was read, and the file of its slide if there is one."""

    features: SlideFeatures
    slide: str | None


def list_inputs(options: WsiPredictOptions) -> list[BagItem]:
    """What --input holds, sorted: a bag of a table, or a file whose id is its path below the folder
    that --input names.

    Raises `InputError` if there is nothing.
    """
    path = Path(options.input)
    if path.is_dir():
        home, files = path, _files_below(path)
    elif glob.has_magic(options.input) and not path.exists():
        matches = glob.glob(options.input, recursive=True)
        files = one_of_each_series(sorted(file for file in matches if Path(file).is_file()))
        home = _common_folder(files)
    elif suffix_of(path) in TABLE_SUFFIXES:
        return _items_of_table(path, options)
    elif not path.is_file():
        raise fail(path, "there is no such slide, feature file, table or folder")
    elif path.suffix.lower() not in (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES):
        kinds = f"{', '.join(SLIDE_SUFFIXES)}, .h5 or a table"
        raise fail(path, f"unknown kind of file {path.suffix!r}; give {kinds}")
    else:
        home, files = path.parent, [str(path)]
    if not files:
        raise fail(options.input, "holds no slide and no feature file")
    return [{"file": file, "id": Path(file).relative_to(home).as_posix()} for file in files]


def _items_of_table(path: Path, options: WsiPredictOptions) -> list[BagItem]:
    """The bags of a table, or the slides (else feature files) that a list of slides names."""
    if is_bag_table(path):
        return [{"file": str(path), "id": name} for name in read_bag_table(path).cohort.names]
    names = read_cohort(path).names
    home = Path(options.slides) if options.slides else path.parent
    file_of: dict[str, str] = {}
    if options.features:
        stored = {name: Path(options.features) / f"{name}.h5" for name in names}
        file_of = {name: str(file) for name, file in stored.items() if file.is_file()}
    file_of |= match_files(names, list_slides(home), path)
    return [{"file": file_of[name], "id": name} for name in names if name in file_of]


def _files_below(home: Path) -> list[str]:
    """Slides below a folder, and feature files of which there is no slide with the same name, such
    as those that an extraction stored.
    """
    slides = list_slides(home)
    stems = {Path(slide).stem for slide in slides}
    stored = [home / name for name in walk_folder(home, FEATURE_SUFFIXES)]
    return sorted([*slides, *(str(path) for path in stored if path.stem not in stems)])


def _common_folder(files: Sequence[str]) -> Path:
    parents = [Path(file).parent for file in files]
    home = parents[0] if parents else Path()
    while not all(parent.is_relative_to(home) for parent in parents):
        home = home.parent
    return home


class ItemReader:
    """Reads bags of tables, feature files and slides; a table, the folder of slides
    and the encoder are opened once.

    Raises `InputError` for an item that cannot be read.
    """

    def __init__(self, context: PredictContext) -> None:
        self.options, self.spec, self.device = context.options, context.spec, context.device
        self._table, self._slides = cache(read_bag_table), cache(list_slides)

    def __call__(self, item: BagItem) -> BagFeatures:
        """Read an item by the kind of its file."""
        file = item["file"]
        if suffix_of(Path(file)) in TABLE_SUFFIXES:
            return self._bag_of_table(item)
        if file.lower().endswith(FEATURE_SUFFIXES):
            return self._feature_file(item)
        return self._slide(item)

    def _bag_of_table(self, item: BagItem) -> BagFeatures:
        table = self._table(item["file"])
        values = table.bag(table.cohort.names.index(name_of(item)))
        places = np.zeros((len(values), 2), np.int64)
        return BagFeatures(SlideFeatures(values, places, extent=0), None)

    def _feature_file(self, item: BagItem) -> BagFeatures:
        stem, folder = Path(item["file"]).stem, self.options.slides
        slides = [] if folder is None else self._slides(folder)
        slide = next((path for path in slides if Path(path).stem == stem), None)
        return BagFeatures(read_features(item["file"], slide=stem), slide)

    def _slide(self, item: BagItem) -> BagFeatures:
        file = item["file"]
        if self.spec.extraction is None:
            raise fail(file, "the model was trained on a table of bags; slides are no input for it")
        path = slide_folder(item, self.options) / "features.h5"
        if self.options.features:
            path = Path(self.options.features) / f"{Path(file).stem}.h5"
        if not path.is_file():
            clear_aside(path.parent, path.name)
        self._extractor.ensure(path, file, mpp_of(self.options, self.spec))
        return BagFeatures(read_features(path), file)

    @cached_property
    def _extractor(self) -> Extractor:
        assert self.spec.extraction is not None
        return Extractor(self.spec.extraction, self.device)


def name_of(item: BagItem) -> str:
    """What the table of predictions calls an item."""
    return item.get("id", Path(item["file"]).name)


def mpp_of(options: WsiPredictOptions, spec: WsiSpec) -> float | None:
    """Micrometres per pixel of slides whose file does not say."""
    return options.mpp if options.mpp is not None else spec.mpp


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
    """The row of an item; its heatmaps are written with --explain.

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
        row |= {
            "top_x": stored.coords[best, 0].tolist(),
            "top_y": stored.coords[best, 1].tolist(),
            "top_attention": mean[best].tolist(),
        }
        if options.explain and stored.extent:
            headline = f"{name_of(item)}: {predicted} ({probability.max():.0%}), {count} tiles"
            opened = open_slide(slide, mpp_of(options, spec))
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
    if not isinstance(model, ACMIL) or output.scores is None:
        return probability, None
    return probability, model.attention_of(output.scores).float().cpu().numpy()
