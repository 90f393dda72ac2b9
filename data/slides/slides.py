"""Slides: OpenSlide for every format it opens (DICOM included), Pillow for plain images that it
refuses.

Coordinates are pixels of level 0, x to the right and y down. Magnification is micrometres a pixel
(mpp) at level 0; a slide whose file holds none has `mpp` None, and whoever needs it asks with
`Slide.scale`."""

import os
import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...base.errors import InputError, fail

SLIDE_SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".vms",
    ".vmu",
    ".scn",
    ".mrxs",
    ".svslide",
    ".bif",
    ".czi",
    ".dcm",
    ".zvi",
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
)
IMAGE_PIXELS = 400_000_000  # largest plain image: it has no levels and lies in memory whole
REGION_PIXELS = 1 << 26  # largest region read at once
CACHE_BYTES = 64 << 20  # decoded tiles that a slide keeps
ENLARGED = (
    1.1  # most that a tile may be blown up where the slide is a little coarser than asked for
)


class Slide:
    """A slide, opened lazily: at the first question, and anew in each process that it is sent to.

    Safe to read from several threads. mpp: micrometres a pixel at level 0 to use where the file
    holds none."""

    def __init__(self, path: str | os.PathLike[str], mpp: float | None = None) -> None:
        self.path, self.given_mpp = str(path), mpp

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "given_mpp": self.given_mpp}

    @cached_property
    def _open(self) -> Any:
        return open_openslide(self.path) or _PlainImage(self.path)

    @property
    def reader(self) -> str:
        """Which library reads it: "openslide" or "pillow"."""
        return "pillow" if isinstance(self._open, _PlainImage) else "openslide"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0, pixels."""
        return self._open.dimensions

    @cached_property
    def mpp(self) -> float | None:
        """Micrometres a pixel at level 0: what the file says (mean of x and y), else what was
        given, else None.
        """
        properties = self._open.properties
        try:
            found = [float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
        except (KeyError, ValueError):
            return self.given_mpp
        return sum(found) / 2 if all(np.isfinite(found)) and min(found) > 0 else self.given_mpp

    @property
    def power(self) -> str | None:
        """The magnification of the objective, as the file has it."""
        return self._open.properties.get("openslide.objective-power")

    def scale(self, target_mpp: float) -> float:
        """Pixels of level 0 to a pixel at `target_mpp`.

        Raises InputError where the file holds no micrometres a pixel and none were given, and where
        the slide is coarser than asked for."""
        if self.mpp is None:
            hint = (
                f" (its objective magnifies {self.power} times, which is no measure)"
                if self.power
                else ""
            )
            raise fail(
                self.path,
                f"holds no micrometres a pixel{hint}; say them with --mpp, or in a column mpp",
            )
        scale = target_mpp / self.mpp
        if scale * ENLARGED < 1:
            raise fail(
                self.path,
                f"has {self.mpp:.4g} micrometres a pixel, coarser than --tile-mpp {target_mpp:g}",
            )
        return scale

    def read(
        self,
        x: int,
        y: int,
        extent: tuple[int, int],
        size: tuple[int, int],
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The region of `extent` (width, height) level-0 pixels at (x, y), drawn at `size` (width,
        height) pixels.

        Read from the smallest level that is no coarser; what lies beyond the slide is white. uint8
        (h, w, 3), written into `out` where it is given.

        Raises InputError where the file is damaged.
        """
        opened = self._open
        downsample = min(extent[0] / size[0], extent[1] / size[1])
        try:  # after one thread met damage, OpenSlide answers the others' questions with that error, too
            level = max(
                (k for k, d in enumerate(opened.level_downsamples) if d <= downsample * 1.02),
                default=0,
            )
            factor = opened.level_downsamples[level]
            read = max(1, round(extent[0] / factor)), max(1, round(extent[1] / factor))
            if read[0] * read[1] > REGION_PIXELS:
                raise fail(
                    self.path,
                    f"has no level small enough for a picture of {size[0]} x {size[1]} pixels",
                )
            region = opened.read_region((x, y), level, read)
        except InputError:
            raise
        except Exception as error:  # of OpenSlide or of a decoder of Pillow
            raise fail(self.path, f"cannot be read at ({x}, {y}): {_reason(error)}") from error
        if region.mode == "RGBA" and np.asarray(region)[..., 3].min() < 255:
            white = Image.new("RGB", region.size, (255, 255, 255))
            white.paste(region, mask=region.getchannel("A"))
            region = white
        if region.size != size:
            region = region.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        found = np.asarray(
            region.convert("RGB")
        )  # a Pillow loop drops the alpha four times as fast as numpy
        if out is None:
            return found
        out[:] = found
        return out

    def thumbnail(self, longest: int = 1024) -> tuple[np.ndarray, float]:
        """The whole slide at most `longest` pixels wide and high, and the level-0 pixels to one of
        its pixels.
        """
        width, height = self.size
        factor = max(1.0, max(width, height) / longest)
        size = max(1, round(width / factor)), max(1, round(height / factor))
        # Band by band: a slide may have one level only, too large to be read at once.
        rows = max(1, int(REGION_PIXELS / 4 / width / factor))
        bands = []
        for top in range(0, size[1], rows):
            end = min(top + rows, size[1])
            first, last = round(top * height / size[1]), round(end * height / size[1])
            bands.append(self.read(0, first, (width, last - first), (size[0], end - top)))
        return np.concatenate(bands), factor

    def close(self) -> None:
        """Close the file; the slide opens again when it is asked."""
        if "_open" in self.__dict__:
            self.__dict__.pop("_open").close()
            self.__dict__.pop("mpp", None)

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_openslide(path: str) -> Any | None:
    """The file in OpenSlide, with a bounded cache; None for a format that OpenSlide does not know.

    Raises InputError for a file that is missing, or that OpenSlide knows but cannot open.
    """
    try:
        import openslide
    except ImportError as error:
        raise InputError(
            "whole-slide images need OpenSlide; pip install 'headwise[wsi]'"
        ) from error
    if not Path(path).is_file():
        raise fail(path, "there is no such slide")
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise fail(path, f"OpenSlide cannot open it ({_reason(error)})") from error
    slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return slide


class _PlainImage:
    """A plain image with the face of an OpenSlide: one level, no micrometres a pixel."""

    level_downsamples = (1.0,)
    properties: Mapping[str, str] = {}

    def __init__(self, path: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", Image.DecompressionBombWarning
                )  # the size is checked below
                limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                try:
                    opened = Image.open(path)
                finally:
                    Image.MAX_IMAGE_PIXELS = limit
            with opened:
                width, height = opened.size
                if width * height > IMAGE_PIXELS:
                    raise fail(
                        path,
                        f"{width} x {height} pixels are too many for a plain image; make a pyramid of it",
                    )
                self.image = opened.convert("RGB")
        except InputError:
            raise
        except Exception as error:
            raise fail(path, f"neither OpenSlide nor Pillow reads it ({_reason(error)})") from error
        self.dimensions = self.image.size
        self.level_dimensions = (self.dimensions,)

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        region = Image.new("RGB", size, (255, 255, 255))
        x, y = place
        box = (
            max(0, x),
            max(0, y),
            min(self.dimensions[0], x + size[0]),
            min(self.dimensions[1], y + size[1]),
        )
        if box[0] < box[2] and box[1] < box[3]:
            region.paste(self.image.crop(box), (box[0] - x, box[1] - y))
        return region

    def close(self) -> None:
        self.image.close()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def list_slides(folder: str | os.PathLike[str]) -> list[str]:
    """Slides below a folder, at any depth, sorted; of the files of a DICOM series the first. Links
    that lead out of the folder are refused with `InputError`."""
    home = Path(folder)
    found = []
    for path in sorted(home.rglob("*")):
        if (
            path.name.startswith(".")
            or path.suffix.lower() not in SLIDE_SUFFIXES
            or not path.is_file()
        ):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(home.resolve()):
            raise fail(
                path, "is a link that leads out of its folder; give the file that it leads to"
            )
        found.append(str(path))
    return one_of_each_series(found)


def one_of_each_series(paths: Iterable[str]) -> list[str]:
    """Drop all but the first file of each DICOM series: OpenSlide opens the whole slide from any of
    them.
    """
    kept, seen = [], set()
    for path in paths:
        if path.lower().endswith(".dcm"):
            try:
                opened = open_openslide(path)
            except InputError:
                opened = None  # it stays in the list, to fail with its reason
            if opened is not None:
                with opened:
                    series = opened.properties.get("dicom.SeriesInstanceUID")
                if series in seen:
                    continue
                seen.add(series)
        kept.append(path)
    return kept
