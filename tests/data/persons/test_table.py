"""Tables of pictures: columns, parts, attributes, and what is refused."""

from pathlib import Path

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.data.persons.persons import read_picture_set

from .sets import fill, refusal, rows_of


class TestTable:
    def write(self, folder: Path, text: str, name: str = "t.csv") -> Path:
        fill(folder, "a/1.jpg", "a/2.jpg", "b/3.png")
        (folder / name).write_text(text)
        return folder / name

    def test_all_columns_are_read(self, tmp_path) -> None:
        path = self.write(
            tmp_path,
            "image,identity,camera,split,colour,kind\n"
            "a/1.jpg,anna,north,train,red, \n"
            "./a/2.jpg,-1,south,Gallery,none,x\n"
            "b/3.png, ben ,north,val,,y\n",
        )
        pictures = read_picture_set(path)
        assert (pictures.layout, pictures.where) == ("table", str(path))
        assert rows_of(pictures) == [
            ("a/1.jpg", "anna", "north", "train"),
            ("a/2.jpg", "-1", "south", "gallery"),
            ("b/3.png", "ben", "north", "validation"),
        ]
        assert pictures.attributes == {"colour": ["red", "none", None], "kind": [None, "x", "y"]}
        assert pictures.junk.tolist() == [False, True, False]
        assert pictures.paths == [str(tmp_path / name) for name in pictures.names]

    def test_the_least_columns_parquet_and_a_folder_of_images(self, tmp_path) -> None:
        self.write(tmp_path / "pictures", "")
        pl.DataFrame(
            {"image": ["1.jpg", "2.jpg"], "identity": [7, 8], "part": ["query", "test"]}
        ).write_parquet(tmp_path / "t.parquet")
        pictures = read_picture_set(tmp_path / "t.parquet", images=tmp_path / "pictures" / "a")
        assert rows_of(pictures) == [("1.jpg", "7", None, "query"), ("2.jpg", "8", None, "test")]
        assert pictures.paths[0] == str(tmp_path / "pictures" / "a" / "1.jpg")
        path = self.write(tmp_path / "u", "identity,image\nx,a/1.jpg\n")
        assert rows_of(read_picture_set(path, "table")) == [("a/1.jpg", "x", None, "")]
        inside = self.write(tmp_path / "v", f"identity,image\nx,{tmp_path}/v/a/1.jpg\n")
        assert rows_of(read_picture_set(inside)) == [("a/1.jpg", "x", None, "")]

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("pictures,identity\na/1.jpg,x\n", "there is no column 'image'; it has 'pictures'"),
            ("image,identty\na/1.jpg,x\n", "'identty'; name it with --columns identity=COLUMN"),
            ("image,person_id,pid\na/1.jpg,x,y\n", "could both be the identity"),
            ("image,identity\na/1.jpg,x\na/2.jpg,nan\n", "row 2: holds 'nan', which is no label"),
            ("image,identity,camera\na/1.jpg,x,NaN\n", "column 'camera', row 1: is empty"),
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
                "image,identity\na/1.jpg,x\n./a/1.jpg,x\n",
                "picture 'a/1.jpg' is listed more than once",
            ),
            (
                "image,identity\na/1.jpg,x\n./a/1.jpg,y\n",
                "picture 'a/1.jpg' has the labels 'x' and 'y'; keep one; --accept two-labels",
            ),
            (
                "image,identity,split\na/1.jpg,x,train\n./a/1.jpg,x,query\n",
                "listed more than once; list each once, in one part; --accept copies",
            ),
            ("image,identity\n../x.jpg,x\n", "leads out"),
            ("image,identity\n/etc/passwd,x\n", "does not lie in"),
            ("image,identity\nout/x.jpg,x\n", "leads out"),
        ],
    )
    def test_mistakes_have_one_line(self, tmp_path, text, part) -> None:
        path = self.write(fill(tmp_path, "x.jpg", "set/y") / "set", text)
        (tmp_path / "set" / "out").symlink_to(tmp_path)
        assert part in refusal(path)

    @pytest.mark.parametrize("identity", ["person", "Person ID", "pid", "vehicle_id", "label"])
    def test_usual_names_of_columns_are_taken_and_said(self, tmp_path, identity) -> None:
        path = self.write(
            tmp_path,
            f"image_path,{identity},camid,set,colour\na/1.jpg,x,1,train,red\na/2.jpg,y,2,query,\n",
        )
        with opened() as account:
            pictures = read_picture_set(path)
        assert rows_of(pictures) == [("a/1.jpg", "x", "1", "train"), ("a/2.jpg", "y", "2", "query")]
        assert pictures.attributes == {"colour": ["red", None]}
        text = "\n".join(account.lines())
        assert "read: 2 pictures; 2 identities" in text
        for name, field in (("image_path", "image"), (identity, "identity"), ("set", "part")):
            assert f"'{name}' is taken as the {field}" in text

    def test_other_names_are_given_by_columns(self, tmp_path) -> None:
        path = self.write(tmp_path, "shot,who\na/1.jpg,x\n")
        chosen = ("image=shot", "identity=who")
        assert rows_of(read_picture_set(path, columns=chosen)) == [("a/1.jpg", "x", None, "")]
        assert "is read with a table" in refusal(tmp_path, columns=chosen)
        assert "no field 'identty'" in refusal(path, columns=("identty=who",))

    def test_folds_are_no_parts(self, tmp_path) -> None:
        path = self.write(tmp_path, "image,identity,fold\na/1.jpg,x,0\na/2.jpg,y,1\n")
        with opened() as account:
            pictures = read_picture_set(path)
        assert pictures.parts == ["", ""]
        assert pictures.attributes == {"fold": ["0", "1"]}
        assert any("not used as parts" in line for line in account.lines())

    def test_rows_without_an_identity_are_left_out_if_that_is_accepted(self, tmp_path) -> None:
        path = self.write(
            tmp_path,
            "image,identity,camera,hat\na/1.jpg,None,1,none\na/2.jpg,-1.0,2,nan\nb/3.png,7.0,3,none\n",
        )
        with opened(["missing-labels"]) as account:
            pictures = read_picture_set(path)
        assert rows_of(pictures) == [("a/2.jpg", "-1", "2", ""), ("b/3.png", "7.0", "3", "")]
        assert pictures.junk.tolist() == [True, False]
        assert pictures.attributes["hat"] == [None, "none"]
        text = "\n".join(account.lines())
        assert "1 rows without a label (row 1)" in text
        assert "attribute 'hat': no value is what nan says" in text
        assert "1 pictures of identity -1" in text

    def test_copies_that_are_accepted_count_once(self, tmp_path) -> None:
        path = self.write(
            tmp_path, "image,identity,colour\na/1.jpg,x,red\na/1.jpg,x,red\na/2.jpg,y,blue\n"
        )
        with opened(["copies"]):
            pictures = read_picture_set(path)
        assert pictures.names == ["a/1.jpg", "a/2.jpg"]
        assert pictures.attributes == {"colour": ["red", "blue"]}

    def test_a_picture_may_be_query_and_gallery_and_that_is_said(self, tmp_path) -> None:
        path = self.write(
            tmp_path, "image,identity,split\na/1.jpg,x,query\na/1.jpg,x,gallery\na/2.jpg,y,train\n"
        )
        with opened() as account:
            assert len(read_picture_set(path)) == 3
        assert any("both query and gallery (a/1.jpg)" in line for line in account.lines())
        path.write_text(
            "image,identity,split\na/1.jpg,x,query\na/1.jpg,x,gallery\na/1.jpg,x,gallery\n"
        )
        assert "listed more than once" in refusal(path)

    def test_the_folder_of_images_bounds_what_is_read(self, tmp_path) -> None:
        path = self.write(tmp_path, f"image,identity\n{tmp_path}/b/3.png,x\n")
        assert read_picture_set(path).names == ["b/3.png"]
        assert "does not lie in" in refusal(path, images=tmp_path / "a")
        assert "is no folder" in refusal(path, images=tmp_path / "none")

    def test_columns_that_hold_no_text(self, tmp_path) -> None:
        pl.DataFrame({"image": [b"\xff\xd8"], "identity": ["x"]}).write_parquet(
            tmp_path / "t.parquet"
        )
        assert "column 'image' holds Binary" in refusal(tmp_path / "t.parquet")
        pl.DataFrame({"image": ["a"], "identity": ["x"], "box": [[1, 2]]}).write_parquet(
            tmp_path / "t.parquet"
        )
        assert "column 'box' holds List" in refusal(tmp_path / "t.parquet")
