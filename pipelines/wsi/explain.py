"""What a model looked at: heatmaps as PNG and GeoJSON, top tiles, and how concentrated attention
is.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from ...base.errors import InputError
from ...base.files import clear_aside, write_aside, write_text
from ...data.slides.features import SlideFeatures
from ...data.slides.slides import Slide

LONGEST = 1200  # pixels of the longest side of a heatmap
SHOWN_TILE = 160  # pixels of a tile in the gallery


def write_explanation(
    folder: Path,
    found: SlideFeatures,
    attention: np.ndarray,
    slide: Slide | None,
    top: int,
    headline: str,
) -> None:
    """heatmap.png, heatmap.geojson and, with the slide at hand, tiles.png.

    attention: (n, K), the share of each tile in each branch, columns summing to 1.
    """
    clear_aside(folder)
    write_text(folder / "heatmap.geojson", geojson(found, attention))
    picture = heatmap(found, attention, slide, headline)
    write_aside(folder / "heatmap.png", lambda path: path.write_bytes(_png(picture)))
    if slide is not None:
        gallery = top_tiles(found, attention.mean(1), slide, top)
        write_aside(folder / "tiles.png", lambda path: path.write_bytes(_png(gallery)))


def geojson(found: SlideFeatures, attention: np.ndarray) -> str:
    """One square a tile, in pixels of level 0, as QuPath's File > Import objects reads it;
    attention as measurements, in shares of an even one: 1 is what every tile would have."""
    relative = attention * len(attention)
    mean = relative.mean(1)
    levels = np.quantile(mean, [0.5, 0.9]) if len(mean) else (0, 0)
    names = (
        ("low attention", [70, 110, 200]),
        ("middle attention", [240, 200, 80]),
        ("high attention", [210, 40, 40]),
    )
    features = []
    for (x, y), own, average in zip(found.coords.tolist(), relative.tolist(), mean.tolist()):
        name, colour = names[int(average > levels[0]) + int(average > levels[1])]
        side = found.extent
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        measured = {
            "attention": average,
            **{f"attention of branch {k + 1}": value for k, value in enumerate(own)},
        }
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": name, "color": colour},
                    "measurements": {key: round(value, 6) for key, value in measured.items()},
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features})


def heatmap(
    found: SlideFeatures, attention: np.ndarray, slide: Slide | None, headline: str
) -> Image.Image:
    """The mean attention over the slide, and each branch beside it, small; colours from 0 to
    `_most`.
    """
    size = slide.size if slide is not None else tuple((found.coords.max(0) + found.extent).tolist())
    factor = max(1.0, max(size) / LONGEST)
    shape = max(1, round(size[0] / factor)), max(1, round(size[1] / factor))
    ground = Image.new("RGB", shape, (255, 255, 255))
    if slide is not None:
        picture, _ = slide.thumbnail(LONGEST)
        ground = Image.fromarray(picture).resize(shape)
    mean = _overlay(ground, found, attention.mean(1), factor)
    small = (
        [_overlay(ground, found, column, factor) for column in attention.T]
        if attention.shape[1] > 1
        else []
    )
    for picture in small:
        picture.thumbnail((shape[0] // 3, shape[1] // len(small) - 4))
    text = 34
    beside = max((p.width for p in small), default=0)
    height = max(mean.height, sum(p.height + 4 for p in small)) + text
    sheet = Image.new(
        "RGB", (max(mean.width + (beside + 8 if small else 0), 420), height), (255, 255, 255)
    )
    sheet.paste(mean, (0, text))
    y = text
    for picture in small:
        sheet.paste(picture, (mean.width + 8, y))
        y += picture.height + 4
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), headline, fill=(0, 0, 0))
    which = "mean attention (left) and of each branch" if small else "attention"
    draw.text(
        (4, 17),
        f"{which}: blue 0, red {_most(attention.mean(1)):.1f} even shares",
        fill=(90, 90, 90),
    )
    return sheet


def _most(share: np.ndarray) -> float:
    """The end of the colours, in even shares: the largest, but at least 3, so that an even
    attention looks even.
    """
    return max(3.0, float(share.max()) * len(share))


def _overlay(
    ground: Image.Image, found: SlideFeatures, share: np.ndarray, factor: float
) -> Image.Image:
    colours = (colormaps["turbo"](share * len(share) / _most(share))[:, :3] * 255).astype(np.uint8)
    layer, mask = ground.copy(), Image.new("L", ground.size, 0)
    paint, cover = ImageDraw.Draw(layer), ImageDraw.Draw(mask)
    for (x, y), colour in zip((found.coords / factor).tolist(), colours.tolist()):
        box = (x, y, x + found.extent / factor - 1, y + found.extent / factor - 1)
        paint.rectangle(box, fill=tuple(colour))
        cover.rectangle(box, fill=140)
    return Image.composite(layer, ground, mask)


def top_tiles(found: SlideFeatures, share: np.ndarray, slide: Slide, top: int) -> Image.Image:
    """The tiles of highest attention, the highest first, each with its share."""
    best = np.argsort(-share, kind="stable")[:top]
    columns = min(4, max(len(best), 1))
    rows = -(-len(best) // columns)
    sheet = Image.new(
        "RGB", (columns * (SHOWN_TILE + 6), rows * (SHOWN_TILE + 20)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(best.tolist()):
        x, y = (place % columns) * (SHOWN_TILE + 6), (place // columns) * (SHOWN_TILE + 20)
        corner = found.coords[index].tolist()
        tile = slide.read(
            corner[0], corner[1], (found.extent, found.extent), (SHOWN_TILE, SHOWN_TILE)
        )
        sheet.paste(Image.fromarray(tile), (x, y + 14))
        draw.text((x, y + 1), f"{share[index]:.1%} at {corner[0]}, {corner[1]}", fill=(0, 0, 0))
    return sheet


def concentration(attention: np.ndarray, most: int = 100) -> np.ndarray:
    """Share of the attention that the k highest instances hold, k = 1 to `most`: (most,), 1 beyond
    the bag's size.
    """
    share = -np.sort(-attention)[:most]
    return np.minimum(np.concatenate([share.cumsum(), np.ones(max(0, most - len(share)))]), 1.0)


def open_slide(path: str | None, mpp: float | None) -> Slide | None:
    """The slide, or None where it is not there or cannot be opened: a heatmap needs none."""
    if path is None:
        return None
    slide = Slide(path, mpp)
    try:
        slide.size  # noqa: B018  (opens it)
    except InputError:
        return None
    return slide


def _png(picture: Image.Image) -> bytes:
    packed = io.BytesIO()
    picture.save(packed, format="PNG")
    return packed.getvalue()
