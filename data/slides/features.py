"""Features of slides as HDF5, in the layout of CLAM and TRIDENT: `features` (N, D) and `coords`
(N, 2) at level 0; or as the tensor (N, D) alone that CLAM writes as .pt.

Their files are read as they are: features (N, D) or (1, N, D); the side of a tile at level 0 comes
from the attributes `patch_size_level0` (TRIDENT) or `patch_size` and `downsample` (CLAM), of
`coords` or of the file, or from the most frequent distance of neighbours. ACMIL's files, with one
group per slide, are read by the name of the slide.

A file is not trusted: what leads out of it (links, virtual and external data sets) is refused, and
so are sizes that it names but does not hold.
"""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ...base.extras import install_line

if TYPE_CHECKING:
    import h5py

FEATURE_CAP = 1 << 33  # bytes of the features of a slide
_PACKED_BELOW = (
    64 << 20
)  # bytes; an array beyond this may not unpack to _MOST_PACKED times its size
_MOST_PACKED = 100


@dataclass(frozen=True)
class SlideFeatures:
    """The tiles of a slide: their features and places."""

    features: np.ndarray  # float32 (N, D)
    coords: np.ndarray  # int64 (N, 2), upper left corner at level 0; zeros where not has_places
    extent: int  # side of a tile at level 0, pixels; 0 where it is not known
    attributes: dict[str, object] = field(default_factory=dict)
    has_places: bool = True

    @property
    def can_be_drawn(self) -> bool:
        """Whether a map can show its tiles."""
        return self.has_places and self.extent > 0


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"feature files need h5py; {install_line('wsi')}") from error
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

    Raises `InputError` for a file that is missing or damaged, that holds no tiles or features that
    are not finite, that names more than it holds, and where the numbers of features and coordinates
    differ.
    """
    if not Path(path).is_file():
        raise fail(path, "there is no such feature file")
    if str(path).lower().endswith(".pt"):
        features = _read_tensor(Path(path))
        places = np.zeros((len(features), 2), np.int64)
        stored = SlideFeatures(features, places, 0, has_places=False)
    else:
        stored = _read_hdf5(Path(path), slide)
    if not len(stored.features):
        raise fail(path, "holds no tiles")
    if not np.isfinite(stored.features).all():
        raise fail(path, "its features hold values that are not finite; extract them again")
    return stored


def read_attributes(path: str | Path) -> dict[str, object]:
    """The attributes of a feature file, of the file and of `coords`; {} for a tensor.

    Raises `InputError` for a file that is no HDF5.
    """
    h5py = _h5py()
    if str(path).lower().endswith(".pt"):
        return {}
    try:
        with h5py.File(path, "r") as file:
            attributes = {key: _plain(value) for key, value in file.attrs.items()}
            coords = _member(path, file, "coords")
            if isinstance(coords, h5py.Dataset):
                stored = cast("h5py.Dataset", coords)
                attributes |= {key: _plain(value) for key, value in stored.attrs.items()}
            return attributes
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise fail(path, f"is no readable HDF5 file ({reason(error, 120)})") from error


def _read_hdf5(path: Path, slide: str | None) -> SlideFeatures:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            below = None
            if slide is not None and "features" not in list(file):
                groups = (_member(path, file, name) for name in (slide, path.stem))
                below = next((g for g in groups if isinstance(g, h5py.Group)), None)
            group = cast("h5py.Group", file if below is None else below)
            features = _read_array(path, group)
            attributes = {key: _plain(value) for key, value in group.attrs.items()}
            coords = _member(path, group, "coords")
            has_places = isinstance(coords, h5py.Dataset)
            places = np.zeros((len(features), 2), np.int64)
            if has_places:
                dataset = cast("h5py.Dataset", coords)
                places = _read_coords(path, dataset, features)
                attributes |= {key: _plain(value) for key, value in dataset.attrs.items()}
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise fail(path, f"is no readable HDF5 file ({reason(error, 120)})") from error
    extent = _extent(path, attributes, places) if has_places and len(places) else 0
    return SlideFeatures(features, places, extent, attributes, has_places)


def _member(path: object, group: "h5py.Group", name: str) -> object | None:
    """What a group holds under a name, which may have "/"; None where there is nothing.

    Raises InputError for a link, which may lead to any other file.
    """
    h5py = _h5py()
    member: object = group
    for part in filter(None, name.split("/")):
        links = cast("h5py.Group", member).id.links if isinstance(member, h5py.Group) else None
        if links is None or not links.exists(part.encode()):
            return None
        if links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise fail(path, f"{shown(name)} is a link; write the values themselves into the file")
        member = cast("h5py.Group", member)[part]
    return member


def _check_stored(path: object, name: str, stored: "h5py.Dataset", cap: int) -> None:
    """Raise InputError for a data set whose values are not in the file, or too many."""
    if stored.is_virtual or stored.external:
        raise fail(path, f"{shown(name)} takes its values from other files; write them into it")
    size = math.prod(stored.shape) * max(4, stored.dtype.itemsize)
    if size > cap:
        count = f"{math.prod(stored.shape):,} numbers"
        raise fail(path, f"{shown(name)} has {count}; that is more than a slide can have here")
    packed = stored.id.get_storage_size()
    if (size and not packed) or (size > _PACKED_BELOW and size > _MOST_PACKED * packed):
        raise fail(path, f"{shown(name)} names {size:,} bytes, but the file holds {packed:,} of it")


def _read_array(path: object, group: "h5py.Group") -> np.ndarray:
    """The features of a file or group, float32 (N, D)."""
    h5py = _h5py()
    members = ((name, _member(path, group, name)) for name in ("features", "feat"))
    name, member = next(((n, m) for n, m in members if isinstance(m, h5py.Dataset)), ("", None))
    if member is None:
        hint = "is it a feature file of CLAM, TRIDENT or Headwise?"
        raise fail(path, f"holds no data set 'features'; {hint}")
    stored = cast("h5py.Dataset", member)
    shape, kind = stored.shape, stored.dtype.kind
    if kind not in "fiu" or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)):
        raise fail(
            path, f"'{name}' should be numbers (tiles, width), is {stored.dtype} {stored.shape}"
        )
    _check_stored(path, name, stored, FEATURE_CAP)
    features = np.asarray(stored, dtype=np.float32)
    return features[0] if features.ndim == 3 else features


def _read_coords(path: object, stored: "h5py.Dataset", features: np.ndarray) -> np.ndarray:
    """int64 (N, 2)."""
    shape = stored.shape[1:] if len(stored.shape) == 3 and stored.shape[0] == 1 else stored.shape
    if shape != (len(features), 2) or stored.dtype.kind not in "fiu":
        raise fail(path, f"'coords' {stored.shape} do not fit features {features.shape}")
    _check_stored(path, "coords", stored, FEATURE_CAP)
    coords = np.asarray(stored).reshape(-1, 2)
    if not np.isfinite(coords).all():
        raise fail(path, "'coords' hold values that are not finite")
    return coords.astype(np.int64)


def _read_tensor(path: Path) -> np.ndarray:
    """The tensor (N, D) or (1, N, D) of a file of PyTorch, float32 (N, D); no code of it is run."""
    import torch

    if not zipfile.is_zipfile(path):
        raise fail(path, "is no tensor of PyTorch 1.6 or newer; save it again, or give .h5 files")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > FEATURE_CAP:
            raise fail(path, "is packed or too large; save the tensor with torch.save")
        value = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        raise fail(path, f"cannot be read as a tensor ({reason(error, 120)})") from error
    if not isinstance(value, torch.Tensor) or value.ndim not in (2, 3) or value.is_complex():
        raise fail(path, "holds no tensor of features (tiles, width)")
    if value.ndim == 3 and len(value) != 1:
        raise fail(path, f"should be (tiles, width), is {tuple(value.shape)}")
    if value.numel() * 4 > FEATURE_CAP or value.numel() > value.untyped_storage().nbytes():
        raise fail(path, f"has {value.numel():,} numbers; that is more than it holds")
    return value.reshape(value.shape[-2:]).float().numpy()


def _plain(value: object) -> object:
    """An attribute as text, number or array."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1:
        return value.item()
    return value


def _extent(path: object, attributes: Mapping[str, object], coords: np.ndarray) -> int:
    """Side of a tile at level 0, pixels; 0 where it is not known."""

    def number(name: str) -> float | None:
        value = attributes.get(name)
        value = value[0] if isinstance(value, np.ndarray) and value.size else value
        fits = isinstance(value, int | float) and 0 < value < 1 << 31
        return float(value) if fits else None  # pyright: ignore[reportArgumentType]

    if side := number("patch_size_level0"):
        return round(side)
    if size := number("patch_size"):
        return round(size * (number("downsample") or 1.0))
    side = most_frequent_gap(coords)
    name = Path(str(path)).name
    if side:
        what = "files without the side of a tile; the most frequent distance of neighbours is taken"
        note("assumed", what, [f"{name}: {side}"])
    else:
        note("left out", "heatmaps of files whose tiles have an unknown side", [name])
    return side


def most_frequent_gap(coords: np.ndarray) -> int:
    """The most frequent distance between neighbours in a row or column of tiles, coords (N, 2); 0
    where a third of the distances do not agree.

    Tiles lie on one grid per piece of tissue, so that the least distance of any two says nothing.

    >>> most_frequent_gap(np.array([[0, 0], [512, 0], [1024, 0], [37, 45], [549, 45]]))
    512
    """
    gaps = []
    for along, across in ((0, 1), (1, 0)):
        places = coords[np.lexsort((coords[:, along], coords[:, across]))]
        same = places[1:, across] == places[:-1, across]
        gaps.append((places[1:, along] - places[:-1, along])[same])
    lengths = np.concatenate(gaps)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return 0
    values, counts = np.unique(lengths, return_counts=True)
    best = int(counts.argmax())
    return int(values[best]) if 3 * counts[best] >= len(lengths) else 0
