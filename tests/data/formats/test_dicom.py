"""Radiographs in DICOM, written by pydicom: the right pixels, or one line without patient data."""

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is optional (extra medical) and not installed")

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from headwise.base.errors import InputError
from headwise.data.formats.dicom import is_dicom, read_dicom, read_header
from headwise.data.xrays.files import list_xrays
from headwise.data.xrays.xrays import read_row, read_xray_set

SECRET = "Doe^Jane"


def make(path, stored, *, bits=12, kind="MONOCHROME2", syntax=ExplicitVRLittleEndian, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.1.1",
        generate_uid(),
    )
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.PatientName, dataset.PatientID, dataset.Modality, dataset.ViewPosition = (
        SECRET,
        "ID-77",
        "DX",
        "PA",
    )
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (
        0,
        1,
        kind,
    )
    dataset.PixelData = stored.astype(np.uint16).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def ramp(bits=12):
    return np.linspace(0, 2**bits - 1, 20 * 30).reshape(20, 30).astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_pixels_of_both_interpretations_are_alike(tmp_path, bits, kind):
    stored = ramp(bits)
    radiograph = read_dicom(make(tmp_path / "a.dcm", stored, bits=bits, kind=kind))
    expected = stored / (2**bits - 1)
    np.testing.assert_allclose(
        radiograph.pixels, expected if kind == "MONOCHROME2" else 1 - expected, atol=1e-6
    )
    assert radiograph.pixels.dtype == np.float32
    assert (radiograph.view, radiograph.bits, radiograph.patient) == ("PA", bits, "ID-77")
    assert read_header(tmp_path / "a.dcm") == ("PA", "ID-77")


def test_window_rescale_and_padding_are_applied(tmp_path):
    stored = ramp()
    tags = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": ["2000", "9"]}
    tags["WindowWidth"] = ["1001", "9"]  # the first of two windows counts
    pixels = read_dicom(make(tmp_path / "a.dcm", stored, **tags)).pixels
    # PS3.3 C.11.2.1.2: from c - .5 - (w - 1) / 2 to c - .5 + (w - 1) / 2, straight between.
    expected = np.clip((2.0 * stored - 1000 - 1999.5) / 1000 + 0.5, 0, 1)
    np.testing.assert_allclose(pixels, expected, atol=1e-5)
    stored[:2] = 4000
    stored[2:] //= 2
    padded = read_dicom(
        make(tmp_path / "b.dcm", stored, kind="MONOCHROME1", PixelPaddingValue=4000)
    ).pixels
    assert (padded[:2] == 0).all()
    assert padded[2:].min() == 0
    assert padded[2:].max() == 1
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - 16 * np.arange(4096)).astype(np.uint16).tobytes()
    turned = read_dicom(make(tmp_path / "c.dcm", ramp(), VOILUTSequence=[table])).pixels
    np.testing.assert_allclose(turned, 1 - ramp() / 4095, atol=1e-6)
    assert (read_dicom(make(tmp_path / "d.dcm", np.full((4, 5), 7))).pixels == 0.5).all()


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "CT"}, "of modality 'CT', not a radiograph"),
        ({"Modality": ""}, "of no modality"),
        ({"NumberOfFrames": 3}, "holds 3 frames"),
        ({"PixelData": None}, "holds no pixels"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "is of kind 'RGB'"),
        ({"Rows": 30000, "Columns": 30000}, "is too large"),
        ({"Rows": 40}, "its pixels cannot be read"),
        ({"syntax": JPEG2000Lossless}, r"is compressed \(JPEG 2000"),
        ({"Rows": 0}, "30 x 0 pixels"),
    ],
)
def test_what_is_no_radiograph_is_one_line(tmp_path, tags, message):
    if "syntax" in tags:
        from pydicom.encaps import encapsulate

        tags = {**tags, "PixelData": encapsulate([b"\xff\x4f\xff\x51" + bytes(40)])}
    path = make(tmp_path / "a.dcm", ramp(), **tags)
    with pytest.raises(InputError, match=message) as error:
        read_dicom(path)
    text = str(error.value)
    assert "\n" not in text
    assert SECRET not in text
    assert "ID-77" not in text


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("no dicom at all" * 20)
    with pytest.raises(InputError, match="is no DICOM file"):
        read_dicom(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="there is no such file"):
        read_dicom(tmp_path / "b.dcm")
    make(tmp_path / "c.dcm", ramp())
    content = (tmp_path / "c.dcm").read_bytes()
    (tmp_path / "d.dcm").write_bytes(content[:-300])
    with pytest.raises(InputError, match="cannot be read"):
        read_dicom(tmp_path / "d.dcm")
    (tmp_path / "IM0001").write_bytes(content)
    assert is_dicom(tmp_path / "IM0001")
    assert is_dicom("x.DCM")
    assert not is_dicom(tmp_path / "none")
    assert not is_dicom("a.png")


def test_persons_of_dicom_are_numbered(tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is optional (extra medical) and not installed")
    for label, name, person in (
        ("ill", "a.dcm", "X-1"),
        ("ill", "b.dcm", "X-1"),
        ("well", "c.dcm", "X-2"),
    ):
        (tmp_path / label).mkdir(exist_ok=True)
        make(tmp_path / label / name, ramp(), PatientID=person)
    pictures = read_xray_set(tmp_path)
    assert pictures.patients == ["patient 1", "patient 1", "patient 2"]
    assert pictures.views == ["PA"] * 3
    assert "X-1" not in repr(pictures)
    np.testing.assert_allclose(read_row(pictures, 0), ramp() / 4095, atol=1e-6)
    (tmp_path / "bare").mkdir()
    (tmp_path / "ill" / "a.dcm").rename(tmp_path / "bare" / "IM1")
    assert [name for _, name in list_xrays(tmp_path / "bare")] == ["IM1"]


@pytest.mark.parametrize(("old", "new"), [(b"12", b"x1"), (b"1 ", b"q ")])
def test_a_broken_number_in_a_header_is_a_line(tmp_path, old, new):
    """Numbers kept as text are decoded only when they are asked for."""
    path = make(tmp_path / "a.dcm", ramp(12), NumberOfFrames=1 if old == b"1 " else 12)
    broken = path.read_bytes()
    tag = b"\x28\x00\x08\x00IS\x02\x00"
    assert broken.count(tag + old) == 1
    path.write_bytes(broken.replace(tag + old, tag + new))
    for read in (read_dicom, read_header):
        with pytest.raises(InputError, match="header cannot be used") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_an_identifier_against_the_rules_is_not_quoted(tmp_path):
    import pydicom

    with pydicom.config.disable_value_validation():
        path = make(tmp_path / "a.dcm", ramp(), PatientID="ID-77" * 20)
    assert read_header(path) == ("PA", "ID-77" * 20)
    assert read_dicom(path).patient == "ID-77" * 20


def test_a_header_without_its_bits_is_a_line(tmp_path):
    with pytest.raises(InputError, match="header cannot be used"):
        read_dicom(make(tmp_path / "a.dcm", ramp(12), BitsStored=None))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", ["2", "-2"])
def test_dense_is_bright_for_any_slope_and_signed_values(tmp_path, kind, slope):
    """What MONOCHROME1 turns round is what the slope has made of the values, which may be below
    0.
    """
    stored = (ramp().astype(np.int32) - 2000).astype(np.int16)
    tags = {
        "RescaleSlope": slope,
        "RescaleIntercept": "100",
        "PixelRepresentation": 1,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelData": stored.tobytes(),
    }
    pixels = read_dicom(make(tmp_path / "a.dcm", stored, kind=kind, **tags)).pixels
    rising = (kind == "MONOCHROME2") == (slope == "2")
    expected = ramp() / 4095
    np.testing.assert_allclose(pixels, expected if rising else 1 - expected, atol=1e-6)


def test_labels_stay_with_their_files_and_persons(tmp_path):
    """Rows of a table of DICOM files in any order, two persons, one of whom the table itself
    names.
    """
    pixels = [
        np.random.default_rng(k).integers(0, 4096, (6, 7)).astype(np.uint16) for k in range(5)
    ]
    for k, values in enumerate(pixels):
        make(
            tmp_path / f"{k}.dcm",
            values,
            PatientID=f"ID-{k % 2}",
            ViewPosition=("PA", "LL")[k // 3],
        )
    order = (3, 0, 4, 2, 1)
    lines = [f"{k}.dcm,{'ill' if k < 2 else 'well'},{'named' if k == 4 else ''}" for k in order]
    (tmp_path / "labels.csv").write_text("image,label,patient\n" + "\n".join(lines))
    pictures = read_xray_set(tmp_path)
    assert pictures.labels == ["well", "ill", "well", "well", "ill"]
    assert pictures.views == ["LL", "PA", "LL", "PA", "PA"]
    assert pictures.patients == ["patient 1", "patient 2", "named", "patient 2", "patient 1"]
    for row, k in enumerate(order):
        values = pixels[k].astype(float)
        expected = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(read_row(pictures, row), expected, atol=1e-6)
