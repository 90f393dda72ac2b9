"""Radiographs in DICOM, written by pydicom: the right pixels, or one line without patient data."""

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is optional (extra medical) and not installed")

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.dicom import is_dicom, read_dicom, read_header, windowed
from headwise.data.xrays.files import list_xrays
from headwise.data.xrays.xrays import read_row, read_xray, read_xray_set

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
    with opened() as account:
        turned = read_dicom(make(tmp_path / "c.dcm", ramp(), VOILUTSequence=[table])).pixels
    assert "shown through the look-up table of their header" in account.lines()[0]
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
    with opened() as account:
        pictures = read_xray_set(tmp_path)
    assert pictures.patients == ["patient 1", "patient 1", "patient 2"]
    assert any(
        "3 pictures whose patients come from DICOM headers" in line for line in account.lines()
    )
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


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [10, -10])
def test_a_window_rises_with_the_values_whatever_the_sign_of_the_slope(tmp_path, kind, slope):
    """PS3.3 C.11.2.1.2: a window of all modality values leaves the picture as it is without one."""
    ends = np.array([3000, 3000 + slope * 4095])
    tags = {"RescaleSlope": str(slope), "RescaleIntercept": "3000"}
    tags |= {"WindowCenter": str(ends.mean() + 0.5), "WindowWidth": str(np.ptp(ends) + 1)}
    rising = (slope > 0) == (kind == "MONOCHROME2")
    expected = ramp() / 4095 if rising else 1 - ramp() / 4095
    for name, some in (("a.dcm", tags), ("b.dcm", dict(list(tags.items())[:2]))):
        pixels = read_dicom(make(tmp_path / name, ramp(), kind=kind, **some)).pixels
        np.testing.assert_allclose(pixels, expected, atol=1e-5)


def test_the_three_functions_of_a_window_are_those_of_the_standard():
    values = np.array([-10.0, 0, 2, 4, 5, 20])
    linear = np.clip((values - 3.5) / 9 + 0.5, 0, 1)
    np.testing.assert_allclose(windowed(values, 4, 10, "LINEAR"), linear)
    exact = np.clip((values - 4) / 10 + 0.5, 0, 1)
    np.testing.assert_allclose(windowed(values, 4, 10, "LINEAR_EXACT"), exact)
    sigmoid = 1 / (1 + np.exp(-4 * (values - 4) / 10))
    np.testing.assert_allclose(windowed(values, 4, 10, "SIGMOID"), sigmoid)
    assert windowed(values, 4, 1, "LINEAR").tolist() == [0, 0, 0, 1, 1, 1]
    for width, function in ((0.5, "LINEAR"), (0, "SIGMOID"), (4, "CUBIC")):
        with pytest.raises(ValueError, match=r"width|unknown"):
            windowed(values, 4, width, function)


def test_a_presentation_that_is_inverse_is_inverted_once(tmp_path):
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        path = make(tmp_path / f"{kind}.dcm", ramp(), kind=kind, PresentationLUTShape="INVERSE")
        np.testing.assert_allclose(read_dicom(path).pixels, 1 - ramp() / 4095, atol=1e-6)


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_padding_is_left_out_however_its_sign_is_written(tmp_path, padding):
    stored = (ramp().astype(np.int32) - 1000).astype(np.int16)
    stored[:, :4] = -2000
    tags = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}
    path = make(tmp_path / "a.dcm", stored, **tags, PixelData=stored.tobytes())
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x00280120, "US" if padding > 0 else "SS", padding)
    dataset.save_as(path)
    with opened() as account:
        pixels = read_dicom(path).pixels
    inside = stored[:, 4:].astype(float)
    expected = (inside - inside.min()) / np.ptp(inside)
    np.testing.assert_allclose(pixels[:, 4:], expected, atol=1e-6)
    assert (pixels[:, :4] == 0).all()
    assert any("padding, which is black" in line for line in account.lines())


@pytest.mark.parametrize("marker", [0, 65535])
def test_a_burnt_in_marker_does_not_darken_the_picture(tmp_path, marker):
    stored = ramp() + 20000
    stored[:2, :4] = marker
    with opened() as account:
        pixels = read_dicom(make(tmp_path / "a.dcm", stored, bits=16)).pixels
    inside = stored[2:].astype(float)
    low, high = (stored[stored != marker].min(), stored.max() if not marker else inside.max())
    np.testing.assert_allclose(pixels[2:], (inside - low) / (high - low), atol=1e-6)
    assert set(pixels[:2, :4].ravel()) == {float(marker > 0)}
    assert any("1 DICOM files with burnt-in markers" in line for line in account.lines())


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_are_read(tmp_path, implicit):
    dataset = pydicom.dcmread(make(tmp_path / "a.dcm", ramp()))
    plain = pydicom.Dataset()
    for element in dataset:
        plain.add(element)
    bare = tmp_path / "1.2.840.113619"
    pydicom.dcmwrite(
        bare, plain, implicit_vr=implicit, little_endian=True, enforce_file_format=False
    )
    assert bare.read_bytes()[128:132] != b"DICM"
    assert is_dicom(bare)
    with opened() as account:
        radiograph = read_dicom(bare)
    np.testing.assert_allclose(radiograph.pixels, ramp() / 4095, atol=1e-6)
    assert (radiograph.view, radiograph.patient) == ("PA", "ID-77")
    assert any("without preamble" in line for line in account.lines())


def test_what_a_file_is_shows_in_its_contents_not_in_its_name(tmp_path):
    from PIL import Image

    content = make(tmp_path / "a.dcm", ramp()).read_bytes()
    for name in ("1.2.840.113619.2.171", "b.png", "IM0001", "c.dat"):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(tmp_path / name)
        np.testing.assert_allclose(read_xray(tmp_path / name), ramp() / 4095, atol=1e-6)
    grey = np.arange(120, dtype=np.uint8).reshape(10, 12)
    Image.fromarray(grey).save(tmp_path / "d.png")
    (tmp_path / "d.dcm").write_bytes((tmp_path / "d.png").read_bytes())
    assert not is_dicom(tmp_path / "d.dcm")
    np.testing.assert_allclose(read_xray(tmp_path / "d.dcm"), grey / np.float32(255), atol=1e-7)
    (tmp_path / "notes.txt").write_text("nothing of the kind, at more than 132 bytes" * 9)
    assert not is_dicom(tmp_path / "notes.txt")


def test_a_deflated_file_is_read_and_a_bomb_is_a_line(tmp_path, monkeypatch):
    from headwise.data.formats import dicom

    dataset = pydicom.dcmread(make(tmp_path / "a.dcm", ramp()))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_allclose(read_dicom(tmp_path / "b.dcm").pixels, ramp() / 4095, atol=1e-6)
    dataset.add_new(0x00990010, "LO", "x")
    dataset.add_new(0x00991001, "OB", bytes(3 << 20))
    dataset.save_as(tmp_path / "c.dcm")
    assert (tmp_path / "c.dcm").stat().st_size < 20000
    monkeypatch.setattr(dicom, "DICOM_BYTES", 1 << 20)
    for read in (read_dicom, read_header):
        with pytest.raises(InputError, match="unpacks to more than 1,048,576 bytes"):
            read(tmp_path / "c.dcm")
    read_dicom(tmp_path / "b.dcm")


def test_how_files_were_displayed_is_in_the_account(tmp_path):
    window = {"WindowCenter": "2000", "WindowWidth": "4000"}
    files = [
        make(tmp_path / "a.dcm", ramp(), kind="MONOCHROME1", **window),
        make(tmp_path / "b.dcm", ramp()),
        make(tmp_path / "c.dcm", np.full((4, 5), 7)),
    ]
    with opened() as account:
        for file in files:
            read_dicom(file)
    counts = {entry.what: entry.count for entry in account.entries()}
    assert counts == {
        "DICOM files in which dense is dark (MONOCHROME1), inverted": 1,
        "DICOM files shown through the window of their header": 1,
        "DICOM files without a window, stretched from lowest to highest value": 2,
        "DICOM files of one grey value": 1,
    }


def test_more_bits_than_the_header_says_are_read_and_overlays_are_not(tmp_path):
    """A ramp of 16 bits is no saw of 12; an overlay in bit 15 is no part of the picture."""
    with opened() as account:
        pixels = read_dicom(make(tmp_path / "a.dcm", ramp(16), bits=12)).pixels
    np.testing.assert_allclose(pixels, ramp(16) / 65535, atol=1e-6)
    assert any("more bits than their header says" in line for line in account.lines())
    overlaid = ramp()
    overlaid[5:, :20] |= 0x8000
    pixels = read_dicom(make(tmp_path / "b.dcm", overlaid)).pixels
    np.testing.assert_allclose(pixels, ramp() / 4095, atol=1e-6)
