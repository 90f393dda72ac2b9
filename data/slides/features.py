"""Features of slides as HDF5, in the layout of CLAM and TRIDENT: `features` (N, D), `coords` (N, 2)
at level 0.

Files of theirs are read as they are: features (N, D) or (1, N, D); the side of a tile at level 0
from the attributes `patch_size_level0` (TRIDENT) or `patch_size` and `downsample` or `patch_level`
(CLAM), of `coords` or of the file, or from the distance of neighbours. ACMIL's one group a slide is
read by the slide's name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import InputError, fail

FEATURE_CAP = 1 << 33  # bytes of one slide's features


@dataclass(frozen=True)
class SlideFeatures:
    """What is stored of a slide."""

    features: np.ndarray  # float32 (N, D)
    coords: np.ndarray  # int64 (N, 2), upper left corner at level 0
    extent: int  # side of a tile at level 0, pixels
    attributes: dict[str, Any] = field(default_factory=dict)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError("feature files need h5py; pip install 'headwise[wsi]'") from error
    return h5py


def write_features(
    path: Path, features: np.ndarray, coords: np.ndarray, attributes: Mapping[str, Any]
) -> None:
    """Write a file; the caller writes it aside and renames it. The attributes go to `coords`, as in
    TRIDENT.
    """
    with _h5py().File(path, "w") as file:
        file.create_dataset("features", data=features.astype(np.float32))
        stored = file.create_dataset("coords", data=coords.astype(np.int64))
        for name, value in attributes.items():
            stored.attrs[name] = value


def read_features(path: str | Path, slide: str | None = None) -> SlideFeatures:
    """Read a file; slide: the group to take where a file holds several.

    Raises InputError for a file that is damaged, holds no features, or other numbers of features
    and coordinates."""
    h5py = _h5py()
    if not Path(path).is_file():
        raise fail(path, "there is no such feature file")
    try:
        with h5py.File(path, "r") as file:
            where = file
            if (
                "features" not in file
                and slide is not None
                and isinstance(file.get(slide), h5py.Group)
            ):
                where = file[slide]
            name = next(
                (n for n in ("features", "feat") if isinstance(where.get(n), h5py.Dataset)), None
            )
            if name is None:
                raise fail(
                    path,
                    "holds no data set 'features'; is it a feature file of CLAM, TRIDENT or Headwise?",
                )
            stored = where[name]
            if (
                stored.dtype.kind not in "fiu"
                or stored.ndim not in (2, 3)
                or (stored.ndim == 3 and len(stored) != 1)
            ):
                raise fail(
                    path,
                    f"'{name}' should be numbers (tiles, width), is {stored.dtype} {stored.shape}",
                )
            if stored.size * 4 > FEATURE_CAP:
                raise fail(
                    path,
                    f"'{name}' has {stored.size:,} numbers; that is more than a slide can have here",
                )
            features = np.asarray(stored, dtype=np.float32)
            features = features[0] if features.ndim == 3 else features
            attributes = {key: _plain(value) for key, value in where.attrs.items()}
            coords = np.zeros((len(features), 2), np.int64)
            if isinstance(where.get("coords"), h5py.Dataset):
                found = np.asarray(where["coords"])
                found = found[0] if found.ndim == 3 and len(found) == 1 else found
                if found.shape != (len(features), 2) or found.dtype.kind not in "fiu":
                    raise fail(path, f"'coords' {found.shape} do not fit features {features.shape}")
                coords = found.astype(np.int64)
                attributes |= {key: _plain(value) for key, value in where["coords"].attrs.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise fail(
            path, f"is no readable HDF5 file ({' '.join(str(error).split())[:120]})"
        ) from error
    if not np.isfinite(features).all():
        raise fail(path, "its features hold values that are not finite; extract them again")
    return SlideFeatures(features, coords, _extent(attributes, coords), attributes)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return (
        value.item()
        if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1
        else value
    )


def _extent(attributes: Mapping[str, Any], coords: np.ndarray) -> int:
    """Side of a tile at level 0."""

    def number(name: str) -> float | None:
        value = attributes.get(name)
        value = value[0] if isinstance(value, np.ndarray) and value.size else value
        return float(value) if isinstance(value, int | float) and value > 0 else None

    if found := number("patch_size_level0"):
        return round(found)
    if size := number("patch_size"):
        return round(size * (number("downsample") or 1.0))
    gaps = [np.diff(np.unique(axis)) for axis in coords.T]
    least = [int(gap.min()) for gap in gaps if gap.size]
    return min(least) if least else 1
