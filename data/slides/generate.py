"""Generated slides: small pyramidal tiled TIFFs with textures, called generated wherever they are
shown.

A slide is a pink blob of "stroma" on glass with purple nuclei; in those of class "tumour", a patch
has denser and larger nuclei. Each patient has two slides of the same class. The bytes are the same
each time.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ...base.errors import InputError
from ...base.extras import install_line

GLASS, STROMA, NUCLEUS = (243, 242, 244), (228, 168, 200), (112, 66, 140)
TILE = 128  # side of a tile of the TIFF, pixels
MPP = 0.5
SAMPLE = "generated-slides"


def write_sample_slides(folder: Path, *, slides: int = 24, side: int = 1024) -> Path:
    """Write slides and labels.csv into `folder`/generated-slides; returns that folder.

    side: width and height of a slide, pixels.
    """
    home = folder / SAMPLE
    home.mkdir(parents=True, exist_ok=True)
    lines = ["slide,patient,label"]
    for number in range(slides):
        patient = number // 2
        label = "tumour" if patient % 2 else "normal"
        name = f"generated-{number + 1:02d}"
        write_pyramid(
            home / f"{name}.tiff",
            draw_slide(np.random.default_rng([7, number]), side, label == "tumour"),
        )
        lines.append(f"{name},patient-{patient + 1:02d},{label}")
    (home / "labels.csv").write_text("\n".join(lines) + "\n")
    return home


def draw_slide(generator: np.random.Generator, side: int, tumour: bool) -> np.ndarray:
    """A picture uint8 (side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = np.arctan2(y, x)
    edge = np.full((side, side), 0.38)
    for k in range(2, 6):
        edge += generator.uniform(0.01, 0.05) * np.cos(k * angle + generator.uniform(0, 2 * np.pi))
    tissue = np.hypot(x, y) < edge
    fibres = ndimage.gaussian_filter(generator.standard_normal((side, side)), (2, 9))
    fibres /= fibres.std()
    picture = np.empty((side, side, 3))
    picture[:] = GLASS
    picture[tissue] = (np.array(STROMA) + fibres[..., None] * (7, 12, 8))[tissue]
    nuclei = _nuclei(generator, side, 0.0016, 3.0)
    if tumour:
        cy, cx = generator.uniform(-0.17, 0.17, 2)
        patch = np.hypot(x - cx, y - cy) < generator.uniform(0.12, 0.2)
        nuclei = np.where(patch, _nuclei(generator, side, 0.0045, 4.5), nuclei)
    ink = (nuclei * tissue)[..., None]
    picture = picture * (1 - ink) + np.array(NUCLEUS) * ink
    # Without the two lowest bits the file is half as large.
    return np.clip(picture.round(), 0, 255).astype(np.uint8) & 0xFC


def _nuclei(generator: np.random.Generator, side: int, density: float, radius: float) -> np.ndarray:
    """Soft discs at random places: float (side, side) from 0 to 0.85."""
    seeds = np.zeros((side, side))
    count = generator.poisson(density * side * side)
    seeds[generator.integers(0, side, count), generator.integers(0, side, count)] = 1.0
    distance = np.asarray(ndimage.distance_transform_edt(seeds == 0), dtype=np.float64)
    return 0.85 * np.clip(radius - distance, 0.0, 1.0)


def write_pyramid(path: Path, picture: np.ndarray, *, mpp: float = MPP) -> None:
    """Write a tiled TIFF in which each level has half the size of the one before.

    picture: uint8 (h, w, 3); mpp: micrometres per pixel. Raises `InputError` where tifffile is not
    installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError(f"writing slides needs tifffile; {install_line('wsi')}") from error
    levels = [Image.fromarray(picture)]
    while max(levels[-1].size) > 2 * TILE:
        levels.append(levels[-1].reduce(2))
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            per_cm = 1e4 / (mpp * 2**number)
            file.write(
                np.asarray(level),
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                predictor=True,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
                subfiletype=1 if number else None,
            )
