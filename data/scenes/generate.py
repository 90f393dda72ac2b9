"""Generated RGB-D scenes: objects in a room, called generated wherever they are shown.

Shapes: pictures are float32 (Y, X, 3), 0 to 255, depth (Y, X), metres from the camera, until they
are saved. The salient objects are as bright as the posters on the wall and as near as the floor in
front of the camera, so that neither colour nor depth alone identifies them. The bytes are the same
each time on one machine.
"""

from pathlib import Path

import numpy as np

from ...base.errors import InputError, fail, reason
from ...base.extras import install_line

HEIGHT, WIDTH = 96, 128  # pixels
TRAINED, TESTED = 64, 24
SAMPLE = "generated-rgbd-scenes"
SMALLEST = 0.02  # least share of the picture that is salient
QUALITY = 92  # of JPEG
NEAREST, FARTHEST = 0.5, 6.0  # metres
_NOTE = "Generated scenes: drawn by headwise.data.scenes.generate, with depth and mask.\n"
_PAINT = (
    (208, 52, 44),
    (44, 92, 188),
    (238, 196, 60),
    (46, 142, 82),
    (146, 64, 150),
    (232, 126, 44),
    (240, 240, 236),
    (52, 166, 178),
)


def draw_scene(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour uint8 (96, 128, 3), depth uint8 (96, 128), bright where it is near, and mask bool (96,
    128).
    """
    generator = np.random.default_rng([31, number])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    colour, depth = _room(generator, x, y)
    for _ in range(generator.integers(1, 4)):
        _poster(generator, x, y, colour, depth)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    count = generator.choice([1, 1, 1, 2])
    while count > 0 or mask.mean() < SMALLEST:
        _object(generator, x, y, colour, depth, mask)
        count -= 1
    light = 1 + generator.uniform(-0.25, 0.25) * (x / WIDTH - 0.5) + generator.uniform(-0.1, 0.1)
    noise = generator.normal(0, generator.uniform(3, 8), colour.shape)
    picture = np.clip(colour * light[..., None] + noise, 0, 255).astype(np.uint8)
    depth = depth + generator.normal(0, 0.03, depth.shape) * depth
    near = (1 / np.clip(depth, NEAREST, FARTHEST) - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)
    return picture, np.clip(255 * near, 0, 255).astype(np.uint8), mask


def _room(
    generator: np.random.Generator, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A wall and a floor that comes towards the camera."""
    horizon, wall = generator.uniform(0.45, 0.65) * HEIGHT, generator.uniform(3.5, 5.5)
    floor = y > horizon
    depth = np.full(x.shape, wall, np.float32) + generator.uniform(-1, 1) * (x / WIDTH - 0.5)
    below = np.clip((y - horizon) / (HEIGHT - horizon), 0, 1)
    depth = np.where(
        floor, 1 / (1 / wall + below * (1 / generator.uniform(0.7, 1.2) - 1 / wall)), depth
    )
    colour = np.empty((*x.shape, 3), np.float32)
    colour[:] = generator.uniform(110, 200) + generator.uniform(-25, 25, 3)
    planks = np.sin(x * generator.uniform(0.1, 0.4) + y * generator.uniform(-0.2, 0.2)) > 0
    colour[floor] = generator.uniform(70, 150) + generator.uniform(-20, 20, 3)
    colour[floor & planks] *= generator.uniform(0.8, 0.95)
    return colour, depth.astype(np.float32)


def _poster(
    generator: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    colour: np.ndarray,
    depth: np.ndarray,
) -> None:
    """A poster, as bright as a salient object and as flat as the wall."""
    width, height = generator.uniform(10, 30), generator.uniform(10, 24)
    x0, y0 = generator.uniform(0, WIDTH - width), generator.uniform(2, 0.4 * HEIGHT)
    inside = (x >= x0) & (x < x0 + width) & (y >= y0) & (y < y0 + height) & (depth > 2.5)
    colour[inside] = _cloth(generator, x, y)[inside]


def _object(
    generator: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    colour: np.ndarray,
    depth: np.ndarray,
    mask: np.ndarray,
) -> None:
    """A salient object: an ellipse, a box, or two ellipses joined, at some distance."""
    away = generator.uniform(0.9, 2.2)
    size = generator.uniform(11, 20) / away**0.5
    cx, cy = generator.uniform(0.2, 0.8) * WIDTH, generator.uniform(0.35, 0.75) * HEIGHT
    turn, stretch = generator.uniform(0, np.pi), generator.uniform(0.6, 1.4)
    u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / (size * stretch)
    v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / (size / stretch)
    kind = generator.integers(3)
    inside = u * u + v * v < 1 if kind == 0 else np.maximum(abs(u), abs(v)) < 0.85
    if kind == 2:
        inside = ((u + 0.6) ** 2 + v * v < 0.5) | ((u - 0.5) ** 2 + (v - 0.3) ** 2 < 0.7)
    inside &= away < depth + 0.4
    colour[inside] = _cloth(generator, x, y)[inside] if generator.random() < 0.8 else colour[0, 0]
    shade = 1 - 0.35 * np.clip(u + v, -1, 1)
    colour[inside] *= shade[inside][:, None]
    depth[inside] = (away - 0.15 * np.sqrt(np.clip(1 - u * u - v * v, 0, 1)))[inside]
    mask |= inside


def _cloth(generator: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A colour, or stripes of two colours: float32 (Y, X, 3)."""
    first, second = (
        np.array(_PAINT[k], np.float32) for k in generator.choice(len(_PAINT), 2, replace=False)
    )
    stripes = np.sin(x * generator.uniform(0.2, 0.9) + y * generator.uniform(-0.9, 0.9)) > 0
    return np.where(stripes[..., None] & (generator.random() < 0.5), second, first)


def write_sample_scenes(folder: Path) -> Path:
    """Write 64 training and 24 test scenes, in folders RGB, depth and GT, into
    `folder`/generated-rgbd-scenes; returns that folder.

    Raises `InputError` where Pillow is not installed or the folder cannot be written.
    """
    home = Path(folder) / SAMPLE
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"writing pictures needs Pillow; {install_line('vision')}") from error
    try:
        for part in ("train", "test"):
            for name in ("RGB", "depth", "GT"):
                (home / part / name).mkdir(parents=True, exist_ok=True)
        (home / "GENERATED.txt").write_text(_NOTE)
        for number in range(TRAINED + TESTED):
            place, stem = home / ("train" if number < TRAINED else "test"), f"scene{number:03d}"
            colour, depth, mask = draw_scene(number)
            Image.fromarray(colour).save(place / "RGB" / f"{stem}.jpg", quality=QUALITY)
            Image.fromarray(depth).save(place / "depth" / f"{stem}.png")
            Image.fromarray(mask).save(place / "GT" / f"{stem}.png")
    except OSError as error:
        raise fail(home, f"cannot be written ({reason(error)})") from error
    return home
