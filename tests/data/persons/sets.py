"""Small copies of every layout of sets of pictures, for the tests of readers."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.errors import InputError
from headwise.data.persons.persons import PictureSet, read_picture_set


def fill(folder: Path, *names: str) -> Path:
    """Files of one byte: listing opens no picture, so that none need be one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def market(root: Path) -> Path:
    return fill(
        root,
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0007_c3s3_077419_03.jpg",
        "bounding_box_train/Thumbs.db",
        "query/0001_c1s1_001051_00.jpg",
        "bounding_box_test/-1_c1s1_000401_03.jpg",
        "bounding_box_test/0000_c6s1_000151_01.jpg",
        "bounding_box_test/0001_c2s1_000301_00.jpg",
        "gt_bbox/0001_c1s1_001051_00.jpg",
    )


def duke(root: Path) -> Path:
    return fill(
        root,
        "bounding_box_train/0001_c2_f0046182.jpg",
        "query/0005_c2_f0046985.jpg",
        "bounding_box_test/0005_c5_f0051781.jpg",
        "bounding_box_test/7139_c8_f0001.jpg",
    )


def msmt(root: Path, train: str = "train", test: str = "test") -> Path:
    lists = {
        "train": (train, ["0000/0000_000_01_0303morning_0008_0.jpg 0"]),
        "val": (
            train,
            ["0000/0000_024_05_0303morning_0022_1.jpg 0", "0001/0001_000_15_0113noon_0001_0.jpg 1"],
        ),
        "query": (test, ["0000/0000_000_09_0303afternoon_0025_0.jpg 0"]),
        "gallery": (
            test,
            ["0000/0000_001_14_0303afternoon_0026_0.jpg 0", "0002/0002_001_02_x_1_0.jpg 2"],
        ),
    }
    for name, (folder, lines) in lists.items():
        fill(root, *(f"{folder}/{line.split()[0]}" for line in lines))
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def veri(root: Path) -> Path:
    return fill(
        root,
        "image_train/0001_c001_00016450_0.jpg",
        "image_query/0002_c002_00030600_0.jpg",
        "image_test/0002_c002_00030600_0.jpg",
        "image_test/0000_c020_00030670_1.jpg",
        "name_train.txt",
    )


def cub(root: Path) -> Path:
    fill(
        root,
        "images/001.Black_footed_Albatross/B_0001.jpg",
        "images/002.Laysan_Albatross/L_0002.jpg",
    )
    (root / "images.txt").write_text(
        "1 001.Black_footed_Albatross/B_0001.jpg\n2 002.Laysan_Albatross/L_0002.jpg\n"
    )
    (root / "image_class_labels.txt").write_text("1 1\n2 2\n")
    (root / "train_test_split.txt").write_text("1 0\n2 1\n")
    (root / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    return root


def records(rows: list[tuple], *fields: str) -> np.ndarray:
    return np.array([rows], dtype=[(name, object) for name in fields])


def save_mat(file: Path, **variables: np.ndarray) -> None:
    from scipy import io

    file.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(file, variables, do_compression=True)


CAR_NAMES = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)


def cars(root: Path) -> Path:
    fill(root, "cars_train/00001.jpg", "cars_train/00002.jpg", "cars_test/00001.jpg")
    save_mat(root / "devkit" / "cars_meta.mat", class_names=CAR_NAMES)
    rows = records([(39, 2, "00001.jpg"), (4, 1, "00002.jpg")], "bbox_x1", "class", "fname")
    save_mat(root / "devkit" / "cars_train_annos.mat", annotations=rows)
    rows = records([(30, 1, "00001.jpg")], "bbox_x1", "class", "fname")
    save_mat(root / "cars_test_annos_withlabels.mat", annotations=rows)
    return root


def cars_of_one_file(root: Path) -> Path:
    fill(root, "car_ims/000001.jpg", "car_ims/000002.jpg")
    rows = [("car_ims/000001.jpg", 1, 0), ("car_ims/000002.jpg", 2, 1)]
    save_mat(
        root / "cars_annos.mat",
        annotations=records(rows, "relative_im_path", "class", "test"),
        class_names=CAR_NAMES,
    )
    return root


def aircraft(root: Path) -> Path:
    fill(root, *(f"data/images/{number}.jpg" for number in ("1025794", "0056978", "0062765")))
    lists = {
        "train": "1025794 707-320",
        "val": "0056978 F/A-18",
        "test": "0062765 DC-3 Dakota",
        "trainval": "1025794 707-320\n0056978 F/A-18",
    }
    for part, lines in lists.items():
        (root / "data" / f"images_variant_{part}.txt").write_text(lines + "\n")
    return root


def folders(root: Path) -> Path:
    return fill(
        root,
        "train/anna/1.jpg",
        "train/ben/x/2.png",
        "query/cleo/1.jpg",
        "gallery/cleo/2.jpg",
        "README",
    )


SETS = {
    "market1501": market,
    "dukemtmc": duke,
    "msmt17": msmt,
    "veri776": veri,
    "cub200": cub,
    "cars": cars,
    "aircraft": aircraft,
    "folders": folders,
}


def rows_of(pictures: PictureSet) -> list[tuple]:
    """(name, identity, camera, part) of each picture."""
    cameras = pictures.cameras or [None] * len(pictures)
    return list(zip(pictures.names, pictures.identities, cameras, pictures.parts, strict=True))


def refusal(*args, **options) -> str:
    """The line with which `read_picture_set` refuses these arguments."""
    with pytest.raises(InputError) as caught:
        read_picture_set(*args, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line
