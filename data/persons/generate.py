"""Generated persons: small drawn figures in the layout of Market-1501, called generated wherever
they are shown.

Shapes: pictures are float32 (128, 64, 3), 0 to 255, until they are saved. An identity has colours,
a build, a pattern of the top, hair and a bag; a camera has a background, light, a distance and a
side (front or back). Every fourth identity has a double in the same colours who differs only in
pattern, hair and bag; the light of the two cameras differs more than many colours do. The bytes are
the same each time on one machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...base.errors import InputError, fail, reason
from ...base.extras import install_line

HEIGHT, WIDTH = 128, 64  # pixels
TRAINED, SEARCHED = 24, 12  # identities of the training part, and of the search
SAMPLE = "generated-persons"
QUALITY = 90  # of JPEG
_NOTE = "Generated pictures: drawn by headwise.data.persons.generate, showing no real person.\n"
_SKIN = ((236, 196, 170), (198, 150, 118), (140, 96, 70), (96, 66, 52))
_HAIR = ((32, 28, 28), (84, 58, 40), (150, 108, 62), (190, 176, 160))
_CLOTH = (
    (200, 40, 44),
    (36, 78, 170),
    (38, 130, 70),
    (230, 200, 60),
    (238, 238, 236),
    (34, 34, 40),
    (128, 128, 132),
    (120, 52, 130),
    (232, 128, 40),
    (80, 172, 190),
    (120, 84, 52),
    (232, 150, 180),
)
_PATTERNS = ("plain", "rows", "columns", "checks", "band")
_BAGS = ("none", "back", "side", "hand")
# Gain of red, green, blue; gamma: a warm, bright place and a cold, dim one.
_LIGHT = {1: ((1.04, 1.0, 0.9), 0.92), 2: ((0.86, 0.94, 1.02), 1.04)}


Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Person:
    """How an identity looks: colours are (red, green, blue), 0 to 255; tall and wide are
    factors.
    """

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    top: tuple[int, int, int]
    second: tuple[int, int, int]  # of the pattern
    legs: tuple[int, int, int]
    bag_colour: tuple[int, int, int]
    pattern: str
    bag: str
    long_hair: bool
    sleeves: bool
    skirt: bool
    tall: float
    wide: float


def draw_identity(number: int) -> Person:
    """The looks of identity `number`; 4k + 1 is the double of 4k: the same colours and build with
    another pattern, hair and bag.
    """
    generator = np.random.default_rng([11, number - (number % 4 == 1)])

    def pick(choices: Sequence[Choice]) -> Choice:
        return choices[int(generator.integers(len(choices)))]

    top, second, legs, bag = (_CLOTH[k] for k in generator.choice(len(_CLOTH), 4, replace=False))
    person = Person(
        pick(_SKIN),
        pick(_HAIR),
        top,
        second,
        legs,
        bag,
        pick(_PATTERNS),
        pick(_BAGS),
        *(bool(generator.integers(2)) for _ in range(3)),
        *(float(generator.uniform(0.9, 1.08)) for _ in range(2)),
    )
    if number % 4 != 1:
        return person
    pattern = _PATTERNS[(_PATTERNS.index(person.pattern) + 2) % len(_PATTERNS)]
    bag_kind = _BAGS[(_BAGS.index(person.bag) + 1) % len(_BAGS)]
    return replace(person, pattern=pattern, bag=bag_kind, long_hair=not person.long_hair)


def _box(x: np.ndarray, y: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """A rectangle from (x0, y0) to (x1, y1) with soft edges, 0 to 1."""
    inside = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
    return np.clip(inside + 0.5, 0.0, 1.0)


def _oval(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return np.clip((1 - np.hypot((x - cx) / rx, (y - cy) / ry)) * min(rx, ry) + 0.5, 0.0, 1.0)


def _limb(
    x: np.ndarray, y: np.ndarray, a: tuple[float, float], b: tuple[float, float], radius: float
) -> np.ndarray:
    """A thick line with round ends from a to b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return np.clip(radius - np.hypot(x - a[0] - along * dx, y - a[1] - along * dy) + 0.5, 0.0, 1.0)


def _paint(picture: np.ndarray, mask: np.ndarray, colour: object) -> None:
    rows = np.flatnonzero(mask.any(1))
    if len(rows):  # most shapes are low: the other rows are left alone
        band = slice(rows[0], rows[-1] + 1)
        picture[band] += mask[band, :, None] * (np.asarray(colour, np.float32) - picture[band])


def draw_background(camera: int, generator: np.random.Generator) -> np.ndarray:
    """The view of a camera without a person: bricks and pavement, or a lawn and a hedge."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x += generator.uniform(0, 40)
    horizon = generator.uniform(70, 92)
    picture = np.empty((HEIGHT, WIDTH, 3), np.float32)
    if camera == 1:
        picture[:] = (168, 124, 104)
        row = y // 8
        joints = (y % 8 < 1) | ((x + 7 * (row % 2)) % 14 < 1)
        picture[joints] = (196, 186, 176)
        ground = (150, 150, 150)
    else:
        picture[:] = (92, 118, 84)
        picture += (14 * np.sin(x / 3.1) * np.sin(y / 4.3 + x / 9))[..., None]
        ground = (126, 140, 92)
    _paint(picture, np.clip(y - horizon, 0.0, 1.0), ground)
    # Weather and dirt differ between pictures, so that a background alone does not reveal the
    # camera.
    picture += generator.uniform(0.5, 0.9) * (generator.uniform(95, 165) - picture)
    if generator.random() < 0.4:
        post = generator.uniform(x.min(), x.max())
        _paint(picture, _box(x, y, post - 2, 0, post + 2, horizon + 6), (70, 72, 76))
    return picture


def _pattern(person: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the top has its second colour, 0 to 1; x and y count from its upper middle."""
    rows, columns = np.sin(y * np.pi / 3.5) > 0, np.sin(x * np.pi / 3.5 + 0.6) > 0
    masks = {
        "plain": rows & False,
        "rows": rows,
        "columns": columns,
        "checks": rows ^ columns,
        "band": (y > 10) & (y < 19),
    }
    return masks[person.pattern].astype(np.float32)


def draw_person(person: Person, camera: int, generator: np.random.Generator) -> np.ndarray:
    """A picture of a person, uint8 (128, 64, 3); camera 1 sees the front, camera 2 the back."""
    picture = draw_background(camera, generator)
    scale = person.tall * (1.0 if camera == 1 else 0.9) * generator.uniform(0.95, 1.04)
    middle, top = 32 + generator.uniform(-5, 5), 8 + generator.uniform(-3, 5)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    y, x = (rows - top) / scale, (columns - middle) / (scale * person.wide)
    front, step, lean = camera == 1, generator.uniform(-6, 6), generator.uniform(-1.5, 1.5)
    side = 1 if front else -1  # left and right are exchanged from behind
    if person.bag == "back" and front:
        _paint(picture, _box(x, y, -12, 24, 12, 44), person.bag_colour)
    for sign in (-1, 1):
        knee, foot = (sign * 4 + sign * step * 0.5, 82.0), (sign * 4 + sign * step, 104.0)
        shade = 0.85 if sign < 0 else 1.0
        _paint(picture, _limb(x, y, (sign * 4, 60), knee, 4.4), np.multiply(person.legs, shade))
        lower = person.skin if person.skirt else person.legs
        _paint(picture, _limb(x, y, knee, foot, 3.6), np.multiply(lower, shade))
        _paint(picture, _oval(x, y, foot[0] + 1, 107, 5, 2.5), (40, 36, 36))
    if person.skirt:
        flare = np.clip((y - 56) / 26, 0, 1) * 5
        _paint(
            picture,
            np.clip(9 + flare - np.abs(x) + 0.5, 0, 1) * _box(x, y, -30, 54, 30, 82),
            person.legs,
        )
    for sign in (-1, 1):
        elbow, hand = (sign * 13.0, 38.0), (sign * (14 - 0.3 * sign * step), 56.0)
        arm = person.top if person.sleeves else person.skin
        _paint(picture, _limb(x, y, (sign * 9, 23), elbow, 3.4), person.top)
        _paint(picture, _limb(x, y, elbow, hand, 3.0), arm)
        _paint(picture, _oval(x, y, hand[0], hand[1] + 2, 2.6, 2.8), person.skin)
    body = np.maximum(_box(x, y, -10, 22, 10, 60), _oval(x, y, 0, 23, 11, 5))
    _paint(picture, body, person.top)
    _paint(picture, body * _pattern(person, x + lean, y - 22), person.second)
    _paint(picture, _box(x, y, -3, 15, 3, 21), person.skin)
    if person.long_hair and front:  # next to the face, down to the shoulders
        for sign in (-1, 1):
            _paint(picture, _box(x, y, sign * 6.5 - 2, 4, sign * 6.5 + 2, 24), person.hair)
    elif person.long_hair:
        _paint(picture, _box(x, y, -7.5, 6, 7.5, 30), person.hair)
    _paint(picture, _oval(x, y, lean, 9, 6.6, 8.4), person.skin if front else person.hair)
    if front:
        _paint(picture, _oval(x, y, lean, 3.5, 7.2, 4.6), person.hair)
        for eye in (-2.4, 2.4):
            _paint(picture, _oval(x, y, lean + eye, 9, 1.0, 0.8), (30, 26, 26))
    _bag(picture, person, x, y, side, front)
    return _photographed(picture, camera, generator)


def _bag(
    picture: np.ndarray, person: Person, x: np.ndarray, y: np.ndarray, side: int, front: bool
) -> None:
    if person.bag == "back" and front:
        for sign in (-1, 1):
            _paint(
                picture, _box(x, y, sign * 6.5 - 1.5, 20, sign * 6.5 + 1.5, 40), person.bag_colour
            )
    elif person.bag == "back":
        _paint(picture, _box(x, y, -8.5, 24, 8.5, 48), person.bag_colour)
        _paint(picture, _box(x, y, -6, 36, 6, 37.5), np.multiply(person.bag_colour, 0.6))
    elif person.bag == "side":
        _paint(picture, _limb(x, y, (-side * 8, 22), (side * 10, 54), 1.4), person.bag_colour)
        _paint(picture, _box(x, y, side * 11 - 6, 52, side * 11 + 6, 66), person.bag_colour)
    elif person.bag == "hand":
        _paint(picture, _box(x, y, side * 14 - 5.5, 60, side * 14 + 5.5, 76), person.bag_colour)


def _photographed(picture: np.ndarray, camera: int, generator: np.random.Generator) -> np.ndarray:
    """The picture in the light of a camera, with its shadow and noise: uint8."""
    gain, gamma = np.array(_LIGHT[camera][0], np.float32), _LIGHT[camera][1]
    lit = 255 * (np.clip(picture, 0, 255) / 255) ** gamma * gain * generator.uniform(0.88, 1.1)
    slope = generator.uniform(-0.16, 0.16) * (np.arange(WIDTH, dtype=np.float32) / WIDTH - 0.5)
    noise = generator.standard_normal(picture.shape, np.float32) * (3.0 if camera == 1 else 5.0)
    return np.clip((lit * (1 + slope)[None, :, None] + noise).round(), 0, 255).astype(np.uint8)


def write_sample_persons(folder: Path) -> Path:
    """Write the sample into `folder`/generated-persons in the layout of Market-1501; returns that
    folder.

    The training part has 24 identities with 4 pictures from each of 2 cameras. The search has 12
    other identities with 1 query and 3 pictures in the gallery from each camera, 6 distractors
    (0000, no person) and 6 pictures of junk (-1, boxes that miss the person): 300 pictures in all.

    Raises `InputError` where Pillow is not installed or the folder cannot be written.
    """
    home = Path(folder) / SAMPLE
    try:
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            (home / part).mkdir(parents=True, exist_ok=True)
        (home / "GENERATED.txt").write_text(_NOTE)
        for number in range(TRAINED + SEARCHED):
            person = draw_identity(number)
            for camera in (1, 2):
                for shot in range(4):
                    part = "query" if shot == 0 else "bounding_box_test"
                    part = "bounding_box_train" if number < TRAINED else part
                    generator = np.random.default_rng([12, number, camera, shot])
                    picture = draw_person(person, camera, generator)
                    frame = 100 * number + 25 * shot
                    _save(home / part, f"{number + 1:04d}", camera, frame, picture)
        for shot in range(6):
            camera, generator = 1 + shot % 2, np.random.default_rng([13, shot])
            empty = _photographed(draw_background(camera, generator), camera, generator)
            _save(home / "bounding_box_test", "0000", camera, 5000 + shot, empty)
            person = draw_identity(TRAINED + 2 * shot)
            missed = np.roll(
                draw_person(person, camera, generator), (64, 24)[shot % 2], axis=shot % 2
            )
            _save(home / "bounding_box_test", "-1", camera, 6000 + shot, missed)
    except OSError as error:
        raise fail(home, f"cannot be written ({reason(error)})") from error
    return home


def _save(folder: Path, identity: str, camera: int, frame: int, picture: np.ndarray) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"writing pictures needs Pillow; {install_line('vision')}") from error
    name = f"{identity}_c{camera}s1_{frame:06d}_00.jpg"
    Image.fromarray(picture).save(folder / name, quality=QUALITY)
