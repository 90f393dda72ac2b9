"""Tables of pictures: columns, parts, attributes, and what is refused."""

from pathlib import Path

import polars as pl
import pytest

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
        assert part in refusal(path)

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
