"""DICOM radiographs: their pixels as a viewer shows them, and nothing of whom they show.

Shapes: Y rows and X columns; pixels are float32 (Y, X) in [0, 1], bright where little radiation
came through. pydicom reads; it comes with the extra `medical`, and is imported where a file is
read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import InputError, fail, shown
from .pictures import PICTURE_PIXELS

DICOM_SUFFIXES = (".dcm", ".dicom")
MODALITIES = ("CR", "DX", "DR", "RG")  # computed, digital (two names) and film radiography


@dataclass(frozen=True)
class Radiograph:
    """pixels; view: PA, AP, LL, ... or ""; bits: stored of each pixel; patient: an identifier, ""
    where there is none.

    `patient` is there to keep the pictures of a person in one part, and must not be written
    anywhere."""

    pixels: np.ndarray
    view: str
    bits: int
    patient: str


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """By its name, or, where the name ends in nothing, by the four letters behind its preamble."""
    file = Path(path)
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    if file.suffix:
        return False
    try:
        with open(file, "rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: str | os.PathLike[str]) -> Radiograph:
    """A radiograph of one frame.

    Stored values pass the modality transformation (rescale slope and intercept, or its table) and
    then the first of the file's VOI transformations (table or window), as for display; they are
    stretched over the picture, padding left out and black; MONOCHROME1 is turned round, so that
    dense is bright everywhere.

    Raises InputError, one line, for a file that is missing, damaged, of another modality, of
    several frames, in colours, without pixels, compressed in a way for which there is no decoder,
    or too large; and without pydicom."""
    found = _opened(path)
    with _header(path):
        _check(path, found)
        bits, view, patient = int(found.BitsStored), view_of(found), _patient(found)
    values, padding = _values(path, found)
    inside = values[~padding]
    if not inside.size:
        raise fail(path, "holds padding only, no picture")
    low, high = float(inside.min()), float(inside.max())
    pixels = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    if found.PhotometricInterpretation == "MONOCHROME1":
        pixels = 1 - pixels
    pixels = np.where(padding, 0, pixels).astype(np.float32)
    return Radiograph(pixels, view, bits, patient)


def read_header(path: str | os.PathLike[str]) -> tuple[str, str]:
    """(view, patient) as in `Radiograph`, without the pixels. Raises InputError as `read_dicom`."""
    found = _opened(path, pixels=False)
    with _header(path):
        _check(path, found, pixels=False)
        return view_of(found), _patient(found)


def view_of(found: Any) -> str:
    """The view position of a data set of pydicom, upper case; "" where it says none."""
    return str(found.get("ViewPosition", "") or "").strip().upper()


def _patient(found: Any) -> str:
    return str(found.get("PatientID", "") or "")


@contextmanager
def _header(path: str | os.PathLike[str]) -> Iterator[None]:
    """Values of a header are decoded when they are asked for; what is wrong with one is a line, and
    pydicom's warnings, which quote values, perhaps of the person, are not given."""
    from pydicom.config import disable_value_validation

    try:
        with disable_value_validation():
            yield
    except InputError:
        raise
    except Exception as error:
        raise fail(
            path, f"its header cannot be used ({_reason(error)}); export it again"
        ) from error


def _opened(path: str | os.PathLike[str], pixels: bool = True) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise InputError("reading DICOM needs pydicom; pip install 'headwise[medical]'") from error
    file = Path(path)
    if not file.is_file():
        raise fail(path, "there is no such file" if not file.exists() else "is not a plain file")
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except InvalidDicomError:
        raise fail(path, "is no DICOM file") from None
    except Exception as error:  # of damaged bytes, of many kinds
        raise fail(
            path, f"cannot be read as DICOM ({_reason(error)}); fetch or export it again"
        ) from error


def _check(path: object, found: Any, pixels: bool = True) -> None:
    modality = str(found.get("Modality", "") or "").strip().upper()
    if modality not in MODALITIES:
        said = f"of modality {shown(modality)}" if modality else "of no modality"
        raise fail(path, f"is {said}, not a radiograph ({', '.join(MODALITIES)})")
    frames = found.get("NumberOfFrames", 1) or 1
    if int(frames) != 1:
        raise fail(path, f"holds {int(frames)} frames; give single pictures")
    if not pixels:
        return
    if "PixelData" not in found:
        raise fail(path, "holds no pixels")
    kind = str(found.get("PhotometricInterpretation", ""))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or int(found.get("SamplesPerPixel", 1)) != 1:
        raise fail(path, f"is of kind {shown(kind)}; a radiograph is MONOCHROME1 or MONOCHROME2")
    rows, columns = int(found.get("Rows", 0) or 0), int(found.get("Columns", 0) or 0)
    if rows < 1 or columns < 1:
        raise fail(path, f"is {columns} x {rows} pixels by its header")
    if rows * columns > PICTURE_PIXELS:
        raise fail(path, f"is too large ({columns} x {rows} pixels; at most {PICTURE_PIXELS:,})")


def _values(path: object, found: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values for display, float64 (Y, X), and where the file says that there is padding."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    syntax = found.file_meta.get("TransferSyntaxUID") if hasattr(found, "file_meta") else None
    try:
        stored = found.pixel_array
    except Exception as error:
        if syntax is not None and syntax.is_compressed:
            name = syntax.name
            raise fail(
                path,
                f"is compressed ({name}), which no decoder here reads; pip install pylibjpeg "
                "pylibjpeg-libjpeg pylibjpeg-openjpeg, or export it uncompressed",
            ) from error
        raise fail(
            path, f"its pixels cannot be read ({_reason(error)}); fetch or export it again"
        ) from error
    if stored.shape != (int(found.Rows), int(found.Columns)):
        raise fail(path, f"its pixels are {stored.shape}, not of one picture")
    padding = np.zeros(stored.shape, bool)
    if (first := found.get("PixelPaddingValue")) is not None:
        last = found.get("PixelPaddingRangeLimit", first)
        low, high = sorted((int(first), int(last)))
        padding = (stored >= low) & (stored <= high)
    try:
        shown_values = apply_voi_lut(apply_modality_lut(stored, found), found, index=0)
    except Exception as error:
        raise fail(
            path, f"its window or look-up table cannot be used ({_reason(error)})"
        ) from error
    return np.asarray(shown_values, np.float64), padding


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"
