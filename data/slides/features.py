"""Features of slides as HDF5, in the layout of CLAM and TRIDENT: `features` (N, D) and `coords`
(N, 2) at level 0.

Their files are read as they are: features (N, D) or (1, N, D); the side of a tile at level 0 comes
from the attributes `patch_size_level0` (TRIDENT) or `patch_size` and `downsample` (CLAM), of
`coords` or of the file, or from the distance between neighbours. ACMIL's files, with one group per
slide, are read by the name of the slide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np

from ...base.errors import InputError, fail, reason

if TYPE_CHECKING:
    import h5py

FEATURE_CAP = 1 << 33  # bytes of the features of a slide


@dataclass(frozen=True)
class SlideFeatures:
    """The tiles of a slide: their features and places."""

    features: np.ndarray  # float32 (N, D)
    coords: np.ndarray  # int64 (N, 2), upper left corner at level 0
    extent: int  # side of a tile at level 0, pixels
    attributes: dict[str, object] = field(default_factory=dict)


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise InputError("feature files need h5py; pip install 'headwise[wsi]'") from error
    return h5py


def write_features(
    path: Path, features: np.ndarray, coords: np.ndarray, attributes: Mapping[str, object]
) -> None:
    """Write a feature file, features as float32 and coords as int64; the attributes go to `coords`,
    as in TRIDENT. The caller writes it aside and renames it.
    """
    with _h5py().File(path, "w") as file:
        file.create_dataset("features", data=features.astype(np.float32))
        stored = file.create_dataset("coords", data=coords.astype(np.int64))
        for name, value in attributes.items():
            stored.attrs[name] = value


def read_features(path: str | Path, slide: str | None = None) -> SlideFeatures:
    """Read a feature file; slide: the group to take where a file holds several.

    Raises `InputError` for a file that is missing or damaged, that holds no features or features
    that are not finite, and where the numbers of features and coordinates differ.
    """
    h5py = _h5py()
    if not Path(path).is_file():
        raise fail(path, "there is no such feature file")
    try:
        with h5py.File(path, "r") as file:
            below = file.get(slide) if "features" not in file and slide is not None else None
            group = cast("h5py.Group", below if isinstance(below, h5py.Group) else file)
            features = _read_array(path, group)
            attributes = {key: _plain(value) for key, value in group.attrs.items()}
            coords = np.zeros((len(features), 2), np.int64)
            if isinstance(stored := group.get("coords"), h5py.Dataset):
                dataset = cast("h5py.Dataset", stored)
                coords = _read_coords(path, dataset, features)
                attributes |= {key: _plain(value) for key, value in dataset.attrs.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise fail(path, f"is no readable HDF5 file ({reason(error, 120)})") from error
    if not np.isfinite(features).all():
        raise fail(path, "its features hold values that are not finite; extract them again")
    return SlideFeatures(features, coords, _extent(attributes, coords), attributes)


def _read_array(path: object, group: "h5py.Group") -> np.ndarray:
    """The features of a file or group, float32 (N, D)."""
    h5py = _h5py()
    names = [n for n in ("features", "feat") if isinstance(group.get(n), h5py.Dataset)]
    if not names:
        hint = "is it a feature file of CLAM, TRIDENT or Headwise?"
        raise fail(path, f"holds no data set 'features'; {hint}")
    name, stored = names[0], cast("h5py.Dataset", group[names[0]])
    shape, kind = stored.shape, stored.dtype.kind
    if kind not in "fiu" or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)):
        raise fail(
            path, f"'{name}' should be numbers (tiles, width), is {stored.dtype} {stored.shape}"
        )
    if (count := math.prod(shape)) * 4 > FEATURE_CAP:
        raise fail(path, f"'{name}' has {count:,} numbers; that is more than a slide can have here")
    features = np.asarray(stored, dtype=np.float32)
    return features[0] if features.ndim == 3 else features


def _read_coords(path: object, stored: "h5py.Dataset", features: np.ndarray) -> np.ndarray:
    """int64 (N, 2)."""
    coords = np.asarray(stored)
    coords = coords[0] if coords.ndim == 3 and len(coords) == 1 else coords
    if coords.shape != (len(features), 2) or coords.dtype.kind not in "fiu":
        raise fail(path, f"'coords' {coords.shape} do not fit features {features.shape}")
    return coords.astype(np.int64)


def _plain(value: object) -> object:
    """An attribute as text, number or array."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1:
        return value.item()
    return value


def _extent(attributes: Mapping[str, object], coords: np.ndarray) -> int:
    """Side of a tile at level 0, pixels."""

    def number(name: str) -> float | None:
        value = attributes.get(name)
        value = value[0] if isinstance(value, np.ndarray) and value.size else value
        return float(value) if isinstance(value, int | float) and value > 0 else None

    if side := number("patch_size_level0"):
        return round(side)
    if size := number("patch_size"):
        return round(size * (number("downsample") or 1.0))
    gaps = [np.diff(np.unique(axis)) for axis in coords.T]
    least = [int(gap.min()) for gap in gaps if gap.size]
    return min(least) if least else 1
