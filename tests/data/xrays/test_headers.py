"""What the headers of DICOM files say about patients and views."""

from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")
pytest.importorskip("pydicom", reason="pydicom is optional (extra medical) and not installed")

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from headwise.base.account import opened
from headwise.data.xrays.xrays import read_xray_set


def write_header(path: Path, patient: str) -> None:
    """A radiograph without pixels."""
    path.parent.mkdir(exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.Modality, dataset.PatientID, dataset.ViewPosition = "DX", patient, "PA"
    dataset.save_as(path, enforce_file_format=True)


def test_patients_are_those_of_the_headers_by_number(tmp_path: Path) -> None:
    for name, patient in (("ill/1", "X-1"), ("ill/2", "X-1"), ("well/3", "X-2"), ("well/4", "")):
        write_header(tmp_path / name, patient)
    with opened() as account:
        xrays = read_xray_set(tmp_path)
    assert xrays.patients == ["patient 1", "patient 1", "patient 2", "picture 4"]
    assert xrays.views == ["PA"] * 4
    text = "\n".join(account.lines())
    assert "3 pictures whose patients come from DICOM headers" in text
    assert "3 pictures of 2 patients stay together" in text
    assert "1 pictures without a patient, each of which counts as its own" in text
    assert "X-1" not in text


def test_one_identifier_for_all_is_that_of_an_anonymised_export(tmp_path: Path) -> None:
    for name in ("ill/1", "well/2", "ill/3"):
        write_header(tmp_path / name, "ANONYMOUS")
    with opened() as account:
        xrays = read_xray_set(tmp_path)
    assert xrays.patients == ["picture 1", "picture 2", "picture 3"]
    assert any("all DICOM headers name one patient" in line for line in account.lines())
    (tmp_path / "ill" / "4.dcm").write_bytes(b"")  # a header that cannot be read says nothing
    assert len(read_xray_set(tmp_path).patients) == 4
