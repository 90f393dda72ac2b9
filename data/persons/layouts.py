"""The layouts of sets of pictures on disk: public sets, and one folder per identity."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...base.account import note
from ...base.errors import fail
from ..formats.pictures import list_pictures, visible_folders
from ..groups import one_spelling
from ..parts import SEARCH_PARTS
from .class_sets import is_aircraft, is_cars, is_cub200, read_aircraft, read_cars, read_cub200
from .identity_sets import (
    boxes_layout,
    is_msmt17,
    is_veri776,
    read_dukemtmc,
    read_market1501,
    read_msmt17,
    read_veri776,
)
from .listing import Listing


def read_folders(root: Path) -> Listing:
    """One folder per identity with its pictures, at any depth in it; cameras are unknown.

    Where there is a folder train/, or both query/ and gallery/, the folders of identities lie in
    those named as parts (train/, val/, dev/, test/, query/, gallery/, ...), and other folders are
    ignored. An identity named -1 is junk. Composed and decomposed letters are one name.
    """
    present = visible_folders(root)
    folders = [name for name in present if name in SEARCH_PARTS]
    parts = {SEARCH_PARTS[name] for name in folders}
    if "train" not in parts and not {"query", "gallery"} <= parts:
        folders = [""]
    elif other := [name for name in present if name not in SEARCH_PARTS]:
        note("left out", "folders that are called like no part", other)
    listing = Listing()
    for folder in folders:
        home = root / folder
        if not visible_folders(home):
            cure = "put the pictures of each into a folder of its own"
            raise fail(home, f"holds no folder of an identity; {cure}")
        for file, name in list_pictures(home):
            identity, _, rest = name.partition("/")
            if not rest:
                cure = "move it into one, or out of here"
                raise fail(file, f"lies in no folder of an identity; {cure}")
            name = f"{folder}/{name}" if folder else name
            listing.add(file, name, identity, SEARCH_PARTS.get(folder, ""))
    listing.identities = one_spelling("identities", listing.identities, numbers=False)
    return listing


@dataclass(frozen=True)
class Layout:
    """looks_like: whether a folder has this layout, judged by its entries; read: its pictures."""

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
    # Taken where no other fits: it has no sign of its own.
    "folders": Layout(lambda root: False, read_folders),
}
