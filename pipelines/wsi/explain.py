"""What a model looked at: heatmaps as PNG and GeoJSON, top tiles, and how concentrated attention
is.

Shapes: n tiles of a slide, K branches of attention. attention: (n, K), the share of each tile in
each branch, columns summing to 1; share: (n,), of one branch or the mean of all.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...base.errors import InputError
from ...base.files import clear_aside, write_text
from ...data.formats.pictures import write_png
from ...data.slides.features import SlideFeatures
from ...data.slides.slides import Slide

LONGEST = 1200  # pixels of the longest side of a heatmap
SHOWN_TILE = 160  # pixels of a tile in the gallery
TEXT = 34  # pixels of the text above a heatmap


def write_explanation(
    folder: Path,
    tiles: SlideFeatures,
    attention: np.ndarray,
    slide: Slide | None,
    top: int,
    headline: str,
) -> None:
    """Write heatmap.png, heatmap.geojson and, if the slide is at hand, tiles.png with the `top`
    tiles of highest attention.
    """
    clear_aside(folder)
    origin = _origin(tiles) if slide is None else slide.origin
    write_text(folder / "heatmap.geojson", geojson(tiles, attention, origin))
    pictures = {"heatmap.png": heatmap(tiles, attention, slide, headline)}
    if slide is not None:
        pictures["tiles.png"] = top_tiles(tiles, attention.mean(1), slide, top)
    for name, picture in pictures.items():
        write_png(folder / name, np.asarray(picture))


def _origin(tiles: SlideFeatures) -> tuple[int, int]:
    """The corner of the scanned area that a feature file of ours names."""
    x, y = (tiles.attributes.get(f"bounds_{axis}") for axis in "xy")
    return (x, y) if isinstance(x, int) and isinstance(y, int) else (0, 0)


def geojson(tiles: SlideFeatures, attention: np.ndarray, origin: tuple[int, int] = (0, 0)) -> str:
    """One square per tile, in pixels of level 0, as QuPath's File > Import objects reads it;
    attention as measurements, relative to an even attention, of which each tile has 1.

    origin: corner of the scanned area, from which QuPath counts.
    """
    relative = attention * len(attention)
    mean = relative.mean(1)
    levels = np.quantile(mean, [0.5, 0.9]) if len(mean) else (0, 0)
    names = (
        ("low attention", [70, 110, 200]),
        ("middle attention", [240, 200, 80]),
        ("high attention", [210, 40, 40]),
    )
    features = []
    side = tiles.extent
    places = (tiles.coords - np.array(origin)).tolist()
    for (x, y), branches, average in zip(places, relative.tolist(), mean.tolist()):
        name, colour = names[int(average > levels[0]) + int(average > levels[1])]
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        measured = {
            "attention": average,
            **{f"attention of branch {k + 1}": value for k, value in enumerate(branches)},
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
    tiles: SlideFeatures, attention: np.ndarray, slide: Slide | None, headline: str
) -> Image.Image:
    """The mean attention over the slide and, to the right of it, that of each branch, small;
    colours from 0 to `_highest`.
    """
    size = slide.size if slide is not None else tuple((tiles.coords.max(0) + tiles.extent).tolist())
    factor = max(1.0, max(size) / LONGEST)
    shape = max(1, round(size[0] / factor)), max(1, round(size[1] / factor))
    ground = Image.new("RGB", shape, (255, 255, 255))
    if slide is not None:
        picture, _ = slide.thumbnail(LONGEST)
        ground = Image.fromarray(picture).resize(shape)
    mean = _overlay(ground, tiles, attention.mean(1), factor)
    shares = attention.T if attention.shape[1] > 1 else ()
    branches = [_overlay(ground, tiles, share, factor) for share in shares]
    for picture in branches:
        picture.thumbnail((shape[0] // 3, shape[1] // len(branches) - 4))
    column = max((picture.width + 8 for picture in branches), default=0)
    height = max(mean.height, sum(picture.height + 4 for picture in branches)) + TEXT
    sheet = Image.new("RGB", (max(mean.width + column, 420), height), (255, 255, 255))
    sheet.paste(mean, (0, TEXT))
    y = TEXT
    for picture in branches:
        sheet.paste(picture, (mean.width + 8, y))
        y += picture.height + 4
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), headline, fill=(0, 0, 0))
    title = "mean attention (left) and of each branch" if branches else "attention"
    scale = f"blue 0, red {_highest(attention.mean(1)):.1f} even shares"
    draw.text((4, 17), f"{title}: {scale}", fill=(90, 90, 90))
    return sheet


def _highest(share: np.ndarray) -> float:
    """The end of the colours, in even shares: the largest share, but at least 3, so that an even
    attention looks even.
    """
    return max(3.0, float(share.max()) * len(share))


def _overlay(
    ground: Image.Image, tiles: SlideFeatures, share: np.ndarray, factor: float
) -> Image.Image:
    """factor: pixels of level 0 per pixel of the picture."""
    from matplotlib import colormaps

    heat = colormaps["turbo"](share * len(share) / _highest(share))[:, :3]
    colours = (heat * 255).astype(np.uint8)
    layer, mask = ground.copy(), Image.new("L", ground.size, 0)
    paint, cover = ImageDraw.Draw(layer), ImageDraw.Draw(mask)
    for (x, y), colour in zip((tiles.coords / factor).tolist(), colours.tolist()):
        box = (x, y, x + tiles.extent / factor - 1, y + tiles.extent / factor - 1)
        paint.rectangle(box, fill=tuple(colour))
        cover.rectangle(box, fill=140)
    return Image.composite(layer, ground, mask)


def top_tiles(tiles: SlideFeatures, share: np.ndarray, slide: Slide, top: int) -> Image.Image:
    """The `top` tiles of highest attention, the highest first, each with its share."""
    best = np.argsort(-share, kind="stable")[:top]
    columns = min(4, max(len(best), 1))
    rows = -(-len(best) // columns)
    sheet = Image.new(
        "RGB", (columns * (SHOWN_TILE + 6), rows * (SHOWN_TILE + 20)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(best.tolist()):
        x, y = (place % columns) * (SHOWN_TILE + 6), (place // columns) * (SHOWN_TILE + 20)
        corner = tiles.coords[index].tolist()
        side = (tiles.extent, tiles.extent)
        tile = slide.read(corner[0], corner[1], side, (SHOWN_TILE, SHOWN_TILE))
        sheet.paste(Image.fromarray(tile), (x, y + 14))
        draw.text((x, y + 1), f"{share[index]:.1%} at {corner[0]}, {corner[1]}", fill=(0, 0, 0))
    return sheet


def concentration(attention: np.ndarray, most: int = 100) -> np.ndarray:
    """Share of the attention that the k highest of n instances hold, for k = 1 to `most`: (most,),
    1 for k above n.

    attention: (n,), summing to 1.

    >>> concentration(np.array([0.25, 0.75]), 3).tolist()
    [0.75, 1.0, 1.0]
    """
    share = -np.sort(-attention)[:most]
    return np.minimum(np.concatenate([share.cumsum(), np.ones(max(0, most - len(share)))]), 1.0)


def open_slide(path: str | None) -> Slide | None:
    """The slide, or None if it is not at hand or cannot be opened: a heatmap needs none."""
    if path is None:
        return None
    slide = Slide(path)
    try:
        slide.size  # noqa: B018  (opens it)
    except InputError:
        return None
    return slide
