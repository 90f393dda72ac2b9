"""Sets of pictures: every layout made small, its names, what is missing, what auto finds, tables,
and real data.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.formats import matlab
from headwise.data.persons.persons import LAYOUTS, PART_NAMES, PictureSet, read_picture_set


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


MADE = {
    "market1501": market,
    "dukemtmc": duke,
    "msmt17": msmt,
    "veri776": veri,
    "cub200": cub,
    "cars": cars,
    "aircraft": aircraft,
    "folders": folders,
}


def rows_of(found: PictureSet) -> list[tuple]:
    cameras = found.cameras or [None] * len(found)
    return list(zip(found.names, found.identities, cameras, found.parts, strict=True))


def line_of(caught) -> str:
    said = str(caught.value)
    assert "\n" not in said
    return said


class TestLayouts:
    def test_market1501(self, tmp_path) -> None:
        found = read_picture_set(market(tmp_path))
        assert rows_of(found) == [
            ("bounding_box_train/0002_c1s1_000451_03.jpg", "0002", "1", "train"),
            ("bounding_box_train/0007_c3s3_077419_03.jpg", "0007", "3", "train"),
            ("query/0001_c1s1_001051_00.jpg", "0001", "1", "query"),
            ("bounding_box_test/-1_c1s1_000401_03.jpg", "-1", "1", "gallery"),
            ("bounding_box_test/0000_c6s1_000151_01.jpg", "0000", "6", "gallery"),
            ("bounding_box_test/0001_c2s1_000301_00.jpg", "0001", "2", "gallery"),
        ]
        assert found.junk.tolist() == [False, False, False, True, False, False]
        assert found.distractor.tolist() == [False, False, False, False, True, False]
        assert found.paths == [str(tmp_path / name) for name in found.names]
        assert (found.layout, found.where, found.attributes) == ("market1501", str(tmp_path), {})

    def test_rows_of_parts_in_their_order(self, tmp_path) -> None:
        found = read_picture_set(market(tmp_path))
        assert found.rows("train").tolist() == [0, 1]
        assert found.rows("gallery", "query").tolist() == [2, 3, 4, 5]
        assert found.rows("validation").tolist() == []
        assert found.rows().tolist() == list(range(6))
        assert found.rows("validation").dtype == np.int64
        with pytest.raises(ValueError, match="'tests' is none of the parts"):
            found.rows("tests")
        assert set(found.parts) <= set(PART_NAMES)

    def test_dukemtmc(self, tmp_path) -> None:
        assert [row[1:] for row in rows_of(read_picture_set(duke(tmp_path)))] == [
            ("0001", "2", "train"),
            ("0005", "2", "query"),
            ("0005", "5", "gallery"),
            ("7139", "8", "gallery"),
        ]

    @pytest.mark.parametrize("names", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
    def test_msmt17_numbers_of_train_and_test_are_other_people(self, tmp_path, names) -> None:
        found = read_picture_set(msmt(tmp_path, *names))
        assert [row[1:] for row in rows_of(found)] == [
            ("train-0000", "1", "train"),
            ("train-0000", "5", "validation"),
            ("train-0001", "15", "validation"),
            ("test-0000", "9", "query"),
            ("test-0000", "14", "gallery"),
            ("test-0002", "2", "gallery"),
        ]
        assert found.names[0] == f"{names[0]}/0000/0000_000_01_0303morning_0008_0.jpg"
        assert found.paths[3] == str(
            tmp_path / names[1] / "0000/0000_000_09_0303afternoon_0025_0.jpg"
        )
        assert not found.distractor.any()

    def test_veri776(self, tmp_path) -> None:
        found = read_picture_set(veri(tmp_path))
        assert [row[1:] for row in rows_of(found)] == [
            ("0001", "1", "train"),
            ("0002", "2", "query"),
            ("0000", "20", "gallery"),
            ("0002", "2", "gallery"),
        ]
        assert not found.distractor.any()  # 0000 has a meaning in Market-1501 only
        assert len(set(found.names)) == 4  # a query lies in the gallery too, under another id

    def test_cub200(self, tmp_path) -> None:
        assert rows_of(read_picture_set(cub(tmp_path))) == [
            (
                "images/001.Black_footed_Albatross/B_0001.jpg",
                "001.Black_footed_Albatross",
                None,
                "test",
            ),
            ("images/002.Laysan_Albatross/L_0002.jpg", "002.Laysan_Albatross", None, "train"),
        ]

    def test_cars_in_both_forms(self, tmp_path) -> None:
        hummer, acura = CAR_NAMES[0]
        assert rows_of(read_picture_set(cars(tmp_path / "a"))) == [
            ("cars_train/00001.jpg", acura, None, "train"),
            ("cars_train/00002.jpg", hummer, None, "train"),
            ("cars_test/00001.jpg", hummer, None, "test"),
        ]
        assert rows_of(read_picture_set(cars_of_one_file(tmp_path / "b"))) == [
            ("car_ims/000001.jpg", hummer, None, "train"),
            ("car_ims/000002.jpg", acura, None, "test"),
        ]
        (tmp_path / "a" / "devkit" / "cars_meta.mat").unlink()
        assert read_picture_set(tmp_path / "a").identities == ["2", "1", "1"]

    def test_aircraft_from_both_lists_or_trainval(self, tmp_path) -> None:
        expected = [
            ("data/images/1025794.jpg", "707-320", None, "train"),
            ("data/images/0056978.jpg", "F/A-18", None, "validation"),
            ("data/images/0062765.jpg", "DC-3 Dakota", None, "test"),
        ]
        assert rows_of(read_picture_set(aircraft(tmp_path))) == expected
        inner = read_picture_set(tmp_path / "data")
        assert (inner.layout, inner.names[0]) == ("aircraft", "images/1025794.jpg")
        (tmp_path / "data" / "images_variant_val.txt").unlink()
        assert read_picture_set(tmp_path).parts == ["train", "train", "test"]

    def test_folders_with_parts_and_without(self, tmp_path) -> None:
        assert rows_of(read_picture_set(folders(tmp_path / "a"))) == [
            ("gallery/cleo/2.jpg", "cleo", None, "gallery"),
            ("query/cleo/1.jpg", "cleo", None, "query"),
            ("train/anna/1.jpg", "anna", None, "train"),
            ("train/ben/x/2.png", "ben", None, "train"),
        ]
        fill(tmp_path / "b", "anna/1.jpg", "-1/2.jpg", "0000/3.jpg", "note.txt")
        plain = read_picture_set(tmp_path / "b")
        assert plain.cameras is None
        assert [row[1:] for row in rows_of(plain)] == [
            ("-1", None, ""),
            ("0000", None, ""),
            ("anna", None, ""),
        ]
        assert plain.junk.tolist() == [True, False, False]
        assert not plain.distractor.any()
        fill(
            tmp_path / "c",
            "train/a/1.jpg",
            "val/a/2.jpg",
            "validation/a/3.jpg",
            "test/a/4.jpg",
            "notes/z/5.jpg",
        )
        assert read_picture_set(tmp_path / "c").parts == [
            "test",
            "train",
            "validation",
            "validation",
        ]

    @pytest.mark.parametrize("name", list(MADE))
    def test_auto_and_by_name_from_the_folder_and_from_above(self, tmp_path, name) -> None:
        root = MADE[name](tmp_path / "shelf" / "Set-v15.09.15")
        by_name = read_picture_set(root, name)
        assert by_name.layout == name
        assert len(by_name) > 1
        assert rows_of(read_picture_set(root)) == rows_of(by_name)
        if name != "folders":  # folders have no sign by which they could be found one level below
            above = read_picture_set(tmp_path / "shelf")
            assert (above.layout, above.where) == (name, str(root))
            assert rows_of(above) == rows_of(by_name)
            assert rows_of(read_picture_set(tmp_path / "shelf", name)) == rows_of(by_name)

    def test_pictures_with_names_of_market_in_one_folder(self, tmp_path) -> None:
        fill(tmp_path, "0002_c1s1_000451_03.jpg", "-1_c2s1_000451_03.jpg", "Thumbs.db")
        found = read_picture_set(tmp_path)
        assert found.layout == "market1501"
        assert rows_of(found) == [
            ("-1_c2s1_000451_03.jpg", "-1", "2", ""),
            ("0002_c1s1_000451_03.jpg", "0002", "1", ""),
        ]

    def test_a_query_that_the_gallery_lacks_is_for_the_metrics_to_count(self, tmp_path) -> None:
        fill(market(tmp_path), "query/0099_c1s1_001051_00.jpg")
        assert "0099" in read_picture_set(tmp_path).identities


class TestMistakes:
    def said(self, *args, **options) -> str:
        with pytest.raises(InputError) as caught:
            read_picture_set(*args, **options)
        return line_of(caught)

    @pytest.mark.parametrize(
        ("name", "gone"),
        [
            ("market1501", "query"),
            ("dukemtmc", "bounding_box_test"),
            ("msmt17", "test"),
            ("msmt17", "list_gallery.txt"),
            ("veri776", "image_query"),
            ("cub200", "images"),
            ("cub200", "train_test_split.txt"),
            ("cars", "cars_test"),
            ("cars", "cars_test_annos_withlabels.mat"),
            ("aircraft", "data/images_variant_test.txt"),
        ],
    )
    def test_what_a_layout_lacks_is_named(self, tmp_path, name, gone) -> None:
        root = MADE[name](tmp_path / "set")
        (root / gone).rename(tmp_path / "away")
        for layout in ("auto", name):
            said = self.said(root, layout)
            assert gone.rsplit("/", 1)[-1] in said
            assert f"layout {name}" in said

    @pytest.mark.parametrize(
        ("name", "gone"),
        [
            ("msmt17", "train/0001/0001_000_15_0113noon_0001_0.jpg"),
            ("aircraft", "data/images/0056978.jpg"),
            ("cub200", "images/002.Laysan_Albatross/L_0002.jpg"),
            ("cars", "cars_train/00002.jpg"),
        ],
    )
    def test_a_listed_picture_that_is_not_there(self, tmp_path, name, gone) -> None:
        root = MADE[name](tmp_path)
        (root / gone).unlink()
        said = self.said(root)
        assert "there is no picture" in said
        assert gone.rsplit("/", 1)[-1] in said

    @pytest.mark.parametrize("bad", ["12_c1.jpg", "0002_c1_f0046182.jpg", "IMG_0001.JPG"])
    def test_the_first_name_that_does_not_fit(self, tmp_path, bad) -> None:
        fill(market(tmp_path), f"bounding_box_test/{bad}")
        said = self.said(tmp_path)
        assert bad in said
        assert "PPPP_cCsS_FFFFFF_NN.jpg" in said

    def test_empty_parts(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        next((root / "query").iterdir()).unlink()
        assert "query: holds no picture" in self.said(root)
        fill(tmp_path / "f", "train/a/1.jpg")
        (tmp_path / "f" / "test" / "a").mkdir(parents=True)
        assert "test: there is no picture here" in self.said(tmp_path / "f")
        (tmp_path / "f" / "test" / "a").rmdir()
        assert "test: holds no folder of an identity" in self.said(tmp_path / "f")

    def test_pictures_without_identity(self, tmp_path) -> None:
        fill(tmp_path / "a", "1.jpg", "2.jpg")
        assert "no folder or name gives an identity" in self.said(tmp_path / "a")
        fill(tmp_path / "b", "anna/1.jpg", "stray.jpg")
        assert "stray.jpg: lies in no folder of an identity" in self.said(tmp_path / "b")
        (tmp_path / "c").mkdir()
        assert "neither pictures nor folders" in self.said(tmp_path / "c")

    def test_several_sets_on_one_shelf(self, tmp_path) -> None:
        market(tmp_path / "Market")
        duke(tmp_path / "Duke")
        assert "several data sets ('Duke', 'Market')" in self.said(tmp_path)
        assert read_picture_set(tmp_path, "dukemtmc").layout == "dukemtmc"

    def test_the_call_itself(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        assert "did you mean 'market1501'?" in self.said(root, "market")
        assert "there is no such folder or table" in self.said(tmp_path / "none")
        assert "leave images out" in self.said(root, images=root)
        assert "layout table needs the table itself" in self.said(root, "table")
        (tmp_path / "t.csv").write_text("image,identity\n")
        assert "for a table say layout table" in self.said(tmp_path / "t.csv", "market1501")
        assert {"auto", "table", *MADE} == set(LAYOUTS)

    @pytest.mark.parametrize(
        ("name", "file", "text", "part"),
        [
            ("msmt17", "list_query.txt", "0000/../../../x.jpg 0\n", "leads out"),
            ("msmt17", "list_query.txt", "/etc/passwd 0\n", "does not lie in"),
            ("msmt17", "list_query.txt", "0000/a.jpg\n", "line 1: "),
            ("msmt17", "list_query.txt", "\n \n", "lists nothing"),
            ("cub200", "images.txt", "1 ../images.txt\n", "leads out"),
            ("cub200", "image_class_labels.txt", "1 1\n2 3\n", "picture '2' has no class"),
            ("cub200", "train_test_split.txt", "1 1\n2 yes\n", "picture '2' has no 0 or 1"),
            ("aircraft", "data/images_variant_train.txt", "../../x A\n", "leads out"),
            ("aircraft", "data/images_variant_train.txt", "1025794\n", "are not two words"),
            (
                "aircraft",
                "data/images_variant_train.txt",
                "1025794 A\n1025794 B\n",
                "listed more than once in train",
            ),
        ],
    )
    def test_lists_are_not_trusted(self, tmp_path, name, file, text, part) -> None:
        fill(tmp_path, "x.jpg")
        root = MADE[name](tmp_path / "set")
        (root / file).write_text(text)
        assert part in self.said(root)

    def test_lists_that_are_no_text(self, tmp_path) -> None:
        (msmt(tmp_path) / "list_val.txt").write_bytes(b"\xff\xfe0\0")
        assert "cannot be read as UTF-8" in self.said(tmp_path)

    def test_links_out_of_a_folder(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        fill(tmp_path, "secret.jpg")
        (root / "query" / "0005_c1s1_000001_00.jpg").symlink_to(tmp_path / "secret.jpg")
        assert "leads out of its folder" in self.said(root)

    def test_folders_that_cannot_be_listed(self, tmp_path, monkeypatch) -> None:
        root = market(tmp_path)

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("os.scandir", refuse)
        assert "Permission denied" in self.said(root, "market1501")


class TestMatlab:
    def test_other_bytes_and_missing_variables(self, tmp_path) -> None:
        root = cars(tmp_path)
        train = root / "devkit" / "cars_train_annos.mat"
        whole = train.read_bytes()
        for damaged in (
            b"",
            b"hello",
            b"\x89HDF\r\n\x1a\n" + bytes(200),
            whole[:-9],
            whole[:140] + b"\xff" * 40,
        ):
            train.write_bytes(damaged)
            with pytest.raises(InputError) as caught:
                read_picture_set(root)
            assert "cars_train_annos.mat: " in line_of(caught)
        save_mat(train, other=np.zeros(3))
        with pytest.raises(InputError, match="holds no variable 'annotations'"):
            read_picture_set(root)
        save_mat(train, annotations=np.zeros(3))
        with pytest.raises(InputError, match="no field 'fname'"):
            read_picture_set(root)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (("../x.jpg", 1), "leads out"),
            (("00001.jpg", 9), "class 9 has no name"),
            (("00001.jpg", 0), "class 0"),
            (("00001.jpg", "one"), "picture 1: "),
            ((np.zeros(2), 1), "picture 1: "),
        ],
    )
    def test_records_are_not_trusted(self, tmp_path, row, said) -> None:
        fill(tmp_path, "x.jpg")
        root = cars(tmp_path / "set")
        save_mat(
            root / "devkit" / "cars_train_annos.mat", annotations=records([row], "fname", "class")
        )
        with pytest.raises(InputError) as caught:
            read_picture_set(root)
        assert said in line_of(caught)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_bomb_is_found_before_it_is_unpacked(self, tmp_path, order, monkeypatch) -> None:
        monkeypatch.setattr(matlab, "UNPACKED_BYTES", 4 << 20)
        packed = zlib.compress(bytes(8 << 20))
        head = (
            b"MATLAB 5.0 MAT-file".ljust(124)
            + struct.pack(f"{order}H", 0x0100)
            + (b"IM" if order == "<" else b"MI")
        )
        (tmp_path / "a.mat").write_bytes(head + struct.pack(f"{order}II", 15, len(packed)) + packed)
        with pytest.raises(InputError, match="unpacks to more than 4 MiB"):
            matlab.read_variable(tmp_path / "a.mat", "annotations")


class TestTable:
    def write(self, folder: Path, text: str, name: str = "t.csv") -> Path:
        fill(folder, "a/1.jpg", "a/2.jpg", "b/3.png")
        (folder / name).write_text(text)
        return folder / name

    def said(self, *args, **options) -> str:
        with pytest.raises(InputError) as caught:
            read_picture_set(*args, **options)
        return line_of(caught)

    def test_all_columns(self, tmp_path) -> None:
        path = self.write(
            tmp_path,
            "image,identity,camera,split,colour,kind\n"
            "a/1.jpg,anna,north,train,red, \n./a/2.jpg,-1,south,Gallery,none,x\nb/3.png, ben ,north,val,,y\n",
        )
        found = read_picture_set(path)
        assert (found.layout, found.where) == ("table", str(path))
        assert rows_of(found) == [
            ("a/1.jpg", "anna", "north", "train"),
            ("a/2.jpg", "-1", "south", "gallery"),
            ("b/3.png", "ben", "north", "validation"),
        ]
        assert found.attributes == {"colour": ["red", "none", None], "kind": [None, "x", "y"]}
        assert found.junk.tolist() == [False, True, False]
        assert found.paths == [str(tmp_path / name) for name in found.names]

    def test_the_least_columns_parquet_and_a_folder_of_images(self, tmp_path) -> None:
        self.write(tmp_path / "pictures", "")
        pl.DataFrame(
            {"image": ["1.jpg", "2.jpg"], "identity": [7, 8], "part": ["query", "test"]}
        ).write_parquet(tmp_path / "t.parquet")
        found = read_picture_set(tmp_path / "t.parquet", images=tmp_path / "pictures" / "a")
        assert rows_of(found) == [("1.jpg", "7", None, "query"), ("2.jpg", "8", None, "test")]
        assert found.paths[0] == str(tmp_path / "pictures" / "a" / "1.jpg")
        path = self.write(tmp_path / "u", "identity,image\nx,a/1.jpg\n")
        assert rows_of(read_picture_set(path, "table")) == [("a/1.jpg", "x", None, "")]
        inside = self.write(tmp_path / "v", f"identity,image\nx,{tmp_path}/v/a/1.jpg\n")
        assert rows_of(read_picture_set(inside)) == [("a/1.jpg", "x", None, "")]

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("picture,identity\na/1.jpg,x\n", "there is no column 'image'"),
            (
                "image,identty\na/1.jpg,x\n",
                "there is no column 'identity'; did you mean 'identty'?",
            ),
            ("image,identity\n", "has column names but no rows"),
            ("image,identity\na/1.jpg,x\na/9.jpg,x\n", "row 2: there is no picture 'a/9.jpg'"),
            ("image,identity\na/1.jpg,x\na/2.jpg,\n", "column 'identity', row 2: is empty"),
            ("image,identity\na/1.jpg,x\n  ,x\n", "column 'image', row 2: is empty"),
            (
                "image,identity,camera\na/1.jpg,x,\n",
                "column 'camera', row 1: is empty; fill it, or leave the column",
            ),
            ("image,identity,split\na/1.jpg,x,tain\n", "row 1: 'tain' is none of train"),
            (
                "image,identity,split,part\na/1.jpg,x,train,train\n",
                "both columns 'split' and 'part'",
            ),
            (
                "image,identity\na/1.jpg,x\n./a/1.jpg,y\n",
                "picture 'a/1.jpg' is listed more than once",
            ),
            ("image,identity\n../x.jpg,x\n", "leads out"),
            ("image,identity\n/etc/passwd,x\n", "does not lie in"),
            ("image,identity\nout/x.jpg,x\n", "leads out"),
        ],
    )
    def test_mistakes_have_one_line(self, tmp_path, text, part) -> None:
        path = self.write(fill(tmp_path, "x.jpg", "set/y") / "set", text)
        (tmp_path / "set" / "out").symlink_to(tmp_path)
        assert part in self.said(path)

    def test_the_folder_of_images_bounds_what_is_read(self, tmp_path) -> None:
        path = self.write(tmp_path, f"image,identity\n{tmp_path}/b/3.png,x\n")
        assert read_picture_set(path).names == ["b/3.png"]
        assert "does not lie in" in self.said(path, images=tmp_path / "a")
        assert "is no folder" in self.said(path, images=tmp_path / "none")

    def test_columns_that_hold_no_text(self, tmp_path) -> None:
        pl.DataFrame({"image": [b"\xff\xd8"], "identity": ["x"]}).write_parquet(
            tmp_path / "t.parquet"
        )
        assert "column 'image' holds Binary" in self.said(tmp_path / "t.parquet")
        pl.DataFrame({"image": ["a"], "identity": ["x"], "box": [[1, 2]]}).write_parquet(
            tmp_path / "t.parquet"
        )
        assert "column 'box' holds List" in self.said(tmp_path / "t.parquet")


class TestRealData:
    def test_flowers17(self, real_data) -> None:
        found = read_picture_set(real_data / "reid" / "flowers17")
        assert (found.layout, len(found), len(set(found.identities))) == ("folders", 1360, 17)
        assert (len(found.rows("train")), len(found.rows("test"))) == (17 * 64, 17 * 16)
        table = pl.read_csv(real_data / "reid" / "flowers17" / "labels.csv")
        listed = dict(zip(table["path"], table["class_id"], strict=True))
        assert {
            name: int(identity[1:3]) for name, identity in zip(found.names, found.identities)
        } == listed

    def test_orl_faces(self, real_data) -> None:
        found = read_picture_set(real_data / "reid" / "orl_faces")
        assert (found.layout, len(found), found.cameras, set(found.parts)) == (
            "folders",
            400,
            None,
            {""},
        )
        assert {found.identities.count(name) for name in {f"s{k}" for k in range(1, 41)}} == {10}

    def test_market1501_names(self, real_data) -> None:
        found = read_picture_set(real_data / "reid" / "market1501_fastreid5")
        assert found.layout == "market1501"
        assert found.identities == ["0022", "0027", "0032", "0048", "0065"]
        assert found.cameras == ["6", "2", "6", "1", "6"]

    def test_mot17_crops_as_a_table(self, real_data, tmp_path) -> None:
        source = real_data / "reid" / "mot17_mini"
        table = pl.read_csv(source / "crops.csv").rename(
            {"file": "image", "pid": "identity", "seq": "camera"}
        )
        table.write_csv(tmp_path / "t.csv")
        found = read_picture_set(tmp_path / "t.csv", images=source / "crops")
        assert (len(found), len(set(found.identities))) == (305, 45)
        assert set(found.attributes) == {"frame", "visibility"}
        by_name = read_picture_set(source / "crops")
        assert dict(zip(by_name.names, by_name.identities)) == dict(
            zip(found.names, found.identities)
        )
