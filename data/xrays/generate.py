"""Generated chest X-rays: drawn lungs with and without a cloud, called generated wherever they are
shown.

Shapes: pictures are float32 (128, 128), 0 to 1, until they are saved. A picture shows two dark
lungs, heart and ribs; those of class "cloud" have one or two soft bright clouds in a lung. The data
is confounded on purpose, as real data is: three of four clouds have view AP (larger heart, closer),
and two of three come from source B (a bright mark in a corner). Each patient has two pictures of
the same class. The bytes are the same each time on one machine.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ...base.errors import fail, reason

SIDE = 128  # pixels
SAMPLE = "generated-chest-xrays"
CLASSES = ("clear", "cloud")
_NOTE = (
    "Generated pictures: drawn by headwise.data.xrays.generate, showing no person and no disease.\n"
)


def write_sample_xrays(folder: Path, *, pictures: int = 160) -> Path:
    """Write X-rays, their lung masks, boxes.csv and labels.csv into
    `folder`/generated-chest-xrays; returns that folder.

    pictures: how many. Raises `InputError` where the folder cannot be written.
    """
    home = folder / SAMPLE
    lines, boxes = ["image,label,patient,view,source"], ["image,x,y,w,h"]
    try:
        for name in ("pictures", "lungs"):
            (home / name).mkdir(parents=True, exist_ok=True)
        for number in range(pictures):
            patient, name = number // 2, f"generated-{number + 1:03d}"
            label = patient % 2
            generator = np.random.default_rng([47, number])
            ap = bool(generator.random() < (0.75 if label else 0.25))
            share = 2 / 3 if label else 1 / 3
            marked = bool(np.random.default_rng([48, patient]).random() < share)
            picture, lungs, clouds = draw_xray(generator, cloud=bool(label), ap=ap, marked=marked)
            Image.fromarray(picture).save(home / "pictures" / f"{name}.png")
            mask = Image.fromarray(np.where(lungs, 255, 0).astype(np.uint8))
            mask.save(home / "lungs" / f"{name}.png")
            view, source = "AP" if ap else "PA", "B" if marked else "A"
            lines.append(f"pictures/{name}.png,{CLASSES[label]},P{patient + 1:03d},{view},{source}")
            boxes += [f"{name}.png,{x},{y},{w},{h}" for x, y, w, h in clouds]
        (home / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (home / "boxes.csv").write_text("\n".join(boxes) + "\n", encoding="utf-8")
        (home / "GENERATED.txt").write_text(_NOTE, encoding="utf-8")
    except OSError as error:
        raise fail(home, f"cannot be written ({reason(error)})") from error
    return home


def draw_xray(
    generator: np.random.Generator, *, cloud: bool, ap: bool, marked: bool
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, int, int]]]:
    """A picture uint8 (128, 128), its lungs bool (128, 128), and a box (x, y, width, height) in
    pixels for each cloud.

    ap: view AP instead of PA; marked: with the bright mark of source B.
    """
    y, x = (np.mgrid[:SIDE, :SIDE].astype(np.float32) + 0.5) / SIDE
    scale = generator.uniform(0.95, 1.1) * (1.06 if ap else 1.0)
    middle, top = 0.5 + generator.uniform(-0.03, 0.03), 0.47 + generator.uniform(-0.03, 0.03)
    u, v = (x - middle) / scale, (y - top) / scale
    picture = 0.08 + 0.5 * _soft(1 - (u / 0.47) ** 2 - (v / 0.62) ** 2, 0.15)
    lungs = np.zeros((SIDE, SIDE), bool)
    for side in (-1, 1):
        wide = generator.uniform(0.13, 0.16)
        lungs |= ((u - side * 0.2) / wide) ** 2 + (v / generator.uniform(0.31, 0.36)) ** 2 < 1
    heart = 1 - ((u - 0.06) / (0.17 if ap else 0.13)) ** 2 - ((v - 0.17) / 0.15) ** 2
    lungs &= heart < 0
    edge = ndimage.gaussian_filter(lungs.astype(np.float32), 1.2)
    picture = picture * (1 - 0.62 * edge) + 0.12 * _soft(heart, 0.3)
    ribs = np.cos(2 * np.pi * (9 * v + 2.2 * np.abs(u)) + generator.uniform(0, 6)) > 0.55
    picture += 0.05 * ndimage.gaussian_filter(ribs.astype(np.float32), 0.8) * edge
    boxes = []
    for _ in range(int(generator.integers(1, 3)) if cloud else 0):
        places = np.argwhere(ndimage.binary_erosion(lungs, iterations=6))
        cy, cx = places[generator.integers(len(places))]
        ry, rx = generator.uniform(6, 12, 2)
        gy, gx = np.mgrid[:SIDE, :SIDE]
        blob = np.exp(-(((gy - cy) / ry) ** 2 + ((gx - cx) / rx) ** 2))
        picture += generator.uniform(0.14, 0.24) * blob * (0.35 + 0.65 * edge)
        x0, y0 = max(0, round(cx - rx)), max(0, round(cy - ry))
        boxes.append((x0, y0, min(SIDE, round(cx + rx)) - x0, min(SIDE, round(cy + ry)) - y0))
    noise = generator.normal(0, 0.02, picture.shape)
    picture += noise + generator.uniform(-0.04, 0.04) + (0.02 if ap else 0.0)
    if marked:
        picture[5:11, 6:20] = 0.95
    return (255 * np.clip(picture, 0, 1)).round().astype(np.uint8), lungs, boxes


def _soft(x: np.ndarray, width: float) -> np.ndarray:
    """0 where x is below 0, and rising to 1 at `width`."""
    return np.clip(x / width, 0, 1)
