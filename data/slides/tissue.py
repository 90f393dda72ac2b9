"""Where a slide holds tissue: saturation and Otsu's threshold on a small picture, without pen marks
and blank glass.

Stained tissue is coloured and glass is grey, so saturation separates them (as in CLAM, Lu et al.
2021). The threshold is Otsu's (1979) within bounds: on a picture without tissue it would split
noise. Ink differs from stain in colour: eosin and haematoxylin are pink to purple, and green is
their weakest channel.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

# Bounds of the threshold, of 255: the noise of white glass, and the palest stain that must count.
LEAST_SATURATION, MOST_SATURATION = 15, 60
BLACK = 85  # most of the brightest channel of black ink
GREY_CHROMA, GREY_CONTRAST = 8, 6  # least colour of a stain, most deviation of empty glass
BLANK_SHARE = 0.95  # share of empty pixels above which a tile is blank


@dataclass(frozen=True)
class Tissue:
    """What a picture of a slide shows, pixel by pixel."""

    mask: np.ndarray  # bool (h, w), tissue without pen marks
    pen: np.ndarray  # bool (h, w)
    threshold: int  # of saturation, 0 to 255
    grey: bool = False  # whether there is something to see, but no colour by which to find tissue

    @property
    def share(self) -> float:
        """Share of the picture that is tissue."""
        return float(self.mask.mean()) if self.mask.size else 0.0


def find_tissue(picture: np.ndarray, *, smallest: float = 0.0005, hole: float = 0.002) -> Tissue:
    """Find the tissue and pen marks of a picture, best at 8 to 16 micrometres per pixel.

    picture: uint8 (h, w, 3); smallest: share of the picture below which a piece is dust; hole:
    share below which a gap in the tissue (vessels, fat) is filled; pen marks are never filled.

    Raises `ValueError` for another type or shape.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        kind = f"{picture.dtype} {picture.shape}"
        raise ValueError(f"find_tissue: needs a uint8 picture (height, width, 3), got {kind}")
    pen = find_pen(picture)
    saturation = np.asarray(Image.fromarray(picture).convert("HSV"))[..., 1]
    saturation = _median(saturation)
    free = saturation[~pen]
    threshold = (
        int(np.clip(otsu(free), LEAST_SATURATION, MOST_SATURATION))
        if free.size
        else LEAST_SATURATION
    )
    mask = ndimage.binary_closing((saturation > threshold) & ~pen, iterations=2) & ~pen
    mask = _without_small(mask, smallest * mask.size)
    mask = ~_without_small(~mask, hole * mask.size) & ~pen
    return Tissue(mask, pen, threshold, _is_grey(picture))


def _is_grey(picture: np.ndarray) -> bool:
    """Whether a picture uint8 (h, w, 3) has contrasts but no colours, such as fluorescence."""
    chroma = picture.max(2).astype(np.int16) - picture.min(2)
    return bool(np.quantile(chroma, 0.999) < GREY_CHROMA and picture.std() > GREY_CONTRAST)


def find_pen(picture: np.ndarray) -> np.ndarray:
    """Where a picture uint8 (h, w, 3) has green, blue, red or black ink, faded edges included:
    bool (h, w).
    """
    smooth = _median(picture).astype(np.int16)
    red, green, blue = smooth[..., 0], smooth[..., 1], smooth[..., 2]
    cold = green - red > 12  # green and blue ink; no stain is like that
    # Red ink; eosin has more blue than green.
    warm = (red - np.maximum(green, blue) > 90) & (blue - green < 35)
    brightest = smooth.max(2)
    grey = brightest - smooth.min(2) < 40  # dense nuclei are as dark, but purple
    black = np.asarray(ndimage.binary_opening((brightest < BLACK) & grey, iterations=3), dtype=bool)
    pen = _without_small(cold | warm | black, 0.0003 * cold.size)
    if not pen.any():
        return pen
    # A blurred mark fades into the glass: follow its colour outwards, but not far, because stain
    # may look similar.
    fading = (red - green > 20) & (blue - green < 0.3 * (red - green))
    fading |= ((brightest < 140) & grey) | (green - red > 4)
    size = max(pen.shape)
    strokes = ndimage.binary_opening(pen, iterations=max(2, round(0.01 * size)))
    grown = ndimage.binary_dilation(
        strokes, mask=fading | pen, iterations=max(2, round(0.08 * size))
    )
    return ndimage.binary_dilation(pen | grown, iterations=max(2, round(0.004 * size)))


def is_blank(tiles: np.ndarray) -> np.ndarray:
    """Which tiles (n, h, w, 3) uint8 show nothing but glass or nothing but black: bool (n,).

    About 64 pixels per side are looked at.
    """
    step = max(1, min(tiles.shape[1:3]) // 64)
    # One array per channel: numpy is slow along an axis of length three.
    red, green, blue = np.moveaxis(tiles[:, ::step, ::step], 3, 0).copy()
    least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    empty = ((least > 200) & (most - least < 25)) | (most < 20)
    return empty.mean((1, 2)) > BLANK_SHARE


def otsu(values: np.ndarray) -> int:
    """The threshold of uint8 values that gives the greatest variance between the two classes (Otsu
    1979).
    """
    count = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = count.cumsum()
    above = below[-1] - below
    total = (count * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))


def _median(picture: np.ndarray) -> np.ndarray:
    """Median of 5 x 5 pixels, channel by channel; Pillow's is twice as fast as SciPy's."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.MedianFilter(5)))


def _without_small(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Drop the connected pieces below a number of pixels."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    large = np.bincount(labels.ravel()) >= max(pixels, 1)
    large[0] = False
    return large[labels]
