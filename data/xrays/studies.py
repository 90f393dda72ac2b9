"""Tables with a row for each study, as those of MIMIC-CXR: all pictures of a study get its labels.

The pictures of a study lie in a folder of its number (`files/p10/p10000032/s50414267/`). Views and
parts are in two further tables, by the name of the picture without its ending.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from ...base.account import note
from ...base.errors import fail
from ...base.files import walk_folder
from ..columns import SYNONYMS, plain_name
from ..formats.dicom import DICOM_SUFFIXES
from ..formats.pictures import PICTURE_SUFFIXES
from ..formats.tables import TABLE_SUFFIXES, collect, scan_table, stem_of, suffix_of
from .files import is_mask, without_ending

_FURTHER = {"metadata": "ViewPosition", "split": "split"}  # end of a table's name: its column


def has_studies(names: Sequence[str]) -> bool:
    """Whether a table of these columns names studies, but no pictures."""
    plain = [plain_name(name) for name in names]
    return "study_id" in plain and not any(name in SYNONYMS["image"] for name in plain)


def pictures_of_studies(
    path: Path, frame: pl.LazyFrame, names: Sequence[str], images: str | None
) -> tuple[pl.LazyFrame, list[str]]:
    """A table of studies as one of pictures: with a column `image`, and with views and parts where
    the tables next to it have them. Studies without pictures are left out and counted.

    names: of the columns. images: folder of the pictures; by default that of the table. Raises
    InputError where no study has a picture.
    """
    study = next(name for name in names if plain_name(name) == "study_id")
    home = Path(images) if images else path.parent
    placed = pl.DataFrame(
        _pictures_by_study(home), schema={"study": pl.String, "image": pl.String}, orient="row"
    )
    table = collect(path, frame).with_columns(
        pl.col(study).cast(pl.String).str.strip_chars().alias("study")
    )
    joined = table.join(placed, on="study", how="inner", maintain_order="left_right")
    if not joined.height:
        problem = f"no study has pictures in {home}, in a folder such as s{table['study'][0]}"
        raise fail(path, f"{problem}; --images says where they lie")
    with_pictures = joined["study"].n_unique()
    note("assumed", "studies whose pictures all get the labels of the study", count=with_pictures)
    if missing := table["study"].n_unique() - with_pictures:
        note("left out", "studies without a picture", count=missing)
    joined = _with_further(path, joined, names).drop("study")
    return joined.lazy(), joined.columns


def _pictures_by_study(home: Path) -> list[tuple[str, str]]:
    """(number of the study, path) of each picture that lies in a folder of a study."""
    if not home.is_dir():
        raise fail(home, "is no folder of pictures; --images names it")
    pairs = []
    for name in walk_folder(home, (*PICTURE_SUFFIXES, *DICOM_SUFFIXES), noted=False):
        folder = PurePosixPath(name).parent.name
        number = folder.removeprefix("s")
        if number.isdigit() and not is_mask(name):
            pairs.append((number, name))
    return sorted(pairs, key=lambda pair: pair[1])


def _with_further(path: Path, table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """With the columns of the tables next to this one that tell views and parts."""
    stems = [PurePosixPath(without_ending(name)).name for name in table["image"]]
    table = table.with_columns(pl.Series("stem", stems))
    for name in sorted(os.listdir(path.parent)):
        if suffix_of(Path(name)) not in TABLE_SUFFIXES or name == path.name:
            continue
        stem = stem_of(name).lower()
        column = next((c for end, c in _FURTHER.items() if stem.endswith(f"-{end}")), None)
        if column is None or column in names or column in table.columns:
            continue
        frame, columns = scan_table(path.parent / name)
        if "dicom_id" in columns and column in columns:
            cells = [pl.col("dicom_id").cast(pl.String).alias("stem"), pl.col(column)]
            further = collect(path.parent / name, frame.select(cells)).unique("stem")
            table = table.join(further, on="stem", how="left", maintain_order="left")
            note("columns", f"{column} is read from {name}")
    return table.drop("stem")
