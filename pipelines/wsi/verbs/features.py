"""Slides to feature files: tissue, tiles, encoder; resumable, and one broken slide never stops the
others.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import polars as pl
import torch

from ....base.errors import InputError
from ....base.files import clear_aside, write_aside, write_text
from ....data.slides.features import SlideFeatures, read_features, write_features
from ....data.slides.slides import Slide, list_slides
from ....data.slides.tiles import Grid, TileReader, tile_grid
from ....models.layers.encoders import RANDOM_FILTERS, TileEncoder, build_encoder
from ...engine.command_line.terminal import Progressbar, say
from ...engine.runs.loaded import pick_device

DEFAULT_ENCODER = "resnet50.a1_in1k"
SETTINGS = ("encoder", "weights", "tile", "tile_mpp", "overlap", "least_tissue")


def settings_of(options: Any, generated: bool) -> dict[str, Any]:
    """What decides the features of a slide, as plain JSON; it goes into the spec of a run."""
    settings = {name: getattr(options, name) for name in SETTINGS}
    if settings["encoder"] == "auto":
        settings["encoder"] = RANDOM_FILTERS if generated else DEFAULT_ENCODER
    if settings["encoder"] == RANDOM_FILTERS:
        settings["weights"] = "random"
    return settings


@dataclass
class Extractor:
    """Slides to features by fixed settings. The encoder is made when it is first needed, for stored
    files need none.
    """

    settings: Mapping[str, Any]
    device: torch.device
    batch: int = 64
    threads: int = 2
    waited: float = 0.0
    _encoder: TileEncoder | None = None

    @property
    def encoder(self) -> TileEncoder:
        if self._encoder is None:
            try:
                self._encoder = build_encoder(
                    self.settings["encoder"], self.settings["weights"]
                ).to(self.device)
            except ValueError as error:
                raise InputError(f"--encoder {self.settings['encoder']}: {error}") from None
        return self._encoder

    def fingerprint(self, mpp: float | None) -> str:
        """What a feature file must bear to be of these settings."""
        relevant = {**self.settings, "weights": self.encoder.fingerprint(), "mpp": mpp}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]

    def ensure(self, path: Path, slide: str, mpp: float | None) -> tuple[int, bool]:
        """Let the feature file of a slide stand at `path`; number of tiles, and whether it stood
        before.

        Raises InputError where the slide cannot be read or shows no tissue, and where a file of
        other settings stands."""
        if path.is_file():
            found = read_features(path)
            stamp = found.attributes.get("fingerprint")
            if stamp is not None and stamp != self.fingerprint(mpp):
                raise InputError(
                    f"{path}: features made with other settings; choose another --features or remove it"
                )
            return len(found.features), True
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
        """The tiles of a slide; InputError where there are none."""
        names = ("tile", "tile_mpp", "overlap", "least_tissue")
        grid = tile_grid(slide, **{name: self.settings[name] for name in names})
        if not len(grid):
            raise InputError(
                f"{slide.path}: no tile has enough tissue ({grid.tissue.share:.1%} of the slide is tissue); "
                "a smaller --least-tissue, --tile or --tile-mpp finds more"
            )
        return grid

    def encode(self, slide: Slide, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, D) and coordinates (n, 2) of all tiles that are not blank."""
        reader = TileReader(slide, grid, batch=self.batch, threads=self.threads)
        found, rows = [], []
        with (
            torch.inference_mode(),
            Progressbar(total=len(grid), unit="tile", desc=Path(slide.path).name) as bar,
        ):
            for numbers, tiles, blank in reader:
                kept = ~blank
                if kept.any():
                    given = torch.from_numpy(tiles if kept.all() else tiles[kept]).to(self.device)
                    found.append(self.encoder(given).float().cpu().numpy())
                    rows.append(numbers[kept])
                bar.update(len(numbers))
        self.waited += reader.waited
        if not found:
            raise InputError(f"{slide.path}: all its {len(grid)} tiles are blank")
        return np.concatenate(found), grid.coords[np.concatenate(rows)]


def extract_cohort(
    extractor: Extractor, folder: Path, slides: Mapping[str, str], mpp: Mapping[str, float | None]
) -> pl.DataFrame:
    """Feature files NAME.h5 of all slides in `folder`, and status.csv with a row a slide: its
    number of tiles, or why there are none. What stands is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with filelock.FileLock(
        folder / ".lock"
    ):  # of several processes one extracts, the others find it done
        clear_aside(folder)
        with Progressbar(total=len(slides), unit="slide", desc="features") as bar:
            for name, slide in slides.items():
                row: dict[str, Any] = {"slide": name, "status": "ok", "tiles": 0, "error": None}
                try:
                    row["tiles"], row["before"] = extractor.ensure(
                        folder / f"{name}.h5", slide, mpp[name]
                    )
                except InputError as error:
                    row |= {"status": "error", "error": str(error), "before": False}
                rows.append(row)
                bar.update()
        schema = {
            "slide": pl.String,
            "status": pl.String,
            "tiles": pl.Int64,
            "error": pl.String,
            "before": pl.Boolean,
        }
        table = pl.DataFrame(rows, schema=schema)
        write_text(folder / "status.csv", table.drop("before").write_csv())
    failed = table.filter(pl.col("status") == "error")
    before = int(table["before"].sum())
    if before < len(table):
        made = len(table) - before - len(failed)
        say(
            f"features of {made} slides extracted, {before} stood before, {len(failed)} failed ({folder})"
        )
    for error in failed["error"]:
        say(f"  {error}")
    return table


def stored(folder: Path, name: str) -> SlideFeatures:
    """The features of a slide."""
    return read_features(folder / f"{name}.h5", slide=name)


@dataclass(frozen=True)
class Extracted:
    """Outcome of an extraction."""

    output: Path
    table: pl.DataFrame  # slide, status, tiles, error, before

    @property
    def failed(self) -> int:
        """How many slides have no features."""
        return self.table.filter(pl.col("status") == "error").height


def features(task: Any, options: Any) -> Extracted:
    """The verb `features`: all slides below a folder."""
    found = list_slides(options.slides)
    if not found:
        raise InputError(f"{options.slides}: holds no slide")
    names = Counter(Path(path).stem for path in found)
    # Two slides of one name, of two folders or two formats, keep their ending and folder apart.
    home = Path(options.slides)
    slides = {
        Path(path).stem
        if names[Path(path).stem] == 1
        else "__".join(Path(path).relative_to(home).parts): path
        for path in found
    }
    extractor = Extractor(
        settings_of(options, False),
        pick_device(options.accelerator),
        options.encode_batch,
        options.threads,
    )
    began = time.perf_counter()
    table = extract_cohort(
        extractor, Path(options.output), slides, dict.fromkeys(slides, options.mpp)
    )
    took = time.perf_counter() - began
    if tiles := int(table.filter(~pl.col("before"))["tiles"].sum()):
        waited = extractor.waited / took
        say(
            f"{tiles} tiles, {tiles / took:.0f} a second; the encoder waited for tiles {waited:.1%} of the time"
        )
    say(f"features {options.output}, status {Path(options.output) / 'status.csv'}")
    return Extracted(Path(options.output), table)
