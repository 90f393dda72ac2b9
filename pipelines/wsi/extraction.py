"""Slides to feature files: tissue, tiles, encoder. Resumable, and a broken slide never stops the
others.

Shapes: N tiles of a slide, D width of a feature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import filelock
import numpy as np
import polars as pl
import torch

from ...base.errors import InputError
from ...base.files import clear_aside, write_aside, write_text
from ...data.slides.features import SlideFeatures, read_features, write_features
from ...data.slides.slides import Slide
from ...data.slides.tiles import Grid, TileReader, tile_grid
from ...models.layers.encoders import RANDOM_FILTERS, TileEncoder, build_encoder
from ..engine.command_line.terminal import Progressbar, say
from .options import FeaturesOptions, WsiOptions

DEFAULT_ENCODER = "resnet50.a1_in1k"
STATUS = {
    "slide": pl.String,
    "status": pl.String,
    "tiles": pl.Int64,
    "error": pl.String,
    "before": pl.Boolean,
}
"""Columns of an extraction: the slide, "ok" or "error", its number of tiles, the error, and whether
its file was there before. All but the last are in status.csv."""


class Extraction(TypedDict):
    """What decides the features of a slide, in the spec of a run."""

    encoder: str
    weights: str
    tile: int
    tile_mpp: float
    overlap: float
    least_tissue: float


def extraction_of(options: WsiOptions | FeaturesOptions, generated: bool = False) -> Extraction:
    """The settings that the options name; generated: for the slides of the built-in sample."""
    encoder, weights = options.encoder, options.weights
    if encoder == "auto":
        encoder = RANDOM_FILTERS if generated else DEFAULT_ENCODER
    if encoder == RANDOM_FILTERS:
        weights = "random"
    return {
        "encoder": encoder,
        "weights": weights,
        "tile": options.tile,
        "tile_mpp": options.tile_mpp,
        "overlap": options.overlap,
        "least_tissue": options.least_tissue,
    }


@dataclass
class Extractor:
    """Slides to features by fixed settings. The encoder is built when it is first needed: stored
    files without a fingerprint need none.
    """

    settings: Extraction
    device: torch.device
    batch: int = 64
    threads: int = 2
    waited: float = 0.0
    """Seconds that the encoder has waited for tiles."""

    @cached_property
    def encoder(self) -> TileEncoder:
        """The encoder; `InputError` if timm does not know it or its weights do not fit."""
        name = self.settings["encoder"]
        try:
            return build_encoder(name, self.settings["weights"]).to(self.device)
        except ValueError as error:
            raise InputError(f"--encoder {name}: {error}") from None

    def fingerprint(self, mpp: float | None) -> str:
        """What the feature file of these settings is stamped with."""
        relevant = {**self.settings, "weights": self.encoder.fingerprint(), "mpp": mpp}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def ensure(self, path: Path, slide: str, mpp: float | None) -> tuple[int, bool]:
        """Write the feature file of a slide to `path`, unless it is there already; returns the
        number of tiles, and whether it was there.

        Raises `InputError` for a slide that cannot be read or shows no tissue, and for an existing
        file of other settings.
        """
        if path.is_file():
            stored = read_features(path)
            stamp = stored.attributes.get("fingerprint")
            if stamp is not None and stamp != self.fingerprint(mpp):
                raise InputError(
                    f"{path}: features made with other settings; choose another --features or "
                    "remove it"
                )
            return len(stored.features), True
        with Slide(slide, mpp) as opened:
            grid = self.grid(opened)
            features, coords = self.encode(opened, grid)
            attributes = {
                "name": Path(slide).stem,
                "patch_size": grid.tile,
                "patch_size_level0": grid.extent,
                "level0_mpp": grid.mpp,
                "target_mpp": grid.tile_mpp,
                "overlap": round(self.settings["overlap"] * grid.tile),
                "level0_width": opened.size[0],
                "level0_height": opened.size[1],
                "encoder": self.settings["encoder"],
                "weights": self.settings["weights"],
                "fingerprint": self.fingerprint(mpp),
            }
        write_aside(path, lambda part: write_features(part, features, coords, attributes))
        return len(features), False

    def grid(self, slide: Slide) -> Grid:
        """The tiles of a slide; `InputError` if there are none."""
        settings = self.settings
        grid = tile_grid(
            slide,
            tile=settings["tile"],
            tile_mpp=settings["tile_mpp"],
            overlap=settings["overlap"],
            least_tissue=settings["least_tissue"],
        )
        if not len(grid):
            raise InputError(
                f"{slide.path}: no tile has enough tissue ({grid.tissue.share:.1%} of the slide is "
                "tissue); a smaller --least-tissue, --tile or --tile-mpp finds more"
            )
        return grid

    def encode(self, slide: Slide, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, D) and coordinates (N, 2) of all tiles that are not blank."""
        reader = TileReader(slide, grid, batch=self.batch, threads=self.threads)
        features, rows = [], []
        with (
            torch.inference_mode(),
            Progressbar(total=len(grid), unit="tile", desc=Path(slide.path).name) as bar,
        ):
            for numbers, tiles, blank in reader:
                if not blank.all():
                    shown = torch.from_numpy(tiles[~blank] if blank.any() else tiles)
                    features.append(self.encoder(shown.to(self.device)).float().cpu().numpy())
                    rows.append(numbers[~blank])
                bar.update(len(numbers))
        self.waited += reader.waited
        if not features:
            raise InputError(f"{slide.path}: all its {len(grid)} tiles are blank")
        return np.concatenate(features), grid.coords[np.concatenate(rows)]


def extract_slides(
    extractor: Extractor, folder: Path, slides: Mapping[str, str], mpp: Mapping[str, float | None]
) -> pl.DataFrame:
    """Write the feature file NAME.h5 of each slide into `folder`, and status.csv with one row per
    slide. Files that are there already are left as they are.

    slides: the file of each name; mpp: micrometres per pixel by name, for slides whose file does
    not say. Returns a table with the columns `STATUS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    # Of several processes one extracts, and the others find it done.
    with filelock.FileLock(folder / ".lock"):
        clear_aside(folder)
        with Progressbar(total=len(slides), unit="slide", desc="features") as bar:
            for name, slide in slides.items():
                row: dict[str, object] = {"slide": name, "status": "ok", "tiles": 0, "error": None}
                try:
                    path = folder / f"{name}.h5"
                    row["tiles"], row["before"] = extractor.ensure(path, slide, mpp[name])
                except InputError as error:
                    row |= {"status": "error", "error": str(error), "before": False}
                rows.append(row)
                bar.update()
        table = pl.DataFrame(rows, schema=STATUS)
        write_text(folder / "status.csv", table.drop("before").write_csv())
    _say_outcome(table, folder)
    return table


def _say_outcome(table: pl.DataFrame, folder: Path) -> None:
    errors = table.filter(pl.col("status") == "error")["error"]
    before = int(table["before"].sum())
    if before < len(table):
        new = len(table) - before - len(errors)
        say(
            f"features of {new} slides extracted, {before} were there before, {len(errors)} failed "
            f"({folder})"
        )
    for error in errors:
        say(f"  {error}")


def stored_features(folder: Path, name: str) -> SlideFeatures:
    """The features of a slide, by its name."""
    return read_features(folder / f"{name}.h5", slide=name)
