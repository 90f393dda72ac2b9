"""The optional packages: what each extra brings, and the line that installs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import util
from pathlib import Path

from .errors import InputError

_VISION = ("torchvision", "timm", "PIL")
# Extra -> modules that it brings and that its task or purpose needs.
MODULES = {
    "vision": _VISION,
    "reid": _VISION,
    "saliency": _VISION,
    "medical": (*_VISION, "pydicom"),
    "wsi": (*_VISION, "openslide", "h5py", "tifffile"),
    "tune": ("optuna",),
    "text": ("tokenizers",),
    "language": ("transformers", "tokenizers"),
    "speech": ("soundfile", "jiwer", "tokenizers", "numba", "praatio", "skimage"),
}


@lru_cache
def install_line(extra: str) -> str:
    """What to type to install an extra, by where this package came from: a clone of the repository,
    a file or an address, or a registry.
    """
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    from importlib import metadata  # a fifth of what a page of help takes

    try:
        origin = json.loads(metadata.distribution("headwise").read_text("direct_url.json") or "{}")
        address = str(origin["url"])
        if version_control := origin.get("vcs_info"):
            address = f"{version_control['vcs']}+{address}"
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return f"pip install 'headwise[{extra}]'"
    return f"pip install 'headwise[{extra}] @ {address}'"


def check_extra(extra: str, what: str) -> None:
    """Raise `InputError`, with the line that installs it, where a package of an extra is missing.
    Nothing is imported.

    what: what needs the extra.
    """
    require(extra, MODULES.get(extra, ()), what)


def require(extra: str, modules: Sequence[str], what: str) -> None:
    """As `check_extra`, for some modules that the extra brings."""
    missing = [name for name in modules if not _is_installed(name)]
    if missing:
        noun = "package" if len(missing) == 1 else "packages"
        raise InputError(f"{what} needs the {noun} {', '.join(missing)}; {install_line(extra)}")


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return util.find_spec(module) is not None
