"""Pictures: listing them without opening any, and reading one as RGB.

Shapes: Y rows and X columns of a picture; arrays are uint8 (3, Y, X): red, green and blue from 0 to
255. Pillow decodes them; it comes with the extra `vision`, and is imported where a picture is read.
"""

from __future__ import annotations

import glob
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from ...base.account import accepts, note
from ...base.errors import InputError, fail, reason
from ...base.extras import install_line
from ...base.files import lies_in, pattern_home, similar_file, storable, walk_folder, write_aside
from ...base.own_files import (
    COMPANIONS,
    RESULTS,
    OwnFiles,
    holds_results,
    in_companion,
    is_companion,
    own_names,
)
from .grey_range import unit_range, wide_values

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
PICTURE_PIXELS = 80_000_000  # largest picture; Pillow itself begins to warn a little above
# Pillow tries only these, whatever the file's name says, so a decoder that starts other programs
# (EPS) is never reached.
PICTURE_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "GIF")
_ORIENTATION = 0x0112  # the EXIF tag
_Decoded = TypeVar("_Decoded")
_FILTERS = threading.Lock()  # warning filters are shared by all threads


def list_pictures(
    path: str | os.PathLike[str], suffixes: Sequence[str] = PICTURE_SUFFIXES
) -> list[tuple[str, str]]:
    """The pictures that a path names, as (file, item id), sorted by id; none is opened.

    path      a picture (its id is its name); a folder, at any depth (ids are relative to it, with
              "/"); or a quoted pattern with *, ? or ** (ids are relative to the last folder before
              the first of these)
    suffixes  endings of names that are pictures, lower case

    Left out, and named in the account: hidden names, other kinds of files, and links that lead out
    of the folder, unless the doubt "links" is accepted. A link to nothing is listed, and fails when
    it is read. Raises InputError where there is nothing.
    """
    source = Path(path)
    try:
        if source.is_dir():
            pictures = [(os.path.join(source, n), n) for n in walk_folder(source, suffixes)]
        elif not source.exists() and glob.has_magic(str(path)):
            pictures = _matches(str(path), suffixes)
        else:
            return [_single_picture(source, suffixes)]
    except InputError:
        raise
    except (OSError, ValueError) as error:
        cure = "check the name and the permissions"
        raise fail(path, f"cannot be listed ({reason(error)}); {cure}") from error
    if not pictures:
        raise fail(path, f"there is no picture here ({', '.join(suffixes)}){_link_hint(source)}")
    return sorted(((file, storable(name)) for file, name in pictures), key=lambda pair: pair[1])


def _link_hint(folder: Path) -> str:
    """What to say where nothing but links may lie in a folder."""
    linked = folder.is_dir() and any(entry.is_symlink() for entry in folder.iterdir())
    return "; it holds links, which --accept links follows" if linked else ""


def list_folder(
    folder: str | os.PathLike[str],
    suffixes: Sequence[str] = PICTURE_SUFFIXES,
    *,
    noted: bool = True,
) -> list[tuple[str, str]]:
    """The pictures directly in a folder, as (file, name), sorted by name; the list may be empty.

    What is left out is as in `list_pictures`; noted: whether it goes into the account. Raises
    InputError where the folder cannot be listed.
    """
    names = walk_folder(folder, suffixes, deep=False, noted=noted)
    return [(os.path.join(folder, name), name) for name in names]


def _matches(pattern: str, suffixes: Sequence[str]) -> list[tuple[str, str]]:
    """Pictures that a pattern matches, named relative to the folder before its first * or ?."""
    base, parts = pattern_home(pattern), Path(pattern).parts
    home = os.path.realpath(base)
    pictures = []
    left_out: dict[str, list[str]] = {}
    result_files = OwnFiles(base)
    for file in sorted(set(glob.glob(pattern, recursive=True))):
        name = os.path.relpath(file, base).replace(os.sep, "/")
        # With ".." behind the first *, leaving the folder is what the pattern asks for.
        leads_out = (os.path.islink(file) or ".." not in parts) and not lies_in(
            os.path.realpath(file), home
        )
        if os.path.isdir(file):
            continue
        if result_files.holds(file):
            left_out.setdefault(RESULTS, []).append(name)
        elif in_companion(file, base):
            left_out.setdefault(COMPANIONS, []).append(name)
        elif os.path.basename(file).startswith("."):
            left_out.setdefault("hidden names", []).append(name)
        elif not name.lower().endswith(tuple(suffixes)):
            left_out.setdefault("files of other kinds", []).append(name)
        elif leads_out and not accepts("links"):
            links = "links that lead out of the folder (--accept links)"
            left_out.setdefault(links, []).append(name)
        else:
            pictures.append((file, name))
    for what, names in left_out.items():
        note("left out", what, names)
    if not pictures and (linked := [what for what in left_out if what.startswith("links")]):
        raise fail(pattern, f"matches nothing but {linked[0]}")
    return pictures


def _single_picture(path: Path, suffixes: Sequence[str]) -> tuple[str, str]:
    if not path.exists():
        raise fail(path, f"there is no such picture or folder{similar_file(path)}")
    if not path.is_file():
        raise fail(path, "is neither a plain file nor a folder")
    if path.suffix.lower() not in suffixes:
        raise fail(
            path, f"unknown kind of picture {path.suffix!r}; headwise reads {', '.join(suffixes)}"
        )
    return str(path), storable(path.name)


def visible_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones, those of storage devices
    and packers, and results of the program; links to folders count, and those that lead out of the
    folder are named in the account.

    Raises InputError where the folder cannot be listed.
    """
    home = os.path.realpath(folder)
    names, leading_out = [], []
    try:
        with os.scandir(folder) as scanned:
            entries = list(scanned)
        results = own_names(folder, {entry.name for entry in entries})
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if entry.name in results or holds_results(entry.path):
                note("left out", RESULTS, [entry.name])
                continue
            if is_companion(entry.name):
                note("left out", COMPANIONS, [entry.name])
                continue
            names.append(entry.name)
            if entry.is_symlink() and not lies_in(os.path.realpath(entry.path), home):
                leading_out.append(entry.path)
    except OSError as error:
        raise fail(folder, f"cannot be listed ({reason(error)}); check the permissions") from error
    if leading_out:
        note("assumed", "linked folders, whose contents are read", sorted(leading_out))
    return sorted(names)


def read_picture(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """One picture as RGB: uint8 (3, Y, X), turned upright as its EXIF orientation says.

    size: (height, width) in pixels to resize to, bicubic with the antialiasing of Pillow; None
    keeps the size of the file. Grey and palette become RGB, transparent pixels are laid on white,
    16 bits are scaled to 8 by the bits that their values need (65535 or 4095 becomes 255), and only
    the first of several pages or frames is read, which the account says.

    Raises InputError for a picture that is missing, empty, truncated, unreadable, or has more than
    PICTURE_PIXELS pixels (read from its header, before anything is decoded), and where Pillow is
    not installed. ValueError for a size that is not positive.
    """
    if size is not None and min(size) < 1:
        raise ValueError(f"read_picture: size {size} must be a positive height and width")
    return as_array(
        decode_picture(path, lambda opened: upright(to_rgb(path, opened), opened)), size
    )


def as_array(picture: Image.Image, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture of Pillow in mode RGB as uint8 (3, Y, X), resized as by `read_picture`."""
    from PIL import Image

    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One channel (Y, X) at another size (height, width), as float32.

    Bilinear over all the pixels that a new pixel covers.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    # A copy: torch needs a writable array.
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def decode_picture(
    path: str | os.PathLike[str], convert: Callable[[Image.Image], _Decoded]
) -> _Decoded:
    """The result of `convert` for a picture that Pillow has opened but not decoded, with the checks
    of `read_picture`.

    Raises InputError as `read_picture` does; one that `convert` raises is passed on.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError(f"reading pictures needs Pillow; {install_line('vision')}") from error
    file = Path(path)
    try:
        if not file.is_file():
            raise fail(
                path, "there is no such picture" if not file.exists() else "is not a plain file"
            )
        if not file.stat().st_size:
            raise fail(path, "is empty (0 bytes)")
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF, which is not needed
            Image.init()
            opened = Image.open(
                file, formats=[name for name in PICTURE_FORMATS if name in Image.OPEN]
            )
        with opened:
            width, height = opened.size
            if width * height > PICTURE_PIXELS:
                raise fail(path, _too_large(f"{width} x {height} pixels"))
            if _has_more(opened):
                what = "pictures of several pages or frames, of which the first is read"
                note("assumed", what, [path])
            if problem := _unusual_colours(opened):
                raise fail(path, f"{problem}, which is not read; save it as png")
            return convert(opened)
    except InputError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise fail(path, _too_large("as many as its header says")) from error
    except UnidentifiedImageError as error:
        problem = "is no picture of a kind that headwise reads, or is damaged"
        raise fail(path, f"{problem}; save it as png or jpg") from error
    except Exception as error:  # decoders raise many kinds of errors for damaged bytes
        cure = "it may be truncated: fetch or save it again"
        raise fail(path, f"cannot be read ({reason(error)}); {cure}") from error


def _unusual_colours(opened: Image.Image) -> str:
    """What Pillow cannot give as RGB, or gives wrong; empty for what it reads."""
    if opened.mode == "LAB":
        return "has its colours as LAB"
    tags = getattr(opened, "tag_v2", {})
    bits, codecs = tags.get(258, (8,)), [tile.codec_name for tile in getattr(opened, "tile", [])]
    if tags.get(284) == 2 and "raw" in codecs and len(bits) > 1 and max(bits) > 8:
        return f"holds {max(bits)} bits with one channel after the other"
    return ""


def _has_more(opened: Image.Image) -> bool:
    """Whether a file holds further pictures. No more than the second is looked at: a file may say
    that it has any number. Those of phones (MPO) are previews of the first.
    """
    if opened.format not in ("TIFF", "GIF", "WEBP", "PNG"):
        return False
    if opened.format != "TIFF":
        return bool(getattr(opened, "is_animated", False))
    try:
        opened.seek(1)
    except Exception:  # there is none, or a damaged one, which is not needed
        return False
    finally:
        opened.seek(0)
    return True


def _too_large(size: str) -> str:
    return f"is too large ({size}; at most {PICTURE_PIXELS:,}); make it smaller or cut it"


def to_rgb(path: object, opened: Image.Image) -> Image.Image:
    """The decoded picture in mode RGB. Raises InputError for numbers beyond 16 bits or fractions.

    path: the file, for the message.
    """
    from PIL import Image

    if opened.mode == "F":
        raise fail(path, "holds fractions, not 8 or 16 bit numbers; save it as png")
    wide = wide_values(path, opened, lambda channel: channel)
    if wide is not None:
        if wide.min() < 0 or wide.max() > 65535:
            raise fail(path, "holds numbers beyond 16 bits; save it with 8 or 16 bits a channel")
        eight_bits = np.rint(unit_range(path, wide[..., :3]) * 255).astype(np.uint8)
        if wide.shape[2] < 4:
            grey = eight_bits.shape[2] == 1
            return Image.fromarray(eight_bits[..., 0] if grey else eight_bits).convert("RGB")
        opened = Image.fromarray(np.dstack([eight_bits, wide[..., 3] // 257]).astype(np.uint8))
    if "A" in opened.mode or opened.mode == "RGBa" or "transparency" in opened.info:
        clear = opened.convert("RGBA")
        white = Image.new("RGB", clear.size, (255, 255, 255))
        white.paste(clear, mask=clear.getchannel("A"))
        return white
    return opened.convert("RGB")


class PictureHeader(NamedTuple):
    """What a file says of its picture before anything is decoded: rows and columns of the stored
    pixels, and the EXIF orientation, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width as stored."""
        return self.height, self.width

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width after the turn that the orientation asks for."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def read_header(path: str | os.PathLike[str]) -> PictureHeader:
    """The header of a picture. Raises InputError as `read_picture` does."""
    return decode_picture(
        path, lambda opened: PictureHeader(opened.height, opened.width, orientation_of(opened))
    )


def orientation_of(opened: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 to 8; 1 for none and for damaged EXIF."""
    try:
        orientation = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # the parser raises many kinds of errors for damaged bytes
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(
    picture: Image.Image, opened: Image.Image, orientation: int | None = None
) -> Image.Image:
    """The picture turned and mirrored as the EXIF orientation of the opened file says, or as the
    `orientation` that another picture of the same scene has.
    """
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    number = orientation_of(opened) if orientation is None else orientation
    return picture.transpose(turns[number]) if number in turns else picture


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write a uint8 picture (Y, X) or (Y, X, 3) as PNG: written aside, then renamed."""
    from PIL import Image

    # Half the time of Pillow's own level, for a seventh more bytes.
    save = partial(Image.fromarray(picture).save, format="PNG", compress_level=3)
    write_aside(path, save)
