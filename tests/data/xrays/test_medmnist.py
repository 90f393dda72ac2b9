"""Files of MedMNIST within limits, and those with several labels a picture."""

import zipfile

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from headwise.base.errors import InputError
from headwise.data.xrays import medmnist
from headwise.data.xrays.records import Reading
from headwise.data.xrays.xrays import read_xray_set


def arrays(count=3, labels=1):
    rng = np.random.default_rng(0)
    values = {}
    for word in ("train", "val", "test"):
        values[f"{word}_images"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        values[f"{word}_labels"] = rng.integers(0, 2, (count, labels), dtype=np.uint8)
    return values


@pytest.mark.parametrize("member", ["train_images", "val_labels"])
def test_a_header_of_more_numbers_than_the_file_holds_is_a_line(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, values in arrays().items():
            shape = (10**13, *values.shape[1:]) if name == member else values.shape
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.write(values.tobytes())
    with pytest.raises(InputError, match=f"{member}.*shorter than its header says"):
        read_xray_set(tmp_path / "a.npz")


def test_what_unpacks_to_far_more_than_pictures_do_is_refused_unread(tmp_path, monkeypatch):
    path, values = tmp_path / "a.npz", arrays()
    values["train_images"] = np.zeros((2000, 100, 100), np.uint8)
    values["train_labels"] = np.zeros((2000, 1), np.uint8)
    np.savez_compressed(path, **values)
    read_xray_set(path)  # small ones may be as empty as they like
    monkeypatch.setattr(medmnist, "_UNCHECKED_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"unpacks to 20,000,128 bytes, 100 times its size"):
        read_xray_set(path)


def test_listing_reads_no_pictures(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays())
    opened = []
    read = medmnist._array
    monkeypatch.setattr(
        medmnist, "_array", lambda where, file, name: opened.append(name) or read(where, file, name)
    )
    assert len(read_xray_set(path)) == 9
    assert opened == ["train_labels", "val_labels", "test_labels"]


def test_the_fourteen_labels_of_chestmnist_are_findings(tmp_path):
    path, values = tmp_path / "chestmnist_64.npz", arrays(labels=14)
    for word in ("train", "val", "test"):
        values[f"{word}_labels"][:] = 0
    values["train_labels"][0, [2, 3]] = 1  # effusion and infiltration
    values["val_labels"][1, 2] = 1
    values["test_labels"][2, 3] = 1
    np.savez(path, **values)
    xrays = read_xray_set(path, Reading(finding="Effusion"))
    has_it = [name for name, label in zip(xrays.names, xrays.labels) if label == "Effusion"]
    assert has_it == ["train/0", "val/1"]
    assert set(xrays.labels) == {"Effusion", "no Effusion"}
    with pytest.raises(InputError, match=r"'Effusion\|Infiltration' is several labels"):
        read_xray_set(path)
