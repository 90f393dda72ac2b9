"""Batch inference: slides, feature files and bags to probabilities, top tiles and heatmaps."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from ...base.errors import InputError, fail
from ...base.files import clear_aside, walk_folder
from ...data.formats.tables import TABLE_SUFFIXES, suffix_of
from ...data.slides.bags import is_bag_table, match_files, read_bag_table, read_cohort
from ...data.slides.features import SlideFeatures, read_features
from ...data.slides.slides import SLIDE_SUFFIXES, list_slides, one_of_each_series
from ...models.bags.acmil import ACMIL
from ..engine.pipeline import Item
from .explain import open_slide, write_explanation
from .verbs.features import Extractor

FEATURE_SUFFIXES = (".h5", ".hdf5")


def list_inputs(options: Any, spec: dict[str, Any]) -> list[Item]:
    """What --input holds, sorted: a bag of a table, or a file whose id is its path below the folder
    given.
    """
    path = Path(options.input)
    if path.is_dir():
        home, files = path, _below(path)
    elif glob.has_magic(options.input) and not path.exists():
        files = one_of_each_series(
            sorted(f for f in glob.glob(options.input, recursive=True) if Path(f).is_file())
        )
        home = _common(files)
    else:
        if suffix_of(path) in TABLE_SUFFIXES:
            return _listed(path, options)
        if not path.is_file():
            raise fail(path, "there is no such slide, feature file, table or folder")
        if path.suffix.lower() not in (*SLIDE_SUFFIXES, *FEATURE_SUFFIXES):
            raise fail(
                path,
                f"unknown kind of file {path.suffix!r}; give {', '.join(SLIDE_SUFFIXES)}, .h5 or a table",
            )
        return [{"file": str(path), "id": path.name}]
    if not files:
        raise fail(options.input, "holds no slide and no feature file")
    return [{"file": file, "id": Path(file).relative_to(home).as_posix()} for file in files]


def _listed(path: Path, options: Any) -> list[Item]:
    """The bags of a table, or the slides (else feature files) that a list of slides names."""
    if is_bag_table(path):
        return [{"file": str(path), "id": name} for name in read_bag_table(path).cohort.names]
    names = read_cohort(path).names
    home = Path(options.slides) if options.slides else path.parent
    files = (
        {name: str(Path(options.features) / f"{name}.h5") for name in names}
        if options.features
        else {}
    )
    found = {name: file for name, file in files.items() if Path(file).is_file()} | match_files(
        names, list_slides(home), path
    )
    return [{"file": found[name], "id": name} for name in names if name in found]


def _below(home: Path) -> list[str]:
    """Slides below a folder, and feature files where there is no slide of that name: of an
    extraction's cache, none.
    """
    slides = list_slides(home)
    stems = {Path(slide).stem for slide in slides}
    stored = [home / name for name in walk_folder(home, FEATURE_SUFFIXES)]
    return sorted([*slides, *(str(path) for path in stored if path.stem not in stems)])


def _common(files: Sequence[str]) -> Path:
    parents = [Path(file).parent for file in files]
    home = parents[0] if parents else Path()
    while not all(parent.is_relative_to(home) for parent in parents):
        home = home.parent
    return home


def schema(spec: dict[str, Any]) -> dict[str, Any]:
    """prediction, p_CLASS, tiles, and the top tiles: places at level 0 and shares of the
    attention.
    """
    places, shares = pl.List(pl.Int64), pl.List(pl.Float32)
    return {
        "prediction": pl.String,
        **{f"p_{name}": pl.Float32 for name in spec["classes"]},
        "tiles": pl.Int64,
        "top_x": places,
        "top_y": places,
        "top_attention": shares,
    }


def predict_items(
    model: nn.Module,
    items: Sequence[Item],
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> list[pl.DataFrame | ValueError]:
    """A table of one row for each item, or the error that says why there is none."""
    rows: list[pl.DataFrame | ValueError] = []
    tables: dict[str, Any] = {}
    extractor: Extractor | None = None
    for item in items:
        try:
            file = item["file"]
            if suffix_of(Path(file)) in TABLE_SUFFIXES:
                table = tables.setdefault(file, None) or read_bag_table(file)
                tables[file] = table
                number = table.cohort.names.index(item["id"])
                values = table.features[table.offsets[number] : table.offsets[number + 1]]
                found, slide = SlideFeatures(values, np.zeros((len(values), 2), np.int64), 0), None
            elif file.lower().endswith(FEATURE_SUFFIXES):
                found = read_features(file, slide=Path(file).stem)
                slide = _slide_of(Path(file).stem, options.slides)
            else:
                if spec["extraction"] is None:
                    raise fail(
                        file, "the model was trained on a table of bags; slides are no input for it"
                    )
                extractor = extractor or Extractor(spec["extraction"], device)
                path = _features_of(item, options)
                if not path.is_file():
                    clear_aside(path.parent, path.name)
                extractor.ensure(path, file, _mpp(options, spec))
                found, slide = read_features(path), file
            rows.append(_one(model, item, found, slide, options, spec, device))
        except InputError as error:
            rows.append(error)
    return rows


def _mpp(options: Any, spec: dict[str, Any]) -> float | None:
    return options.mpp if options.mpp is not None else spec["mpp"]


def _features_of(item: Item, options: Any) -> Path:
    """Where the features of a slide are kept: below OUTPUT.slides, or by its name in a folder
    given.
    """
    if options.features:
        return Path(options.features) / f"{Path(item['file']).stem}.h5"
    return _home(item, options) / "features.h5"


def _home(item: Item, options: Any) -> Path:
    """The folder of what belongs to a slide; an id never leads out of it."""
    parts = [part for part in Path(item["id"]).parts if part not in ("..", "/", ".")]
    return Path(f"{options.output}.slides").joinpath(*parts)


def _slide_of(stem: str, folder: str | None) -> str | None:
    if folder is None:
        return None
    return next((path for path in list_slides(folder) if Path(path).stem == stem), None)


def _one(
    model: nn.Module,
    item: Item,
    found: SlideFeatures,
    slide: str | None,
    options: Any,
    spec: dict[str, Any],
    device: torch.device,
) -> pl.DataFrame:
    if found.features.shape[1] != spec["width"]:
        raise fail(
            item["file"],
            f"features have width {found.features.shape[1]}, the model needs {spec['width']}",
        )
    probability, attention = classify(model, torch.from_numpy(found.features).to(device))
    chosen = spec["classes"][int(probability.argmax())]
    row: dict[str, Any] = {"prediction": chosen, "tiles": len(found.features)}
    row |= {f"p_{name}": float(p) for name, p in zip(spec["classes"], probability)}
    if attention is not None:
        best = np.argsort(-attention.mean(1), kind="stable")[: options.top]
        row |= {"top_x": found.coords[best, 0].tolist(), "top_y": found.coords[best, 1].tolist()}
        row["top_attention"] = attention.mean(1)[best].tolist()
        if options.explain and found.extent:
            opened = open_slide(slide, _mpp(options, spec))
            headline = (
                f"{item['id']}: {chosen} ({probability.max():.0%}), {len(found.features)} tiles"
            )
            try:
                write_explanation(
                    _home(item, options), found, attention, opened, options.top, headline
                )
            finally:
                if opened is not None:
                    opened.close()
    return pl.DataFrame([row], schema=schema(spec))


@torch.inference_mode()
def classify(model: nn.Module, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities (C,) of one bag, and attention (n, K), None for a model without."""
    found = model.attend(x)  # pyright: ignore[reportCallIssue]
    probability = found.logits[0].float().softmax(0).cpu().numpy()
    if not isinstance(model, ACMIL):
        return probability, None
    return probability, model.attention_of(found.scores).float().cpu().numpy()
