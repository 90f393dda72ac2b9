"""Public sets of fine-grained classes: birds, cars and aircraft.

Every reader takes the folder of its data set and returns a `Listing`, without opening a picture;
what the layout lacks is an `InputError`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...base.errors import fail, shown
from ..formats.matlab import read_variable
from ..formats.picture_folder import PictureFolder
from ..parts import PARTS
from .listing import Listing, list_pairs, needed_file, needed_folder

# CUB-200-2011 (Wah et al., 2011).


def is_cub200(root: Path) -> bool:
    """Whether a folder holds CUB-200-2011."""
    return (root / "images.txt").is_file() and (root / "image_class_labels.txt").is_file()


def read_cub200(root: Path) -> Listing:
    """images/, images.txt, image_class_labels.txt, classes.txt and train_test_split.txt (1 is
    train).
    """

    def read_map(name: str) -> dict[str, str]:
        return {number: text for _, number, text in list_pairs(needed_file(root, name, "cub200"))}

    classes, labels = read_map("classes.txt"), read_map("image_class_labels.txt")
    split = read_map("train_test_split.txt")
    home = PictureFolder(needed_folder(root, "images", "cub200"))
    listing = Listing()
    for where, number, path in list_pairs(needed_file(root, "images.txt", "cub200")):
        label = labels.get(number)
        if label is None or label not in classes:
            lists = "image_class_labels.txt and classes.txt"
            raise fail(where, f"picture {shown(number)} has no class in {lists}")
        if split.get(number) not in ("0", "1"):
            raise fail(where, f"picture {shown(number)} has no 0 or 1 in train_test_split.txt")
        file, name = home.find(where, path)
        part = "train" if split[number] == "1" else "test"
        listing.add(file, f"images/{name}", classes[label], part)
    return listing


# Stanford Cars (Krause et al., 3dRR 2013).

_ONE_MAT, _TRAIN_MAT = "cars_annos.mat", "cars_train_annos.mat"
_TEST_MAT = "cars_test_annos_withlabels.mat"


def is_cars(root: Path) -> bool:
    """Whether a folder holds Stanford Cars, in either of its forms."""
    single, train = root / _ONE_MAT, root / "devkit" / _TRAIN_MAT
    return single.is_file() or train.is_file() or (root / "cars_train").is_dir()


def read_cars(root: Path) -> Listing:
    """cars_train/, cars_test/, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat (in
    devkit/ or next to it), with the names of classes in devkit/cars_meta.mat; or car_ims/ and the
    single file cars_annos.mat.
    """
    listing = Listing()
    if (root / _ONE_MAT).is_file():
        file, home = root / _ONE_MAT, PictureFolder(root)
        classes = _class_names(file)
        for where, name, (number, is_test) in _annotations(
            file, "relative_im_path", "class", "test"
        ):
            path, item = home.find(where, name)
            part = "test" if is_test else "train"
            listing.add(path, item, _class(where, number, classes), part)
        return listing
    devkit = needed_folder(root, "devkit", "cars")
    meta = devkit / "cars_meta.mat"
    classes = _class_names(meta) if meta.is_file() else None
    test_folder = root if (root / _TEST_MAT).is_file() else devkit
    files = {
        "train": needed_file(devkit, _TRAIN_MAT, "cars"),
        "test": needed_file(test_folder, _TEST_MAT, "cars"),
    }
    for part, file in files.items():
        home = PictureFolder(needed_folder(root, f"cars_{part}", "cars"))
        for where, name, (number,) in _annotations(file, "fname", "class"):
            path, item = home.find(where, name)
            listing.add(path, f"cars_{part}/{item}", _class(where, number, classes), part)
    return listing


def _class(where: str, number: int, classes: list[str] | None) -> str:
    if number < 1 or (classes is not None and number > len(classes)):
        raise fail(where, f"class {number} has no name among {len(classes or ())}")
    return classes[number - 1] if classes is not None else str(number)


def _class_names(file: Path) -> list[str]:
    names = read_variable(file, "class_names")
    return [str(np.squeeze(name)) for name in np.atleast_1d(names).tolist()]


def _annotations(file: Path, path: str, *fields: str) -> Iterator[tuple[str, str, list[int]]]:
    """("file, picture n", path of the picture, numbers in `fields`) of each record."""
    records = np.atleast_1d(read_variable(file, "annotations"))
    for name in (path, *fields):
        if name not in (records.dtype.names or ()):
            hint = "is it the file of Stanford Cars with labels?"
            raise fail(file, f"its annotations have no field {name!r}; {hint}")
    if not len(records):
        raise fail(file, "lists nothing")
    for number, record in enumerate(records, 1):
        where = f"{file}, picture {number}"
        try:
            picture = str(np.squeeze(record[path]).item())
            values = [int(np.squeeze(record[name]).item()) for name in fields]
        except (ValueError, TypeError) as error:
            raise fail(where, "does not hold a name and whole numbers") from error
        yield where, picture, values


# FGVC-Aircraft (Maji et al., arXiv 1306.5151).


def is_aircraft(root: Path) -> bool:
    """Whether a folder holds FGVC-Aircraft, or its data/."""
    home = root / "data" if (root / "data").is_dir() else root
    parts = ("train", "trainval", "test")
    return any((home / f"images_variant_{part}.txt").is_file() for part in parts)


def read_aircraft(root: Path) -> Listing:
    """data/images/ and data/images_variant_{train,val,test}.txt of "NNNNNNN Name of variant"; the
    folder data/ itself will do. Where train or val is missing, trainval is the training part.
    """
    home = root / "data" if (root / "data").is_dir() else root
    above = "data/" if home != root else ""
    has_val = all((home / f"images_variant_{part}.txt").is_file() for part in ("train", "val"))
    pictures = PictureFolder(needed_folder(home, "images", "aircraft"))
    listing = Listing()
    for part in ("train", "val", "test") if has_val else ("trainval", "test"):
        file = needed_file(home, f"images_variant_{part}.txt", "aircraft")
        for where, number, variant in list_pairs(file):
            path, name = pictures.find(where, f"{number}.jpg")
            listing.add(path, f"{above}images/{name}", variant, PARTS.get(part, "train"))
    return listing
