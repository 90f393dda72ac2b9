"""Where a slide holds tissue: saturation and Otsu on a small picture, pen marks and blank glass
taken out.

Stained tissue is coloured and glass is grey, so saturation tells them apart (as in CLAM, Lu et al.
2021); the threshold is Otsu's (1979), kept within bounds, since on a picture without tissue it
would divide noise. Ink is told from stain by its colour: eosin and haematoxylin are pink to purple,
green their weakest channel."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

LEAST_SATURATION, MOST_SATURATION = (
    15,
    60,
)  # of 255: noise of white glass, and the palest stain that must count
BLACK = 85  # brightest channel of black ink
BLANK_SHARE = 0.95  # a tile with so little in it is blank


@dataclass(frozen=True)
class Tissue:
    """What a picture of a slide shows, pixel by pixel."""

    mask: np.ndarray  # bool (h, w), tissue without pen marks
    pen: np.ndarray  # bool (h, w)
    threshold: int  # of saturation, 0 to 255

    @property
    def share(self) -> float:
        """Share of the picture that is tissue."""
        return float(self.mask.mean()) if self.mask.size else 0.0


def find_tissue(picture: np.ndarray, *, smallest: float = 0.0005, hole: float = 0.002) -> Tissue:
    """Tissue and pen marks of a picture, best at 8 to 16 micrometres a pixel.

    picture: uint8 (h, w, 3); smallest: share of the picture below which a piece is dust; hole:
    share below which a gap in the tissue is filled (vessels, fat), pen marks never."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(
            f"find_tissue: needs a uint8 picture (height, width, 3), got {picture.dtype} {picture.shape}"
        )
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
    return Tissue(mask, pen, threshold)


def find_pen(picture: np.ndarray) -> np.ndarray:
    """Green, blue, red and black ink of a picture uint8 (h, w, 3), with its faded edges: bool (h,
    w).
    """
    smooth = _median(picture).astype(np.int16)
    red, green, blue = smooth[..., 0], smooth[..., 1], smooth[..., 2]
    cold = green - red > 12  # of no stain: green and blue ink
    warm = (red - np.maximum(green, blue) > 90) & (
        blue - green < 35
    )  # eosin has more blue than green
    brightest = smooth.max(2)
    grey = brightest - smooth.min(2) < 40  # dense nuclei are as dark, but purple
    black = np.asarray(ndimage.binary_opening((brightest < BLACK) & grey, iterations=3), dtype=bool)
    pen = _without_small(cold | warm | black, 0.0003 * cold.size)
    if not pen.any():
        return pen
    # A blurred mark fades into the glass: follow its colour outwards, but not far, for stain may
    # look alike.
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

    Every few pixels are looked at, about 64 a side.
    """
    step = max(1, min(tiles.shape[1:3]) // 64)
    red, green, blue = np.moveaxis(
        tiles[:, ::step, ::step], 3, 0
    ).copy()  # numpy is slow along an axis of three
    least, most = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    empty = ((least > 200) & (most - least < 25)) | (most < 20)
    return empty.mean((1, 2)) > BLANK_SHARE


def otsu(values: np.ndarray) -> int:
    """The threshold of uint8 values that parts them into the two classes with the greatest distance
    (Otsu 1979).
    """
    count = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = count.cumsum()
    above = below[-1] - below
    total = (count * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))


def _median(picture: np.ndarray) -> np.ndarray:
    """Median of 5 x 5 pixels, channel by channel; Pillow's takes half the time of SciPy's."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.MedianFilter(5)))


def _without_small(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Drop the connected pieces below a number of pixels."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    large = np.bincount(labels.ravel()) >= max(pixels, 1)
    large[0] = False
    return large[labels]
