"""DICOM radiographs: their pixels as a viewer shows them, and nothing about the patient.

Shapes: Y rows and X columns; pixels are float32 (Y, X) in [0, 1], bright where little radiation
came through. pydicom reads them; it comes with the extra `medical`, and is imported where a file is
read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import InputError, fail, reason, shown
from .pictures import PICTURE_PIXELS

if TYPE_CHECKING:
    from pydicom import FileDataset

DICOM_SUFFIXES = (".dcm", ".dicom")
MODALITIES = ("CR", "DX", "DR", "RG")  # computed, digital (two names) and film radiography


@dataclass(frozen=True)
class Radiograph:
    """pixels; view: PA, AP, LL, ... or ""; bits: stored per pixel; patient: an identifier, or "".

    `patient` keeps the pictures of a person in one part. It must not be written anywhere.
    """

    pixels: np.ndarray
    view: str
    bits: int
    patient: str


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM: by its ending, or, without one, by the four letters after its
    preamble.
    """
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
    then the first of the file's VOI transformations (table or window), as for display. They are
    stretched to [0, 1] without the padding, which is black. MONOCHROME1 is inverted, so that dense
    tissue is bright everywhere.

    Raises InputError for a file that is missing, damaged, of another modality, of several frames,
    in colours, without pixels, too large, or compressed in a way for which there is no decoder, and
    where pydicom is not installed.
    """
    dataset = _opened(path)
    with _header(path):
        _check(path, dataset)
        bits, view, patient = int(dataset.BitsStored), view_of(dataset), _patient(dataset)
    values, padding = _values(path, dataset)
    inside = values[~padding]
    if not inside.size:
        raise fail(path, "holds padding only, no picture")
    low, high = float(inside.min()), float(inside.max())
    pixels = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 1 - pixels
    pixels = np.where(padding, 0, pixels).astype(np.float32)
    return Radiograph(pixels, view, bits, patient)


def read_header(path: str | os.PathLike[str]) -> tuple[str, str]:
    """(view, patient) as in `Radiograph`, without reading pixels. Raises InputError as `read_dicom`
    does.
    """
    dataset = _opened(path, pixels=False)
    with _header(path):
        _check(path, dataset, pixels=False)
        return view_of(dataset), _patient(dataset)


def view_of(dataset: FileDataset) -> str:
    """The view position of a data set of pydicom, upper case; "" where there is none."""
    return str(dataset.get("ViewPosition", "") or "").strip().upper()


def _patient(dataset: FileDataset) -> str:
    return str(dataset.get("PatientID", "") or "")


@contextmanager
def _header(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error in a header into one line.

    pydicom decodes values when they are read. Its warnings quote values, perhaps of the patient, so
    they are switched off.
    """
    from pydicom.config import disable_value_validation

    try:
        with disable_value_validation():
            yield
    except InputError:
        raise
    except Exception as error:
        problem = f"its header cannot be used ({reason(error)})"
        raise fail(path, f"{problem}; export it again") from error


def _opened(path: str | os.PathLike[str], pixels: bool = True) -> FileDataset:
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
    except Exception as error:  # pydicom raises many kinds of errors for damaged bytes
        problem = f"cannot be read as DICOM ({reason(error)})"
        raise fail(path, f"{problem}; fetch or export it again") from error


def _check(path: object, dataset: FileDataset, pixels: bool = True) -> None:
    modality = str(dataset.get("Modality", "") or "").strip().upper()
    if modality not in MODALITIES:
        kind = f"of modality {shown(modality)}" if modality else "of no modality"
        raise fail(path, f"is {kind}, not a radiograph ({', '.join(MODALITIES)})")
    frames = dataset.get("NumberOfFrames", 1) or 1
    if int(frames) != 1:
        raise fail(path, f"holds {int(frames)} frames; give single pictures")
    if not pixels:
        return
    if "PixelData" not in dataset:
        raise fail(path, "holds no pixels")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind not in ("MONOCHROME1", "MONOCHROME2") or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise fail(path, f"is of kind {shown(kind)}; a radiograph is MONOCHROME1 or MONOCHROME2")
    rows, columns = int(dataset.get("Rows", 0) or 0), int(dataset.get("Columns", 0) or 0)
    if rows < 1 or columns < 1:
        raise fail(path, f"is {columns} x {rows} pixels by its header")
    if rows * columns > PICTURE_PIXELS:
        raise fail(path, f"is too large ({columns} x {rows} pixels; at most {PICTURE_PIXELS:,})")


def _values(path: object, dataset: FileDataset) -> tuple[np.ndarray, np.ndarray]:
    """Values for display, float64 (Y, X), and a mask (Y, X) of what the file calls padding."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    try:
        stored = dataset.pixel_array
    except Exception as error:
        if syntax is not None and syntax.is_compressed:
            problem = f"is compressed ({syntax.name}), which no decoder here reads"
            packages = "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
            cure = f"pip install {packages}, or export it uncompressed"
            raise fail(path, f"{problem}; {cure}") from error
        problem = f"its pixels cannot be read ({reason(error)})"
        raise fail(path, f"{problem}; fetch or export it again") from error
    if stored.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise fail(path, f"its pixels are {stored.shape}, not of one picture")
    padding = np.zeros(stored.shape, bool)
    if (first := dataset.get("PixelPaddingValue")) is not None:
        last = dataset.get("PixelPaddingRangeLimit", first)
        low, high = sorted((int(first), int(last)))
        padding = (stored >= low) & (stored <= high)
    try:
        displayed = apply_voi_lut(apply_modality_lut(stored, dataset), dataset, index=0)
    except Exception as error:
        problem = reason(error)
        raise fail(path, f"its window or look-up table cannot be used ({problem})") from error
    return np.asarray(displayed, np.float64), padding
