"""The layouts of public sets of RGB-D saliency on disk, recognised by the names of their folders.

Every such set has pictures, depth maps and masks in three folders side by side, whose names differ
between sets and mirrors: RGB, Image, LeftImg, train_images; depth, Depth, depth1, train_depth; GT,
Mask, gt1, train_masks. Files with the same stem belong together; a beginning or an ending that all
files of a folder share, such as rgb_ or _Depth, is ignored.

Sets: NJU2K (Ju et al., ICIP 2014), NLPR (Peng et al., ECCV 2014), STERE (Niu et al., CVPR 2012),
DES, also called RGBD135 (Cheng et al., ICIMCS 2014), SIP (Fan et al., TNNLS 2020), LFSD (Li et al.,
CVPR 2014), SSD (Zhu and Li, ICCVW 2017), DUT-RGBD (Piao et al., ICCV 2019).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...base.account import note
from ...base.errors import fail, shown
from ..formats.pictures import PICTURE_SUFFIXES, list_folder, visible_folders
from ..parts import PARTS

IMAGE, DEPTH, MASK = "image", "depth", "mask"
_ROLES = {
    IMAGE: "rgb rgbs image images img imgs left leftimg leftimage leftimages color colour "
    "jpegimages",
    DEPTH: "depth depths dep depthmap depthmaps disp disparity depthimages depthmask",
    MASK: "gt gts mask masks groundtruth groundtruths truemask truth annotation annotations salmap "
    "label labels",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
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
DEEP = 4  # levels of folders in which sets are looked for
_MOST = 2000  # folders looked at


@dataclass(frozen=True)
class Home:
    """The three folders of a set; those of depth and masks may be missing."""

    image: Path
    depth: Path | None
    mask: Path | None
    name: str
    part: str


def words_of(name: str) -> list[str]:
    """The words in the name of a folder, in lower case.

    >>> words_of("NJU2K_TRAIN"), words_of("TrainDataset")
    (['nju2k', 'train'], ['train', 'dataset'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^0-9a-zA-Z]+", spaced.lower()) if word]


def _telling_words(name: str) -> list[str]:
    """The words that name no part."""
    return [word for word in words_of(name) if word not in PARTS]


def role_of(name: str) -> str | None:
    """What a folder of this name holds: image, depth or mask; None where the name does not say."""
    return _ROLE_OF.get("".join(_telling_words(name)).rstrip("0123456789"))


def part_of(names: list[str]) -> str:
    """The part (train, validation, test) in the last of these names of folders that has any, or
    "".
    """
    for name in reversed(names):
        for word in reversed(words_of(name)):
            if word in PARTS:
                return PARTS[word]
    return ""


def set_of(names: list[str], otherwise: str) -> str:
    """The set in the names of folders: a public one by its usual name, else the last name that is
    not generic.
    """
    for name in reversed(names):
        words = _telling_words(name)
        for length in range(len(words), 0, -1):
            if public := _KNOWN.get("".join(words[:length])):
                return public
    return next((name for name in reversed(names) if not _is_generic(name)), otherwise)


def _is_generic(name: str) -> bool:
    return set(_telling_words(name)) <= _GENERIC


def _names_a_set(name: str) -> bool:
    """Whether a folder that a person chose is named as the sets name theirs, and not
    `my-test-project`.
    """
    words = [word for word in _telling_words(name) if word not in _GENERIC]
    return not words or any(
        "".join(words[:length]) in _KNOWN for length in range(1, len(words) + 1)
    )


def find_homes(root: Path) -> list[Home]:
    """The folders of pictures in a folder, each with its depth and masks, sorted.

    Raises `InputError` where there are too many folders, and where several folders of depth or
    masks could belong to the same pictures.
    """
    homes: list[Home] = []
    waiting: list[tuple[Path, list[str]]] = [(root, [])]
    looked = 0
    while waiting:
        folder, names = waiting.pop()
        looked += 1
        if looked > _MOST:
            cure = "give the folder of the sets themselves"
            raise fail(root, f"holds more than {_MOST} folders; {cure}")
        below = visible_folders(folder)
        roles: dict[str, list[str]] = {}
        for name in below:
            if role := role_of(name):
                roles.setdefault(role, []).append(name)
        if IMAGE in roles:
            homes += _paired(folder, names, roles, root)
        elif len(names) < DEEP:
            waiting += [(folder / name, [*names, name]) for name in below if role_of(name) is None]
    return sorted(homes, key=lambda home: str(home.image))


def _paired(
    folder: Path, names: list[str], roles: dict[str, list[str]], root: Path
) -> Iterator[Home]:
    """One home for each folder of pictures; where a role has several folders, those that name the
    same part belong together.
    """
    for image in roles[IMAGE]:
        partners: dict[str, Path | None] = {}
        for role in (DEPTH, MASK):
            fits = [name for name in roles.get(role, []) if part_of([name]) == part_of([image])]
            if len(fits) > 1:
                listed = ", ".join(map(shown, fits))
                cure = "keep one, or name the one that counts"
                raise fail(folder, f"has several folders of {role} ({listed}); {cure}")
            partners[role] = folder / fits[0] if fits else None
        path = [*([root.name] if _names_a_set(root.name) else []), *names, image]
        name = set_of([root.name, *names], root.name)
        yield Home(folder / image, partners[DEPTH], partners[MASK], name, part_of(path))


def by_stem(
    folder: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES, *, noted: bool = True
) -> dict[str, str]:
    """The pictures of a folder by the stem that pairs them, without the ending that all of them
    share.

    suffixes: endings of names that count. noted: whether what is left out goes into the account.
    Raises `InputError` for two files with the same stem.
    """
    files = list_folder(folder, suffixes, noted=noted)
    stems = [Path(name).stem for _, name in files]
    ends = [_ENDINGS.search(stem) for stem in stems]
    endings = {end.group().lower() if end else "" for end in ends}
    if len(endings) == 1 and (cut := len(endings.pop())):
        stems = [stem[:-cut] for stem in stems]
    pictures: dict[str, str] = {}
    for stem, (file, name) in zip(stems, files):
        if stem in pictures:
            both = f"{shown(Path(pictures[stem]).name)} and {shown(name)}"
            raise fail(folder, f"holds {both}, which cannot be told apart; keep one")
        pictures[stem] = file
    return pictures


def pair_stems(images: Mapping[str, str], partners: Mapping[str, str]) -> dict[str, str]:
    """The depth map or mask of each picture by the picture's stem, as far as there is one.

    images, partners: files by stem (`by_stem`). Equal stems belong together. Where no two are equal
    (rgb_0001 and depth_0001), what all files of a folder begin and end with is left out, if the
    rest still tells them apart; the account says so.
    """
    paired = {stem: partners[stem] for stem in images if stem in partners}
    if paired or not images or not partners:
        return paired
    short_images, short_partners = _told_apart(images), _told_apart(partners)
    for short, stem in short_images.items():
        if short in short_partners:
            paired[stem] = partners[short_partners[short]]
    if paired:
        stem, partner = next(iter(paired.items()))
        pair = f"{Path(images[stem]).name} and {Path(partner).name}"
        common = "names are compared without what all files of a folder share"
        note("assumed", f"{pair} belong together: {common}")
    return paired


def _told_apart(stems: Mapping[str, str]) -> dict[str, str]:
    """Stems by what remains of them without their common beginning and end; no digit is cut."""
    names = list(stems)
    begin = _common_beginning(names).rstrip("0123456789")
    rests = [name[len(begin) :] for name in names]
    end = _common_beginning([rest[::-1] for rest in rests])[::-1].lstrip("0123456789")
    short = [rest.removesuffix(end) if end else rest for rest in rests]
    distinct = len(set(short)) == len(short) and all(short)
    return dict(zip(short, names)) if distinct else {}


def _common_beginning(words: Sequence[str]) -> str:
    first, last = min(words), max(words)
    length = next((k for k, pair in enumerate(zip(first, last)) if pair[0] != pair[1]), None)
    return first[:length]
