"""How the public sets of RGB-D saliency lie on disk, found by the names of their folders.

Every such set is pictures, depth maps and masks in three folders side by side, whose names differ
from set to set and from mirror to mirror: RGB, Image, LeftImg, train_images; depth, Depth, depth1,
train_depth; GT, Mask, gt1, train_masks. A file belongs to the one of the same stem; an ending that
all files of a folder share, such as _Depth, is left out.

Sets: NJU2K (Ju et al., ICIP 2014), NLPR (Peng et al., ECCV 2014), STERE (Niu et al., CVPR 2012),
DES, also called RGBD135 (Cheng et al., ICIMCS 2014), SIP (Fan et al., TNNLS 2020), LFSD (Li et al.,
CVPR 2014), SSD (Zhu and Li, ICCVW 2017), DUT-RGBD (Piao et al., ICCV 2019)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...base.errors import fail, shown
from ..formats.pictures import list_folder, visible_folders

IMAGE, DEPTH, MASK = "image", "depth", "mask"
_ROLES = {
    IMAGE: "rgb rgbs image images img imgs left leftimg leftimage leftimages color colour jpegimages",
    DEPTH: "depth depths dep depthmap depthmaps disp disparity depthimages depthmask",
    MASK: "gt gts mask masks groundtruth groundtruths truemask truth annotation annotations salmap label labels",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
_KNOWN = {
    "nju2k": "NJU2K",
    "njud": "NJU2K",
    "nju2000": "NJU2K",
    "nju": "NJU2K",
    "nlpr": "NLPR",
    "nlpr1000": "NLPR",
    "stere": "STERE",
    "stereo": "STERE",
    "stere1000": "STERE",
    "stereo1000": "STERE",
    "des": "DES",
    "rgbd135": "DES",
    "sip": "SIP",
    "lfsd": "LFSD",
    "ssd": "SSD",
    "ssd100": "SSD",
    "dutrgbd": "DUT-RGBD",
    "dut": "DUT-RGBD",
}
_GENERIC = {"dataset", "datasets", "data", "rgbd", "sod", "rgbdsod"}
_ENDINGS = re.compile(
    r"[_\- ]+(rgb|image|img|left|right|depth|dep|disp|disparity|gt|mask|truemask)$", re.I
)
DEEP = 4  # folders below the given one in which sets are looked for
_MOST = 2000  # folders looked at


@dataclass(frozen=True)
class Home:
    """Three folders of one set, of which two may be missing."""

    image: Path
    depth: Path | None
    mask: Path | None
    name: str
    part: str


def words_of(name: str) -> list[str]:
    """The words of a folder's name: "NJU2K_TRAIN" gives nju2k, train; "TrainDataset" train,
    dataset.
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^0-9a-zA-Z]+", apart.lower()) if word]


def role_of(name: str) -> str | None:
    """What a folder of this name holds: image, depth, mask, or nothing known."""
    words = [word for word in words_of(name) if word not in _PARTS]
    return _ROLE_OF.get("".join(words).rstrip("0123456789")) if words else None


def part_of(names: list[str]) -> str:
    """The part that the last of these folders' names speaks of: train, validation, test, or ""."""
    for name in reversed(names):
        for word in reversed(words_of(name)):
            if word in _PARTS:
                return _PARTS[word]
    return ""


def set_of(names: list[str], otherwise: str) -> str:
    """The set that folders' names speak of: a public one by its own name, else by the last telling
    name.
    """
    for name in reversed(names):
        words = [word for word in words_of(name) if word not in _PARTS]
        for length in range(len(words), 0, -1):
            if found := _KNOWN.get("".join(words[:length])):
                return found
    for name in reversed(names):
        words = [word for word in words_of(name) if word not in _PARTS and word not in _GENERIC]
        if words:
            return name
    return otherwise


def _speaks(name: str) -> bool:
    """Whether a folder that a person chose is named as the sets name theirs, and not
    `my-test-project`.
    """
    words = [word for word in words_of(name) if word not in _PARTS and word not in _GENERIC]
    return not words or any(
        "".join(words[:length]) in _KNOWN for length in range(1, len(words) + 1)
    )


def find_homes(root: Path) -> list[Home]:
    """The folders of pictures in a folder with the depth and masks beside each, sorted."""
    found: list[Home] = []
    waiting: list[tuple[Path, list[str]]] = [(root, [])]
    looked = 0
    while waiting:
        folder, names = waiting.pop()
        looked += 1
        if looked > _MOST:
            raise fail(
                root, f"holds more than {_MOST} folders; give the folder of the sets themselves"
            )
        below = visible_folders(folder)
        roles: dict[str, list[str]] = {}
        for name in below:
            if role := role_of(name):
                roles.setdefault(role, []).append(name)
        if IMAGE in roles:
            found += _paired(folder, names, roles, root)
        elif len(names) < DEEP:
            waiting += [(folder / name, [*names, name]) for name in below if role_of(name) is None]
    return sorted(found, key=lambda home: str(home.image))


def _paired(
    folder: Path, names: list[str], roles: dict[str, list[str]], root: Path
) -> Iterator[Home]:
    """One home for each folder of pictures; several of a role belong together by the part that they
    name.
    """
    for image in roles[IMAGE]:
        beside: dict[str, Path | None] = {}
        for role in (DEPTH, MASK):
            fits = [name for name in roles.get(role, []) if part_of([name]) == part_of([image])]
            if len(fits) > 1:
                raise fail(
                    folder,
                    f"has several folders of {role} ({', '.join(map(shown, fits))}); keep one, or name "
                    f"the one that counts",
                )
            beside[role] = folder / fits[0] if fits else None
        telling = [*([root.name] if _speaks(root.name) else []), *names, image]
        name = set_of([root.name, *names], root.name)
        yield Home(folder / image, beside[DEPTH], beside[MASK], name, part_of(telling))


def by_stem(folder: Path) -> dict[str, str]:
    """The pictures of a folder by the stem that pairs them, without the ending that all of them
    share.
    """
    files = list_folder(folder)
    stems = [Path(name).stem for _, name in files]
    ends = [_ENDINGS.search(stem) for stem in stems]
    endings = {end.group().lower() if end else "" for end in ends}
    if len(endings) == 1 and (cut := len(endings.pop())):
        stems = [stem[:-cut] for stem in stems]
    found: dict[str, str] = {}
    for stem, (file, name) in zip(stems, files):
        if stem in found:
            raise fail(
                folder,
                f"holds {shown(Path(found[stem]).name)} and {shown(name)}, which cannot be told apart; "
                "keep one",
            )
        found[stem] = file
    return found
