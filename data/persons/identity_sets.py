"""Public sets of persons and vehicles, in which identities are searched for.

Every reader takes the folder of its data set and returns a `Listing`, without opening a picture;
what the layout lacks (a folder, a list, a name that fits) is an `InputError`. The layouts are those
of the papers named at each reader and of the notes that come with the data.
"""

import re
from pathlib import Path

from ...base.errors import fail, shown
from ..formats.picture_folder import PictureFolder
from ..formats.pictures import list_folder
from ..parts import SEARCH_PARTS
from .listing import Listing, list_lines, needed_file, needed_folder

_BOXES = (("bounding_box_train", "train"), ("query", "query"), ("bounding_box_test", "gallery"))
_MARKET = re.compile(r"(-1|\d+)_c(\d+)s\d+_\d+_\d+(\.\w+)+")
_DUKE = re.compile(r"(-1|\d+)_c(\d+)_f\d+(\.\w+)+")
_VERI = re.compile(r"(\d+)_c(\d+)_.+")


# Market-1501 (Zheng et al., ICCV 2015) and DukeMTMC-reID (Zheng et al., ICCV 2017): identity and
# camera in the name.


def is_boxes(root: Path) -> bool:
    """Whether a folder holds one of the two sets."""
    return (root / "bounding_box_train").is_dir() or (root / "bounding_box_test").is_dir()


def named_layout(names: list[str]) -> str | None:
    """Which of the two sets the first of these names belongs to, if any."""
    first = names[0] if names else ""
    if _MARKET.fullmatch(first):
        return "market1501"
    return "dukemtmc" if _DUKE.fullmatch(first) else None


def identity_in(name: str) -> str | None:
    """The identity that the name of an item tells: that of Market-1501 and DukeMTMC-reID, else the
    first folder that names no part; None where there is none.

    >>> [identity_in(name) for name in ("0007_c3s3_077419_03.jpg", "gallery/anna/1.jpg", "1.jpg")]
    ['0007', 'anna', None]
    """
    *folders, file = name.split("/")
    if match := _MARKET.fullmatch(file) or _DUKE.fullmatch(file):
        return match[1]
    return next((folder for folder in folders if folder not in SEARCH_PARTS), None)


def boxes_layout(root: Path) -> str | None:
    """Which of the two sets lies in the three folders, judged by the first name in them."""
    for folder, _ in _BOXES:
        if (root / folder).is_dir() and (pictures := list_folder(root / folder)):
            return named_layout([pictures[0][1]]) or "market1501"
    return "market1501" if is_boxes(root) else None


def read_market1501(root: Path) -> Listing:
    """bounding_box_train/, query/ and bounding_box_test/ with PPPP_cCsS_FFFFFF_NN.jpg; or such
    pictures in one folder, without parts. Identity -1 is junk, 0000 a distractor.
    """
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
    """Pictures whose names give identity and camera; other files in the folders are ignored."""
    listing = Listing()
    for folder, part in folders:
        home = needed_folder(root, folder, layout) if folder else root
        pictures = list_folder(home)
        if not pictures:
            raise fail(home, "holds no picture")
        for file, name in pictures:
            match = pattern.fullmatch(name)
            if not match:
                cure = "rename it, or give a table with columns image, identity, camera"
                raise fail(
                    file, f"is not named as layout {layout} names its pictures ({like}); {cure}"
                )
            identity, camera = match[1], str(int(match[2]))
            distractor = layout != "veri776" and not identity.strip("0")
            name = f"{folder}/{name}" if folder else name
            listing.add(file, name, identity, part, camera=camera, distractor=distractor)
    return listing


# VeRi-776 (Liu et al., ECCV 2016).


def is_veri776(root: Path) -> bool:
    """Whether a folder holds VeRi-776."""
    return (root / "image_train").is_dir() and (root / "image_test").is_dir()


def read_veri776(root: Path) -> Listing:
    """image_train/, image_query/ and image_test/ with VVVV_cCCC_*.jpg."""
    folders = [("image_train", "train"), ("image_query", "query"), ("image_test", "gallery")]
    return _read_named(root, "veri776", folders, _VERI, "VVVV_cCCC_FFFFFFFF_N.jpg")


# MSMT17 (Wei et al., CVPR 2018).


def is_msmt17(root: Path) -> bool:
    """Whether a folder holds MSMT17."""
    return (root / "list_train.txt").is_file() and (root / "list_query.txt").is_file()


def read_msmt17(root: Path) -> Listing:
    """train/ and test/ (mask_train_v2/ and mask_test_v2/ in version 2), and
    list_{train,val,query,gallery}.txt of "path pid"; the third field of a name is the camera.

    The numbers of people start at 0 in both folders, but the people differ: identities are
    "train-0000" and "test-0000". list_val.txt may be missing; its people are those of train.
    """
    listing = Listing()
    sides = {"train": "train", "val": "train", "query": "test", "gallery": "test"}
    for part, side in sides.items():
        if part == "val" and not (root / "list_val.txt").exists():
            continue
        pictures = needed_file(root, f"list_{part}.txt", "msmt17")
        second = f"mask_{side}_v2"
        folder = second if (root / second).is_dir() and not (root / side).is_dir() else side
        home = PictureFolder(needed_folder(root, folder, "msmt17"))
        for where, line in list_lines(pictures):
            words = line.rsplit(None, 1)
            if len(words) != 2 or not words[1].isdecimal():
                raise fail(where, f"{shown(line)} is not a picture and the number of a person")
            file, name = home.find(where, words[0])
            fields = name.rsplit("/", 1)[-1].split("_")
            if len(fields) < 4 or not fields[2].isdecimal():
                hint = "has no camera as third field (PPPP_NNN_CC_...jpg)"
                raise fail(where, f"{shown(words[0])} {hint}")
            identity, camera = f"{side}-{int(words[1]):04d}", str(int(fields[2]))
            listing.add(file, f"{folder}/{name}", identity, SEARCH_PARTS[part], camera=camera)
    return listing
