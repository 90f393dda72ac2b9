"""What lies among the user's data and is no data: what the program itself wrote, and folders that
file systems, storage devices and packers add.

Who keeps results next to the data must get the same answer when a command is started again.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

ASIDE = ".aside-"  # how the name of a file begins while it is being written
RESULTS = "results of headwise"
"""What the account calls them."""
COMPANIONS = "folders of a storage device, file system or packer"
"""What the account calls them."""
# In lower case: thumbnails and bins of Synology and QNAP, forks of macOS, bins and restore points.
# Those whose names begin with "." (.AppleDouble, .thumbnails) are hidden anyway.
_COMPANIONS = {
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx",
    "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
_ACCOUNT, _PARTS, _LOCK = ".account.json", ".parts", ".lock"
_OF_A_RUN = ("config.yaml", "environment.json")
_OF_JOBS = ("trainings", "folds", "recordings")  # what `claimed` holds in the folder of its output
_OF_EXPLANATIONS = ("explanations.jsonl", "account.json")
_OF_CROPS = ("crops.csv", "account.json")  # what lies next to the picture of all crops
_SHEET = "crops.png"


def own_names(folder: str | os.PathLike[str], names: Collection[str]) -> dict[str, str]:
    """Those of the names in a folder that the program wrote, with what they are.

    Marks that say nothing to the user (locks, half-written files) have "" instead. Results are
    files and folders with an account next to them, or with the parts of a prediction that was
    interrupted; and the contact sheet of crops, which are data themselves. Folders of results are
    told by `holds_results`.
    """
    outputs = [name.removesuffix(_ACCOUNT) for name in names if name.endswith(_ACCOUNT)]
    outputs += [
        name.removesuffix(_PARTS)
        for name in names
        if name.endswith(_PARTS) and os.path.isfile(os.path.join(folder, name, "plan.json"))
    ]
    results: dict[str, str] = {}
    for name in names:
        if name == _LOCK or name.startswith(ASIDE):
            results[name] = ""
        elif any(name == output or name.startswith(f"{output}.") for output in outputs if output):
            results[name] = "" if name.endswith(_LOCK) else RESULTS
        elif name == _SHEET and all(other in names for other in _OF_CROPS):
            results[name] = RESULTS
    return results


def is_companion(name: str) -> bool:
    """Whether a folder with this name holds copies of the data beside it, or what was removed.

    >>> is_companion("@eaDir"), is_companion("cats")
    (True, False)
    """
    return name.lower() in _COMPANIONS


def in_companion(file: str | os.PathLike[str], home: str | os.PathLike[str] = "") -> bool:
    """Whether a file lies in such a folder, below the folder `home`."""
    path = os.path.relpath(file, home) if home else os.fspath(file)
    return any(is_companion(part) for part in Path(path).parts[:-1])


def holds_results(folder: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a run, of a comparison, of a cross-validation or of
    explanations.
    """
    if any(
        all(os.path.isfile(os.path.join(folder, name)) for name in names)
        for names in (_OF_A_RUN, _OF_EXPLANATIONS)
    ):
        return True
    return any(os.path.isfile(os.path.join(folder, name, _LOCK)) for name in _OF_JOBS)


class OwnFiles:
    """Tells what the program wrote below a folder; each folder is listed once."""

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self.home = Path(home)
        self._known: dict[Path, dict[str, str]] = {}

    def holds(self, file: str | os.PathLike[str]) -> bool:
        """Whether a file below the folder is, or lies in, what the program wrote there."""
        for place in (path := Path(file), *path.parents):
            if place == self.home or not place.name:
                return False
            if place.name in self._own_in(place.parent) or (place != path and holds_results(place)):
                return True
        return False

    def _own_in(self, folder: Path) -> dict[str, str]:
        if folder not in self._known:
            try:
                self._known[folder] = own_names(folder, set(os.listdir(folder)))
            except OSError:
                self._known[folder] = {}
        return self._known[folder]
