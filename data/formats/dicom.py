"""DICOM radiographs: their pixels as a viewer shows them, and nothing about the patient.

Shapes: Y rows and X columns; pixels are float32 (Y, X) in [0, 1], bright where little radiation
came through. pydicom reads them; it comes with the extra `medical`, and is imported where a file is
read. How a file was displayed goes into the account.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ...base.extras import install_line
from .dicom_bytes import check_deflated, is_bare, starts_as_dicom, starts_as_picture
from .grey_range import value_range
from .pictures import PICTURE_PIXELS

if TYPE_CHECKING:
    from pydicom import FileDataset

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic")
MODALITIES = ("CR", "DX", "DR", "RG")  # computed, digital (two names) and film radiography
DICOM_BYTES = 1 << 28  # largest file; a radiograph of PICTURE_PIXELS has 160 MB
_HEADER_TAGS = [
    "SpecificCharacterSet", "Modality", "PatientID", "ViewPosition", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "RescaleType",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape",
]  # fmt: skip
_PIXEL_TAGS = ["PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]


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
    """Whether a file is DICOM: by its contents, with or without a preamble, whatever its name is.

    A file named .dcm that is no picture of another kind counts, too, so that what is wrong with it
    is said where it is read.
    """
    file = Path(path)
    named = file.suffix.lower() in DICOM_SUFFIXES
    try:
        if not file.is_file():  # a device or a pipe would not end
            return named
        with open(file, "rb") as opened:
            head = opened.read(144)
    except (OSError, ValueError):
        return named
    return starts_as_dicom(head) or (named and not starts_as_picture(head))


def read_dicom(path: str | os.PathLike[str]) -> Radiograph:
    """A radiograph of one frame.

    Stored values pass the modality transformation (rescale slope and intercept, or its table) and
    then the first of the file's VOI transformations (table or window), as for display (PS3.3
    C.11.1 and C.11.2): a window rises with the modality values, whatever the sign of the slope.
    They are stretched to [0, 1] without the padding, which is black, and, where there is no VOI
    transformation, without burnt-in markers (`value_range`). MONOCHROME1 and the presentation
    shape INVERSE are inverted, so that dense tissue is bright everywhere.

    Raises InputError for a file that is missing, damaged, of another modality, of several frames,
    in colours, without pixels, too large, or compressed in a way for which there is no decoder, and
    where pydicom is not installed.
    """
    header = _opened(path, pixels=False)
    with _header(path):
        _check(path, header, pixels=False)
    dataset = _opened(path)
    with _header(path):
        _check(path, dataset)
        bits, view, patient = int(dataset.BitsStored), view_of(dataset), _patient(dataset)
    values, padding, way = _values(path, dataset)
    inside = values[~padding]
    if not inside.size:
        raise fail(path, "holds padding only, no picture")
    low, high, marked = value_range(inside)
    if way or not marked:
        low, high, marked = float(inside.min()), float(inside.max()), False
    flat = not high > low
    pixels = np.full_like(values, 0.5) if flat else ((values - low) / (high - low)).clip(0, 1)
    inverted = _is_inverted(dataset)
    if inverted:
        pixels = 1 - pixels
    pixels = np.where(padding, 0, pixels).astype(np.float32)
    for what, holds in (
        ("DICOM files in which dense is dark (MONOCHROME1), inverted", inverted),
        (f"DICOM files shown through {way}", way),
        ("DICOM files without a window, stretched from lowest to highest value", not way),
    ):
        if holds:
            note("assumed", what, [path])
    for what, holds in (
        ("DICOM files with padding, which is black", bool(padding.any())),
        ("DICOM files with burnt-in markers far outside of the other values, cut off", marked),
        ("DICOM files of one grey value", flat),
    ):
        if holds:
            note("values", what, [path])
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
    return str(dataset.get("PatientID", "") or "").strip()


def _is_inverted(dataset: FileDataset) -> bool:
    shape = str(dataset.get("PresentationLUTShape", "") or "").strip().upper()
    return dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE"


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
        raise InputError(f"reading DICOM needs pydicom; {install_line('medical')}") from error
    file = Path(path)
    if not file.is_file():
        raise fail(path, "there is no such file" if not file.exists() else "is not a plain file")
    tags = [*_HEADER_TAGS, *(_PIXEL_TAGS if pixels else [])]
    try:
        if pixels and (size := file.stat().st_size) > DICOM_BYTES:
            raise fail(path, f"is too large ({size:,} bytes; at most {DICOM_BYTES:,})")
        check_deflated(path, DICOM_BYTES)
        bare = is_bare(file)
        # Only these values are read: a private one may be of any size.
        dataset = pydicom.dcmread(
            file, stop_before_pixels=not pixels, force=bare, specific_tags=tags
        )
        if bare:
            _name_encoding(dataset)
            note("assumed", "DICOM files without preamble, read from their first value", [path])
        return dataset
    except InputError:
        raise
    except InvalidDicomError:
        raise fail(path, "is no DICOM file") from None
    except Exception as error:  # pydicom raises many kinds of errors for damaged bytes
        problem = f"cannot be read as DICOM ({reason(error)})"
        raise fail(path, f"{problem}; fetch or export it again") from error


def _name_encoding(dataset: FileDataset) -> None:
    """Say how the numbers of a file without preamble are encoded, which decoding needs to know."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax


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


def _values(path: object, dataset: FileDataset) -> tuple[np.ndarray, np.ndarray, str]:
    """Values for display, float64 (Y, X); a mask (Y, X) of what the file calls padding; and the VOI
    transformation in words, "" where the file has none.
    """
    from pydicom.pixels.processing import apply_modality_lut

    stored = _stored(path, dataset)
    try:
        padding = _padding(stored, dataset)
        modality = np.asarray(apply_modality_lut(stored, dataset), np.float64)
        displayed, way = _voi(modality, dataset)
    except Exception as error:
        problem = reason(error)
        raise fail(path, f"its window or look-up table cannot be used ({problem})") from error
    return displayed, padding, way


def _stored(path: object, dataset: FileDataset) -> np.ndarray:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    try:
        if syntax is not None and not syntax.is_compressed and _needs_more_bits(dataset):
            dataset.BitsStored, dataset.HighBit = 16, 15
            note("assumed", "DICOM files with more bits than their header says", [path])
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
    return stored


def _needs_more_bits(dataset: FileDataset) -> bool:
    """Whether the values of a file of 16 unsigned bits go beyond the bits that its header says.

    An overlay in an upper bit, of which there may be two, is no such value.
    """
    bits = int(dataset.BitsStored)
    little = dataset.original_encoding[1]
    signed = int(dataset.get("PixelRepresentation", 0) or 0) == 1
    if signed or not little or int(dataset.BitsAllocated) != 16 or not 8 <= bits < 16:
        return False
    data = bytes(dataset.PixelData)
    upper = np.frombuffer(data, "<u2", count=len(data) // 2) >> bits
    return int(np.count_nonzero(np.bincount(upper))) > 4


def _padding(stored: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Mask of the pixels that the file calls padding.

    Its values are of the type of the pixels, but often written as the other one: 63536 is -2000 of
    16 signed bits.
    """
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    ends, span = [], 1 << int(dataset.get("BitsAllocated", 16))
    for value in (first, first if last is None else last):
        number = int(value) % span
        signed = int(dataset.get("PixelRepresentation", 0) or 0) == 1 and number >= span // 2
        ends.append(number - span if signed else number)
    return (stored >= min(ends)) & (stored <= max(ends))


def _voi(values: np.ndarray, dataset: FileDataset) -> tuple[np.ndarray, str]:
    """Modality values after the file's first table or window, and that in words."""
    from pydicom.pixels.processing import apply_voi

    tables = dataset.get("VOILUTSequence")
    if tables and None not in (tables[0].get("LUTDescriptor"), tables[0].get("LUTData")):
        mapped = apply_voi(values.astype(np.int64), dataset, index=0)
        return np.asarray(mapped, np.float64), "the look-up table of their header"
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return values, ""
    function = str(dataset.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    return windowed(values, centre, width, function), "the window of their header"


def _first(value: object) -> float | None:
    """The first of a header's numbers, None where there is none."""
    if value is None or isinstance(value, str) or not hasattr(value, "__len__"):
        return None if value is None or value == "" else float(str(value))
    numbers = list(value)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return float(str(numbers[0])) if numbers else None


def windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Modality values through a window, from 0 to 1, as PS3.3 C.11.2.1.2 and C.11.2.1.3 say.

    function: LINEAR, LINEAR_EXACT or SIGMOID. Raises ValueError for others and for a width that is
    too small.
    """
    from scipy.special import expit

    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"unknown VOI LUT function {shown(function)}")
    if not width > 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"the width of the window is {width:g}")
    if function == "SIGMOID":
        return expit(4 * (values - centre) / width)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
