"""Files of MedMNIST (.npz): their pictures as rows, and one picture by its place.

The arrays are opened one at a time, within limits, and never unpickled.
"""

from __future__ import annotations

import math
import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import InputError, fail, reason
from ..parts import PARTS
from .records import Xray

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

NPZ_BYTES = 4 << 30  # most bytes of a file, unpacked
PACKED_CAP = 100  # pictures are never packed to a smaller share of their bytes than 1 in this
_UNCHECKED_BYTES = 64 << 20  # arrays up to this size may be packed as small as they like
MEDMNIST = {
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
}
SEVERAL = {
    "chestmnist": (
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
        "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural", "Hernia",
    ),
}  # fmt: skip
"""Sets with several labels a picture."""


def read_medmnist(path: Path) -> list[Xray]:
    """The pictures of a file, train, val and test; several labels of a picture are joined by "|".

    Raises InputError for a file that is damaged, too large or of other arrays.
    """
    xrays: list[Xray] = []
    with _arrays(path) as arrays:
        for word in ("train", "val", "test"):
            shape, kind = _header(path, f"{word}_images")
            labels = _array(path, arrays, f"{word}_labels")
            names = _names(path, word, labels)
            is_image = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
            fits = kind == np.uint8 and len(labels) == shape[0] if shape else False
            if not (is_image and fits and labels.dtype.kind in "iu"):
                types = f"{kind} {shape} and {labels.dtype} {labels.shape}"
                needed = "needs uint8 pictures (N, Y, X) and as many labels"
                raise fail(path, f"{word}: {needed}, got {types}")
            for k, label in enumerate(names):
                place = (f"{word}_images", k)
                xrays.append(Xray(f"{word}/{k}", str(path), label, PARTS[word], place=place))
    return xrays


def _names(path: Path, word: str, labels: np.ndarray) -> list[str]:
    """The label of each picture, in words where the set is known."""
    set_name = path.stem.lower()
    if labels.dtype.kind not in "iu":
        return []
    if labels.ndim == 2 and labels.shape[1] > 1:
        known = next((n for name, n in SEVERAL.items() if set_name.startswith(name)), ())
        if len(known) != labels.shape[1]:
            raise fail(path, f"{word} has {labels.shape[1]} labels a picture; one is read")
        return [
            "|".join(name for name, flag in zip(known, row, strict=True) if flag) or "No Finding"
            for row in labels.tolist()
        ]
    words = [n for name, names in MEDMNIST.items() if set_name.startswith(name) for n in names]
    return [
        words[number] if 0 <= number < len(words) else str(number)
        for number in labels.reshape(-1).tolist()
    ]


def _arrays(path: str | Path) -> NpzFile:
    """Open an .npz without reading its arrays, and without unpickling.

    Raises `InputError` where it is damaged, too large, or packed as no pictures are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if (total := sum(member.file_size for member in members)) > NPZ_BYTES:
            raise fail(path, f"unpacks to {total:,} bytes; at most {NPZ_BYTES:,} are read")
        for member in members:
            large = member.file_size > _UNCHECKED_BYTES
            if large and member.file_size > PACKED_CAP * member.compress_size:
                problem = f"{member.filename!r} unpacks to {member.file_size:,} bytes"
                raise fail(path, f"{problem}, {PACKED_CAP} times its size; pictures do not")
        return np.load(path, allow_pickle=False)
    except InputError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile):
        raise fail(path, "is no .npz of MedMNIST, or is damaged") from None


def _header(path: str | Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which is not read.

    Raises InputError where there is none, and where the file cannot hold as many numbers as it
    says.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as opened:
            version = np.lib.format.read_magic(opened)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, kind = read(opened)
            size = archive.getinfo(f"{name}.npy").file_size
    except KeyError:
        known = "a file of MedMNIST has train_images, train_labels, ..."
        raise fail(path, f"has no array {name!r}; {known}") from None
    except Exception as error:
        raise fail(path, f"array {name!r} cannot be read ({reason(error, 80)})") from None
    if kind.hasobject:
        raise fail(path, f"array {name!r} cannot be read (it holds objects)")
    if math.prod(shape) * kind.itemsize > size:
        raise fail(path, f"array {name!r} cannot be read (it is shorter than its header says)")
    return shape, kind


def _array(path: str | Path, arrays: NpzFile, name: str) -> np.ndarray:
    _header(path, name)  # numpy would make room for whatever a header says
    try:
        return arrays[name]
    except Exception as error:  # damaged bytes
        raise fail(path, f"array {name!r} cannot be read ({reason(error, 80)})") from None


@lru_cache(maxsize=3)
def _cached_array(file: str, name: str, changed: float) -> np.ndarray:
    """changed: when the file was last changed, so that it is read again after that."""
    with _arrays(file) as arrays:
        return _array(file, arrays, name)


def read_place(file: str, place: tuple[str, int]) -> np.ndarray:
    """A picture of a MedMNIST file, float32 (Y, X) in [0, 1]; its arrays are read once."""
    name, index = place
    values = _cached_array(file, name, os.stat(file).st_mtime)[index].astype(np.float32)
    return (values if values.ndim == 2 else values.mean(2)) / 255
