"""Sets of pictures: every layout in small, what "auto" recognises, and real data."""

import numpy as np
import polars as pl
import pytest

from headwise.data.persons.persons import PART_NAMES, read_picture_set

from .sets import (
    CAR_NAMES,
    SETS,
    aircraft,
    cars,
    cars_of_one_file,
    cub,
    duke,
    fill,
    folders,
    market,
    msmt,
    rows_of,
    veri,
)


class TestLayouts:
    def test_market1501_is_read(self, tmp_path) -> None:
        pictures = read_picture_set(market(tmp_path))
        assert rows_of(pictures) == [
            ("bounding_box_train/0002_c1s1_000451_03.jpg", "0002", "1", "train"),
            ("bounding_box_train/0007_c3s3_077419_03.jpg", "0007", "3", "train"),
            ("query/0001_c1s1_001051_00.jpg", "0001", "1", "query"),
            ("bounding_box_test/-1_c1s1_000401_03.jpg", "-1", "1", "gallery"),
            ("bounding_box_test/0000_c6s1_000151_01.jpg", "0000", "6", "gallery"),
            ("bounding_box_test/0001_c2s1_000301_00.jpg", "0001", "2", "gallery"),
        ]
        assert pictures.junk.tolist() == [False, False, False, True, False, False]
        assert pictures.distractor.tolist() == [False, False, False, False, True, False]
        assert pictures.paths == [str(tmp_path / name) for name in pictures.names]
        assert (pictures.layout, pictures.where, pictures.attributes) == (
            "market1501",
            str(tmp_path),
            {},
        )

    def test_rows_of_parts_in_their_order(self, tmp_path) -> None:
        pictures = read_picture_set(market(tmp_path))
        assert pictures.rows("train").tolist() == [0, 1]
        assert pictures.rows("gallery", "query").tolist() == [2, 3, 4, 5]
        assert pictures.rows("validation").tolist() == []
        assert pictures.rows().tolist() == list(range(6))
        assert pictures.rows("validation").dtype == np.int64
        with pytest.raises(ValueError, match="'tests' is none of the parts"):
            pictures.rows("tests")
        assert set(pictures.parts) <= set(PART_NAMES)

    def test_dukemtmc_is_read(self, tmp_path) -> None:
        assert [row[1:] for row in rows_of(read_picture_set(duke(tmp_path)))] == [
            ("0001", "2", "train"),
            ("0005", "2", "query"),
            ("0005", "5", "gallery"),
            ("7139", "8", "gallery"),
        ]

    @pytest.mark.parametrize("names", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
    def test_msmt17_numbers_of_train_and_test_are_other_people(self, tmp_path, names) -> None:
        pictures = read_picture_set(msmt(tmp_path, *names))
        assert [row[1:] for row in rows_of(pictures)] == [
            ("train-0000", "1", "train"),
            ("train-0000", "5", "validation"),
            ("train-0001", "15", "validation"),
            ("test-0000", "9", "query"),
            ("test-0000", "14", "gallery"),
            ("test-0002", "2", "gallery"),
        ]
        assert pictures.names[0] == f"{names[0]}/0000/0000_000_01_0303morning_0008_0.jpg"
        assert pictures.paths[3] == str(
            tmp_path / names[1] / "0000/0000_000_09_0303afternoon_0025_0.jpg"
        )
        assert not pictures.distractor.any()

    def test_veri776_is_read(self, tmp_path) -> None:
        pictures = read_picture_set(veri(tmp_path))
        assert [row[1:] for row in rows_of(pictures)] == [
            ("0001", "1", "train"),
            ("0002", "2", "query"),
            ("0000", "20", "gallery"),
            ("0002", "2", "gallery"),
        ]
        assert not pictures.distractor.any()  # 0000 has a meaning in Market-1501 only
        assert len(set(pictures.names)) == 4  # a query lies in the gallery too, under another id

    def test_cub200_is_read(self, tmp_path) -> None:
        assert rows_of(read_picture_set(cub(tmp_path))) == [
            (
                "images/001.Black_footed_Albatross/B_0001.jpg",
                "001.Black_footed_Albatross",
                None,
                "test",
            ),
            ("images/002.Laysan_Albatross/L_0002.jpg", "002.Laysan_Albatross", None, "train"),
        ]

    def test_cars_are_read_in_both_forms(self, tmp_path) -> None:
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
            "dev/a/5.jpg",
            "test/a/4.jpg",
            "notes/z/5.jpg",
        )
        parts = ["validation", "test", "train", "validation", "validation"]
        assert read_picture_set(tmp_path / "c").parts == parts

    @pytest.mark.parametrize("name", list(SETS))
    def test_auto_and_by_name_from_the_folder_and_from_above(self, tmp_path, name) -> None:
        root = SETS[name](tmp_path / "shelf" / "Set-v15.09.15")
        by_name = read_picture_set(root, name)
        assert by_name.layout == name
        assert len(by_name) > 1
        assert rows_of(read_picture_set(root)) == rows_of(by_name)
        if (
            name != "folders"
        ):  # folders have no sign by which they could be pictures one level below
            above = read_picture_set(tmp_path / "shelf")
            assert (above.layout, above.where) == (name, str(root))
            assert rows_of(above) == rows_of(by_name)
            assert rows_of(read_picture_set(tmp_path / "shelf", name)) == rows_of(by_name)

    def test_pictures_with_names_of_market_in_one_folder(self, tmp_path) -> None:
        fill(tmp_path, "0002_c1s1_000451_03.jpg", "-1_c2s1_000451_03.jpg", "Thumbs.db")
        pictures = read_picture_set(tmp_path)
        assert pictures.layout == "market1501"
        assert rows_of(pictures) == [
            ("-1_c2s1_000451_03.jpg", "-1", "2", ""),
            ("0002_c1s1_000451_03.jpg", "0002", "1", ""),
        ]

    def test_a_query_that_the_gallery_lacks_is_for_the_metrics_to_count(self, tmp_path) -> None:
        fill(market(tmp_path), "query/0099_c1s1_001051_00.jpg")
        assert "0099" in read_picture_set(tmp_path).identities


class TestRealData:
    def test_flowers17_is_read(self, real_data) -> None:
        pictures = read_picture_set(real_data / "reid" / "flowers17")
        assert (pictures.layout, len(pictures), len(set(pictures.identities))) == (
            "folders",
            1360,
            17,
        )
        assert (len(pictures.rows("train")), len(pictures.rows("test"))) == (17 * 64, 17 * 16)
        table = pl.read_csv(real_data / "reid" / "flowers17" / "labels.csv")
        listed = dict(zip(table["path"], table["class_id"], strict=True))
        assert {
            name: int(identity[1:3]) for name, identity in zip(pictures.names, pictures.identities)
        } == listed

    def test_orl_faces_are_read(self, real_data) -> None:
        pictures = read_picture_set(real_data / "reid" / "orl_faces")
        assert (pictures.layout, len(pictures), pictures.cameras, set(pictures.parts)) == (
            "folders",
            400,
            None,
            {""},
        )
        assert {pictures.identities.count(name) for name in {f"s{k}" for k in range(1, 41)}} == {10}

    def test_market1501_names_are_read(self, real_data) -> None:
        pictures = read_picture_set(real_data / "reid" / "market1501_fastreid5")
        assert pictures.layout == "market1501"
        assert pictures.identities == ["0022", "0027", "0032", "0048", "0065"]
        assert pictures.cameras == ["6", "2", "6", "1", "6"]

    def test_mot17_crops_as_a_table(self, real_data, tmp_path) -> None:
        source = real_data / "reid" / "mot17_mini"
        table = pl.read_csv(source / "crops.csv").rename(
            {"file": "image", "pid": "identity", "seq": "camera"}
        )
        table.write_csv(tmp_path / "t.csv")
        pictures = read_picture_set(tmp_path / "t.csv", images=source / "crops")
        assert (len(pictures), len(set(pictures.identities))) == (305, 45)
        assert set(pictures.attributes) == {"frame", "visibility"}
        by_name = read_picture_set(source / "crops")
        assert dict(zip(by_name.names, by_name.identities)) == dict(
            zip(pictures.names, pictures.identities)
        )
