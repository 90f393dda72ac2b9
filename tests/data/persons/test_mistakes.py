"""Sets of pictures: what is missing, damaged or hostile is refused in one line."""

import struct
import zlib

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats import matlab
from headwise.data.persons.persons import LAYOUTS, read_picture_set

from .sets import SETS, cars, duke, fill, market, msmt, records, refusal, save_mat


class TestMistakes:
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
        root = SETS[name](tmp_path / "set")
        (root / gone).rename(tmp_path / "away")
        for layout in ("auto", name):
            line = refusal(root, layout)
            assert gone.rsplit("/", 1)[-1] in line
            assert f"layout {name}" in line

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
        root = SETS[name](tmp_path)
        (root / gone).unlink()
        line = refusal(root)
        assert "there is no picture" in line
        assert gone.rsplit("/", 1)[-1] in line

    @pytest.mark.parametrize("bad", ["12_c1.jpg", "0002_c1_f0046182.jpg", "IMG_0001.JPG"])
    def test_the_first_name_that_does_not_fit(self, tmp_path, bad) -> None:
        fill(market(tmp_path), f"bounding_box_test/{bad}")
        line = refusal(tmp_path)
        assert bad in line
        assert "PPPP_cCsS_FFFFFF_NN.jpg" in line

    def test_empty_parts_are_refused(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        next((root / "query").iterdir()).unlink()
        assert "query: holds no picture" in refusal(root)
        fill(tmp_path / "f", "train/a/1.jpg")
        (tmp_path / "f" / "test" / "a").mkdir(parents=True)
        assert "test: there is no picture here" in refusal(tmp_path / "f")
        (tmp_path / "f" / "test" / "a").rmdir()
        assert "test: holds no folder of an identity" in refusal(tmp_path / "f")

    def test_pictures_without_identity_are_refused(self, tmp_path) -> None:
        fill(tmp_path / "a", "1.jpg", "2.jpg")
        assert "no folder or name gives an identity" in refusal(tmp_path / "a")
        fill(tmp_path / "b", "anna/1.jpg", "stray.jpg")
        assert "stray.jpg: lies in no folder of an identity" in refusal(tmp_path / "b")
        (tmp_path / "c").mkdir()
        assert "neither pictures nor folders" in refusal(tmp_path / "c")

    def test_several_sets_on_one_shelf(self, tmp_path) -> None:
        market(tmp_path / "Market")
        duke(tmp_path / "Duke")
        assert "several data sets ('Duke', 'Market')" in refusal(tmp_path)
        assert read_picture_set(tmp_path, "dukemtmc").layout == "dukemtmc"

    def test_the_call_itself(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        assert "did you mean 'market1501'?" in refusal(root, "market")
        assert "there is no such folder or table" in refusal(tmp_path / "none")
        assert "leave images out" in refusal(root, images=root)
        assert "layout table needs the table itself" in refusal(root, "table")
        (tmp_path / "t.csv").write_text("image,identity\n")
        assert "for a table say layout table" in refusal(tmp_path / "t.csv", "market1501")
        assert {"auto", "table", *SETS} == set(LAYOUTS)

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
                "has the labels 'A' and 'B'",
            ),
            (
                "aircraft",
                "data/images_variant_train.txt",
                "1025794 A\n1025794 A\n",
                "listed more than once",
            ),
            (
                "aircraft",
                "data/images_variant_test.txt",
                "1025794 707-320\n",
                "listed more than once; list each once, in one part; --accept copies",
            ),
        ],
    )
    def test_lists_are_not_trusted(self, tmp_path, name, file, text, part) -> None:
        fill(tmp_path, "x.jpg")
        root = SETS[name](tmp_path / "set")
        (root / file).write_text(text)
        assert part in refusal(root)

    def test_lists_that_are_no_text(self, tmp_path) -> None:
        (msmt(tmp_path) / "list_val.txt").write_bytes(b"\xff\xfe0\0")
        assert "cannot be read as UTF-8" in refusal(tmp_path)

    def test_links_out_of_a_folder(self, tmp_path) -> None:
        root = market(tmp_path / "m")
        fill(tmp_path, "secret.jpg")
        (root / "query" / "0005_c1s1_000001_00.jpg").symlink_to(tmp_path / "secret.jpg")
        with opened() as account:
            assert "0005" not in read_picture_set(root).identities
        assert any("0005_c1s1_000001_00.jpg" in line for line in account.lines())
        with opened(["links"]):
            assert "0005" in read_picture_set(root).identities

    def test_folders_that_cannot_be_listed(self, tmp_path, monkeypatch) -> None:
        root = market(tmp_path)

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("os.scandir", refuse)
        assert "Permission denied" in refusal(root, "market1501")


class TestMatlab:
    def test_other_bytes_and_missing_variables(self, tmp_path) -> None:
        root = cars(tmp_path)
        train = root / "devkit" / "cars_train_annos.mat"
        content = train.read_bytes()
        for damaged in (
            b"",
            b"hello",
            b"\x89HDF\r\n\x1a\n" + bytes(200),
            content[:-9],
            content[:140] + b"\xff" * 40,
        ):
            train.write_bytes(damaged)
            assert "cars_train_annos.mat: " in refusal(root)
        save_mat(train, other=np.zeros(3))
        with pytest.raises(InputError, match="holds no variable 'annotations'"):
            read_picture_set(root)
        save_mat(train, annotations=np.zeros(3))
        with pytest.raises(InputError, match="no field 'fname'"):
            read_picture_set(root)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (("../x.jpg", 1), "leads out"),
            (("00001.jpg", 9), "class 9 has no name"),
            (("00001.jpg", 0), "class 0"),
            (("00001.jpg", "one"), "picture 1: "),
            ((np.zeros(2), 1), "picture 1: "),
        ],
    )
    def test_records_are_not_trusted(self, tmp_path, row, message) -> None:
        fill(tmp_path, "x.jpg")
        root = cars(tmp_path / "set")
        save_mat(
            root / "devkit" / "cars_train_annos.mat", annotations=records([row], "fname", "class")
        )
        assert message in refusal(root)

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
