"""How the public sets of pictures lie on disk: folders, names and lists of each, read without
opening a picture.

Every reader takes the folder of its data set and gives a `Listing`. What a layout lacks (a folder,
a list, a picture that a list names, a name that does not fit) is one `InputError`. Sources of the
layouts: the papers named at each reader, and the notes that lie in the data sets."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import fail, shown
from ..formats.matlab import read_variable
from ..formats.pictures import PictureFolder, list_folder, list_pictures, visible_folders

JUNK = "-1"  # identity of a picture that counts neither for nor against a search
PART_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "query": "query",
    "gallery": "gallery",
}
LIST_BYTES = 256 << 20  # largest list of pictures
_BOXES = (("bounding_box_train", "train"), ("query", "query"), ("bounding_box_test", "gallery"))
_MARKET = re.compile(r"(-1|\d+)_c(\d+)s\d+_\d+_\d+(\.\w+)+")
_DUKE = re.compile(r"(-1|\d+)_c(\d+)_f\d+(\.\w+)+")
_VERI = re.compile(r"(\d+)_c(\d+)_.+")


@dataclass
class Listing:
    """Pictures of a data set, one a row, in all lists."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)
    cameras: list[str] | None = None
    parts: list[str] = field(default_factory=list)
    distractor: list[bool] = field(default_factory=list)
    attributes: dict[str, list[str | None]] = field(default_factory=dict)

    def add(
        self,
        path: str,
        name: str,
        identity: str,
        part: str,
        *,
        camera: str | None = None,
        distractor: bool = False,
    ) -> None:
        self.paths.append(path)
        self.names.append(name)
        self.identities.append(identity)
        self.parts.append(part)
        self.distractor.append(distractor)
        if camera is not None:
            self.cameras = self.cameras if self.cameras is not None else []
            self.cameras.append(camera)


def _folder(root: Path, name: str, layout: str) -> Path:
    """A folder that the layout must have."""
    if not (root / name).is_dir():
        raise fail(
            root, f"has no folder {name}/, which layout {layout} has; unpack the whole data set"
        )
    return root / name


def _file(root: Path, name: str, layout: str) -> Path:
    if not (root / name).is_file():
        raise fail(
            root, f"has no file {name}, which layout {layout} has; unpack the whole data set"
        )
    return root / name


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file, line n", text) for each line of a list that is not blank; InputError where there is
    none.
    """
    try:
        if path.stat().st_size > LIST_BYTES:
            raise fail(path, f"is larger than {LIST_BYTES >> 20} MiB; is it a list of pictures?")
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise fail(
            path, f"cannot be read as UTF-8 text ({' '.join(str(error).split())[:120]})"
        ) from error
    found = [
        (f"{path}, line {k}", line.strip())
        for k, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not found:
        raise fail(path, "lists nothing")
    yield from found


def _pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    """("file, line n", first word, the rest) of each line."""
    for where, line in _lines(path):
        words = line.split(None, 1)
        if len(words) != 2:
            raise fail(where, f"{shown(line)} are not two words")
        yield where, words[0], words[1]


# Market-1501 (Zheng et al., ICCV 2015) and DukeMTMC-reID (Zheng et al., ICCV 2017): identity and
# camera in the name.


def is_boxes(root: Path) -> bool:
    return (root / "bounding_box_train").is_dir() or (root / "bounding_box_test").is_dir()


def named_layout(names: list[str]) -> str | None:
    """Which of the two sets the first of these names belongs to, if to any."""
    first = names[0] if names else ""
    return (
        "market1501" if _MARKET.fullmatch(first) else "dukemtmc" if _DUKE.fullmatch(first) else None
    )


def boxes_layout(root: Path) -> str | None:
    """Which of the two sets lies in the three folders, by the first name that is found."""
    for folder, _ in _BOXES:
        if (root / folder).is_dir() and (found := list_folder(root / folder)):
            return named_layout([found[0][1]]) or "market1501"
    return "market1501" if is_boxes(root) else None


def read_market1501(root: Path) -> Listing:
    """bounding_box_train/, query/, bounding_box_test/ with PPPP_cCsS_FFFFFF_NN.jpg; or such
    pictures in one folder, without parts. Identity -1 is junk, 0000 a distractor."""
    return _read_boxes(root, "market1501", _MARKET, "PPPP_cCsS_FFFFFF_NN.jpg")


def read_dukemtmc(root: Path) -> Listing:
    """The folders of Market-1501 with PPPP_cC_fFFFFFFF.jpg (Occluded-Duke too)."""
    return _read_boxes(root, "dukemtmc", _DUKE, "PPPP_cC_fFFFFFFF.jpg")


def _read_boxes(root: Path, layout: str, pattern: re.Pattern[str], like: str) -> Listing:
    flat = not any((root / folder).is_dir() for folder, _ in _BOXES) and list_folder(root)
    return _read_named(root, layout, [("", "")] if flat else list(_BOXES), pattern, like)


def _read_named(
    root: Path, layout: str, folders: list[tuple[str, str]], pattern: re.Pattern[str], like: str
) -> Listing:
    """Pictures whose names give identity and camera; other files in the folders are not looked
    at.
    """
    found = Listing()
    for folder, part in folders:
        home = _folder(root, folder, layout) if folder else root
        pictures = list_folder(home)
        if not pictures:
            raise fail(home, "holds no picture")
        for file, name in pictures:
            match = pattern.fullmatch(name)
            if not match:
                raise fail(
                    file,
                    f"is not named as layout {layout} names its pictures ({like}); rename it, or give a table with "
                    "columns image, identity, camera",
                )
            identity, camera = match[1], str(int(match[2]))
            distractor = layout != "veri776" and not identity.strip("0")
            name = f"{folder}/{name}" if folder else name
            found.add(file, name, identity, part, camera=camera, distractor=distractor)
    return found


# VeRi-776 (Liu et al., ECCV 2016).


def is_veri776(root: Path) -> bool:
    return (root / "image_train").is_dir() and (root / "image_test").is_dir()


def read_veri776(root: Path) -> Listing:
    """image_train/, image_query/, image_test/ with VVVV_cCCC_*.jpg."""
    folders = [("image_train", "train"), ("image_query", "query"), ("image_test", "gallery")]
    return _read_named(root, "veri776", folders, _VERI, "VVVV_cCCC_FFFFFFFF_N.jpg")


# MSMT17 (Wei et al., CVPR 2018).


def is_msmt17(root: Path) -> bool:
    return (root / "list_train.txt").is_file() and (root / "list_query.txt").is_file()


def read_msmt17(root: Path) -> Listing:
    """train/ and test/ (mask_train_v2/, mask_test_v2/ in version 2) and
    list_{train,val,query,gallery}.txt of "path pid"; the third field of a name is the camera.

    Numbers of people start at 0 in both folders although the people are others: identities are
    "train-0000" and "test-0000". list_val.txt may be missing; its people are those of train."""
    found = Listing()
    for part, side in (
        ("train", "train"),
        ("val", "train"),
        ("query", "test"),
        ("gallery", "test"),
    ):
        if part == "val" and not (root / "list_val.txt").exists():
            continue
        listed = _file(root, f"list_{part}.txt", "msmt17")
        second = f"mask_{side}_v2"
        folder = second if (root / second).is_dir() and not (root / side).is_dir() else side
        home = PictureFolder(_folder(root, folder, "msmt17"))
        for where, line in _lines(listed):
            words = line.rsplit(None, 1)
            if len(words) != 2 or not words[1].isdecimal():
                raise fail(where, f"{shown(line)} is not a picture and the number of a person")
            file, name = home.find(where, words[0])
            fields = name.rsplit("/", 1)[-1].split("_")
            if len(fields) < 4 or not fields[2].isdecimal():
                raise fail(
                    where, f"{shown(words[0])} has no camera as third field (PPPP_NNN_CC_...jpg)"
                )
            identity = f"{side}-{int(words[1]):04d}"
            found.add(
                file, f"{folder}/{name}", identity, PART_FOLDERS[part], camera=str(int(fields[2]))
            )
    return found


# CUB-200-2011 (Wah et al., 2011).


def is_cub200(root: Path) -> bool:
    return (root / "images.txt").is_file() and (root / "image_class_labels.txt").is_file()


def read_cub200(root: Path) -> Listing:
    """images.txt, image_class_labels.txt, train_test_split.txt (1 is train), classes.txt and
    images/.
    """
    tables: dict[str, dict[str, str]] = {}
    for name in ("classes.txt", "image_class_labels.txt", "train_test_split.txt"):
        tables[name] = {number: said for _, number, said in _pairs(_file(root, name, "cub200"))}
    classes, labels, split = tables.values()
    home = PictureFolder(_folder(root, "images", "cub200"))
    found = Listing()
    for where, number, given in _pairs(_file(root, "images.txt", "cub200")):
        label = labels.get(number)
        if label is None or label not in classes:
            raise fail(
                where,
                f"picture {shown(number)} has no class in image_class_labels.txt and classes.txt",
            )
        if split.get(number) not in ("0", "1"):
            raise fail(where, f"picture {shown(number)} has no 0 or 1 in train_test_split.txt")
        file, name = home.find(where, given)
        found.add(
            file, f"images/{name}", classes[label], "train" if split[number] == "1" else "test"
        )
    return found


# Stanford Cars (Krause et al., 3dRR 2013).

_ONE_MAT, _TRAIN_MAT, _TEST_MAT = (
    "cars_annos.mat",
    "cars_train_annos.mat",
    "cars_test_annos_withlabels.mat",
)


def is_cars(root: Path) -> bool:
    return (
        (root / _ONE_MAT).is_file()
        or (root / "devkit" / _TRAIN_MAT).is_file()
        or (root / "cars_train").is_dir()
    )


def read_cars(root: Path) -> Listing:
    """cars_train/, cars_test/, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat
    (there or beside devkit/), with the names of classes in devkit/cars_meta.mat; or car_ims/ and
    the one file cars_annos.mat."""
    found = Listing()
    if (root / _ONE_MAT).is_file():
        file = root / _ONE_MAT
        classes = _class_names(file)
        for where, row in _annotations(file, "relative_im_path", "class", "test"):
            path, name = PictureFolder(root).find(where, str(row[0]))
            found.add(
                path, name, _class(where, row[1], classes), "test" if int(row[2]) else "train"
            )
        return found
    devkit = _folder(root, "devkit", "cars")
    classes = (
        _class_names(devkit / "cars_meta.mat") if (devkit / "cars_meta.mat").is_file() else None
    )
    beside = root if (root / _TEST_MAT).is_file() else devkit
    for part, file in (
        ("train", _file(devkit, _TRAIN_MAT, "cars")),
        ("test", _file(beside, _TEST_MAT, "cars")),
    ):
        home = PictureFolder(_folder(root, f"cars_{part}", "cars"))
        for where, row in _annotations(file, "fname", "class"):
            path, name = home.find(where, str(row[0]))
            found.add(path, f"cars_{part}/{name}", _class(where, row[1], classes), part)
    return found


def _class(where: str, number: Any, classes: list[str] | None) -> str:
    value = int(number)
    if value < 1 or (classes is not None and value > len(classes)):
        raise fail(where, f"class {value} has no name among {len(classes or ())}")
    return classes[value - 1] if classes is not None else str(value)


def _class_names(file: Path) -> list[str]:
    names = read_variable(file, "class_names")
    return [str(np.squeeze(name)) for name in np.atleast_1d(names).tolist()]


def _annotations(file: Path, *fields: str) -> Iterator[tuple[str, list[Any]]]:
    """("file, picture n", values of these fields) of each record."""
    records = np.atleast_1d(read_variable(file, "annotations"))
    for name in fields:
        if name not in (records.dtype.names or ()):
            raise fail(
                file,
                f"its annotations have no field {name!r}; is it the file of Stanford Cars with labels?",
            )
    if not len(records):
        raise fail(file, "lists nothing")
    for k, record in enumerate(records, 1):
        where = f"{file}, picture {k}"
        try:
            row = [np.squeeze(record[name]).item() for name in fields]
            row[1:] = [int(value) for value in row[1:]]
        except (ValueError, TypeError) as error:
            raise fail(where, "does not hold a name and whole numbers") from error
        yield where, row


# FGVC-Aircraft (Maji et al., arXiv 1306.5151).


def is_aircraft(root: Path) -> bool:
    home = root / "data" if (root / "data").is_dir() else root
    return any(
        (home / f"images_variant_{part}.txt").is_file() for part in ("train", "trainval", "test")
    )


def read_aircraft(root: Path) -> Listing:
    """data/images/ and data/images_variant_{train,val,test}.txt of "NNNNNNN Name of variant" (data/
    itself may be given). Where train or val is missing, trainval is all to train with."""
    home = root / "data" if (root / "data").is_dir() else root
    above = "data/" if home != root else ""
    apart = all((home / f"images_variant_{part}.txt").is_file() for part in ("train", "val"))
    pictures = PictureFolder(_folder(home, "images", "aircraft"))
    found = Listing()
    for part in ("train", "val", "test") if apart else ("trainval", "test"):
        for where, number, variant in _pairs(_file(home, f"images_variant_{part}.txt", "aircraft")):
            file, name = pictures.find(where, f"{number}.jpg")
            found.add(file, f"{above}images/{name}", variant, PART_FOLDERS.get(part, "train"))
    return found


# A folder for each identity.


def read_folders(root: Path) -> Listing:
    """A folder for each identity with its pictures, at any depth in it; cameras are unknown.

    Where there is a folder train/, or both query/ and gallery/, the folders of identities lie in
    train/, val/ (or valid/, validation/), test/, query/ and gallery/, and other folders are not
    looked at. An identity named -1 is junk."""
    there = visible_folders(root)
    parts = [name for name in there if name in PART_FOLDERS]
    if "train" not in parts and not {"query", "gallery"} <= set(parts):
        parts = [""]
    found = Listing()
    for above in parts:
        home = root / above
        if not visible_folders(home):
            raise fail(
                home,
                "holds no folder of an identity; put the pictures of each into a folder of its own",
            )
        for file, name in list_pictures(home):
            identity, _, rest = name.partition("/")
            if not rest:
                raise fail(
                    file, "lies in no folder of an identity; move it into one, or out of here"
                )
            found.add(
                file, f"{above}/{name}" if above else name, identity, PART_FOLDERS.get(above, "")
            )
    return found


@dataclass(frozen=True)
class Layout:
    """looks_like: whether a folder is of this layout, by what lies in it; read: its pictures."""

    looks_like: Callable[[Path], bool]
    read: Callable[[Path], Listing]


FOLDER_LAYOUTS: dict[str, Layout] = {
    "market1501": Layout(lambda root: boxes_layout(root) == "market1501", read_market1501),
    "dukemtmc": Layout(lambda root: boxes_layout(root) == "dukemtmc", read_dukemtmc),
    "msmt17": Layout(is_msmt17, read_msmt17),
    "veri776": Layout(is_veri776, read_veri776),
    "cub200": Layout(is_cub200, read_cub200),
    "cars": Layout(is_cars, read_cars),
    "aircraft": Layout(is_aircraft, read_aircraft),
    "folders": Layout(
        lambda root: False, read_folders
    ),  # never by a sign of its own: it is what is left
}


def checked(where: object, found: Listing) -> Listing:
    """`InputError` for a picture that comes twice in one part."""
    seen: set[tuple[str, str]] = set()
    for name, part in zip(found.names, found.parts, strict=True):
        if (name, part) in seen:
            raise fail(
                where,
                f"picture {shown(name)} is listed more than once" + (f" in {part}" if part else ""),
            )
        seen.add((name, part))
    if found.cameras is not None and len(found.cameras) != len(found.names):
        raise fail(where, "some pictures have a camera and some have none")
    return found
