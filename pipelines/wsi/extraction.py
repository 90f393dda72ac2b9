"""Slides to feature files: tissue, tiles, encoder. Resumable, and a broken slide never stops the
others.

Shapes: N tiles of a slide, D width of a feature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypedDict

import filelock
import numpy as np
import polars as pl
import torch

from ...base.account import note
from ...base.errors import InputError, fail
from ...base.files import clear_aside, place_below, storable, write_aside, write_text
from ...data.slides.features import read_attributes, read_features, write_features
from ...data.slides.files import slide_digest
from ...data.slides.slides import Slide
from ...data.slides.tiles import Grid, TileReader, tile_grid
from ...models.layers.encoders import HUB, RANDOM_FILTERS, TileEncoder, build_encoder
from ..engine.command_line.terminal import Progressbar, say
from ..engine.weights import AUTO, NO_WEIGHTS, Weights, is_name, resolve_weights
from .options import FeaturesOptions, WsiOptions

DEFAULT_ENCODER = "resnet50.a1_in1k"
STATUS_FILE = "status.csv"
STATUS = {
    "slide": pl.String,
    "status": pl.String,
    "tiles": pl.Int64,
    "error": pl.String,
    "before": pl.Boolean,
}
"""Columns of an extraction: the slide, "ok" or "error", its number of tiles, the error, and whether
its file was there before. All but the last are in status.csv."""


class EncoderSide(TypedDict, total=False):
    """Pixels of a side that tiles are resized to; none where the encoder itself says."""

    encoder_side: int


class Extraction(EncoderSide):
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
    if encoder == "auto" and weights == AUTO and generated:
        encoder = RANDOM_FILTERS  # its textures need no more
    elif encoder == "auto" and (weights == AUTO or is_name(weights)):
        resolved = _resolved(encoder, weights)
        # Without any weights at hand the default is asked for: random filters know nothing of
        # tissue, and are for those who name them.
        encoder = resolved.architecture if resolved.pretrained else DEFAULT_ENCODER
        of_hub = resolved.name.startswith(HUB) or not is_name(resolved.name)
        weights = "pretrained" if of_hub else resolved.name
    elif encoder == "auto":
        encoder = RANDOM_FILTERS if generated else DEFAULT_ENCODER
    if encoder == RANDOM_FILTERS:
        weights = "random"
    elif weights == AUTO:
        weights = "pretrained"
    return {
        "encoder": encoder,
        "weights": weights,
        **_side(options.encoder_side),
        "tile": options.tile,
        "tile_mpp": options.tile_mpp,
        "overlap": options.overlap,
        "least_tissue": options.least_tissue,
    }


def _side(side: object) -> EncoderSide:
    """The entry of a side; empty for None."""
    return {} if side is None else {"encoder_side": int(str(side))}


def is_own(attributes: Mapping[str, object]) -> bool:
    """Whether a feature file with these attributes was written by `Extractor`."""
    return "fingerprint" in attributes


def extraction_in(attributes: Mapping[str, object], settings: Extraction) -> Extraction:
    """The settings that a feature file of ours was made with; what it does not say is as in
    `settings`.
    """
    tile = int(str(attributes["patch_size"]))
    return {
        "encoder": str(attributes["encoder"]),
        "weights": str(attributes["weights"]),
        **_side(attributes.get("encoder_side")),
        "tile": tile,
        "tile_mpp": float(str(attributes["target_mpp"])),
        "overlap": float(str(attributes["overlap"])) / tile,
        "least_tissue": float(str(attributes.get("least_tissue", settings["least_tissue"]))),
    }


def _resolved(encoder: str, weights: str) -> Weights:
    return resolve_weights(
        weights, "features", backbone=encoder, scratch="auto", option="--encoder"
    )


@lru_cache(maxsize=2)
def _encoder(name: str, weights: str, side: int | None, device: torch.device) -> TileEncoder:
    """The encoder, built once for all slides and shards of a process."""
    if is_name(weights):
        weights = _resolved(name, weights).argument
    elif weights in NO_WEIGHTS:
        weights = "random"
    try:
        return build_encoder(name, weights, None if side is None else (side, side)).to(device)
    except ValueError as error:
        raise InputError(f"--encoder {name}: {error}") from None


@dataclass
class Extractor:
    """Slides to features by fixed settings. The encoder is built when it is first needed: stored
    files need none.
    """

    settings: Extraction
    device: torch.device
    batch: int = 64
    threads: int = 2
    mpp_first: bool = False
    """Whether the micrometres per pixel that the user gives count more than what a file says."""
    mpp_checked: bool = True
    """Whether stored features must be of the same micrometres per pixel."""
    fetch: bool = True
    """Whether an encoder may be fetched from a repository of anybody; a run may name any."""
    waited: float = 0.0
    """Seconds that the encoder has waited for tiles."""

    @cached_property
    def encoder(self) -> TileEncoder:
        """The encoder; `InputError` if timm does not know it or its weights do not fit."""
        name, weights = self.settings["encoder"], self.settings["weights"]
        if name.startswith(HUB) and not self.fetch:
            raise InputError(
                f"the run names the encoder {name}, which would be fetched from the repository of "
                "whoever made the run; if you trust it, give --fetch-encoder, or extract the "
                f"features with `headwise wsi features --encoder {name}` first"
            )
        return _encoder(name, weights, self.settings.get("encoder_side"), self.device)

    def fingerprint(self, mpp: float | None) -> str:
        """What the feature file of these settings is stamped with."""
        relevant = {**self.settings, "weights": self.encoder.fingerprint(), "mpp": mpp}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def ensure(self, path: Path, slide: str, mpp: float | None) -> tuple[int, bool]:
        """Write the feature file of a slide to `path`, unless it is there already; returns the
        number of tiles, and whether it was there.

        Raises `InputError` for a slide that cannot be read or shows no tissue, and for an existing
        file of other settings or another slide.
        """
        if path.is_file():
            if not is_own(read_attributes(path)):
                raise fail(path, "is a feature file of another tool; choose another folder")
            self.check(path, slide, mpp)
            return len(read_features(path).features), True
        with Slide(slide, mpp, mpp_first=self.mpp_first) as opened:
            grid = self.grid(opened)
            features, coords = self.encode(opened, grid)
            x, y = opened.origin
            attributes = {
                "name": storable(Path(slide).stem),
                "patch_size": grid.tile,
                "patch_size_level0": grid.extent,
                "level0_mpp": grid.mpp,
                "target_mpp": grid.tile_mpp,
                "overlap": round(self.settings["overlap"] * grid.tile),
                "least_tissue": self.settings["least_tissue"],
                "level0_width": opened.size[0],
                "level0_height": opened.size[1],
                "bounds_x": x,
                "bounds_y": y,
                "encoder": self.settings["encoder"],
                "weights": self.settings["weights"],
                **_side(self.settings.get("encoder_side")),
                "fingerprint": self.fingerprint(mpp),
                "slide_digest": slide_digest(slide),
            }
        write_aside(path, lambda part: write_features(part, features, coords, attributes))
        return len(features), False

    def check(
        self, path: Path, slide: str | None, mpp: float | None, *, tiles_only: bool = False
    ) -> None:
        """Raise `InputError` for a feature file of other settings or of another slide than `slide`;
        files of other tools say neither, and pass.

        tiles_only: whether it is enough that the tiles were encoded alike, wherever they lie.

        Files of older versions do not name their slide; of those the size is compared.
        """
        attributes = read_attributes(path)
        if not is_own(attributes):
            return
        cure = "choose another --features or remove it"
        expected = self._expected()
        for name in ("overlap", "least_tissue") if tiles_only else ():
            del expected[name]
        for name, value in expected.items():
            if name in attributes and attributes[name] != value:
                other = f"{name} {attributes[name]} instead of {value}"
                raise fail(path, f"features made with other settings ({other}); {cure}")
        sides = attributes.get("encoder_side"), self.settings.get("encoder_side")
        if sides[0] != sides[1]:
            before, now = (side or "the encoder's" for side in sides)
            other = f"encoder_side {before} instead of {now}"
            raise fail(path, f"features made with other settings ({other}); {cure}")
        by_file = self.settings["weights"] not in ("pretrained", "random")
        if by_file and self.mpp_checked and attributes["fingerprint"] != self.fingerprint(mpp):
            raise fail(path, f"features made with other settings (--weights or --mpp); {cure}")
        if slide is not None:
            self._check_slide(path, attributes, slide, mpp, cure)

    def _expected(self) -> dict[str, object]:
        """What the attributes of a file of these settings hold."""
        settings, tile = self.settings, self.settings["tile"]
        by_file = settings["weights"] not in ("pretrained", "random")
        return {
            "encoder": settings["encoder"],
            **({} if by_file else {"weights": settings["weights"]}),
            "patch_size": tile,
            "target_mpp": settings["tile_mpp"],
            "overlap": round(settings["overlap"] * tile),
            "least_tissue": settings["least_tissue"],
        }

    def _check_slide(
        self, path: Path, attributes: Mapping[str, object], slide: str, mpp: float | None, cure: str
    ) -> None:
        digest = attributes.get("slide_digest")
        try:
            same = digest is None or digest == slide_digest(slide)
        except OSError:
            return  # the features are at hand all the same
        if not same:
            raise fail(path, f"holds the features of another slide than {slide}; {cure}")
        try:
            with Slide(slide, mpp, mpp_first=self.mpp_first) as opened:
                size, now = opened.size, opened.mpp
        except InputError:
            return
        before = attributes.get("level0_width"), attributes.get("level0_height")
        if None not in before and before != size:
            raise fail(path, f"holds the features of another slide than {slide}; {cure}")
        stored = attributes.get("level0_mpp")
        differs = isinstance(stored, float) and now is not None and abs(stored - now) > 0.01 * now
        if self.mpp_checked and differs:
            raise fail(path, f"features made with other settings (mpp {stored:.4g}); {cure}")

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
        if not len(grid) and grid.tissue.grey:
            raise fail(
                slide.path,
                "is grey, and tissue is told from glass by its colour; extract its features with "
                "another tool",
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


def feature_path(folder: Path, name: str) -> Path:
    """Where the features of a slide are written, by its name."""
    return place_below(folder, f"{name}.h5")


def extract_slides(
    extractor: Extractor, folder: Path, slides: Mapping[str, str], mpp: Mapping[str, float | None]
) -> pl.DataFrame:
    """Write the feature file NAME.h5 of each slide into `folder`, and status.csv with one row per
    slide. Files that are there already are left as they are.

    slides: the file of each name; mpp: micrometres per pixel by name, that the user gives. Returns
    a table with the columns `STATUS`. Raises `InputError` where the encoder cannot be built.
    """
    _refuse_other_table(folder / STATUS_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    # Of several processes one extracts, and the others find it done.
    with filelock.FileLock(folder / ".lock"):
        clear_aside(folder)
        if not all(feature_path(folder, name).is_file() for name in slides):
            _ = extractor.encoder  # what is wrong with it is no fault of a slide
        with Progressbar(total=len(slides), unit="slide", desc="features") as bar:
            for name, slide in slides.items():
                row: dict[str, object] = {"slide": storable(name), "status": "ok"}
                row |= {"tiles": 0, "error": None}
                try:
                    path = feature_path(folder, name)
                    row["tiles"], row["before"] = extractor.ensure(path, slide, mpp[name])
                except InputError as error:
                    row |= {"status": "error", "error": storable(str(error)), "before": False}
                rows.append(row)
                bar.update()
        table = pl.DataFrame(rows, schema=STATUS)
        write_text(folder / STATUS_FILE, table.drop("before").write_csv())
    _say_outcome(table, folder)
    return table


def _refuse_other_table(path: Path) -> None:
    """Raise `InputError` for a status.csv that is not of an extraction: it would be replaced."""
    header = ",".join(name for name in STATUS if name != "before")
    if path.is_file() and not path.read_bytes().startswith(header.encode()):
        raise fail(path, "is not of an extraction; move it, or choose another folder")


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
    if len(errors):
        failed = table.filter(pl.col("status") == "error")["slide"]
        note("left out", f"slides without features, see {folder / STATUS_FILE}", failed)
