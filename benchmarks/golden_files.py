"""What `golden.py` compares of each file that a command writes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import yaml

UNCOMPARED_FILES = {"environment.json", "card.json", "report.html"}
TIMES = {"steps_per_second", "seconds"}  # columns of these tables, and keys of JSON files
TIMED_TABLES = {"history.csv", "comparison.csv"}
HASHED = (".wav", ".jpg", ".png", ".tiff", ".jsonl", ".srt", ".vtt", ".tsv", ".ctm", ".TextGrid",
          ".txt")  # fmt: skip
MANY = 12  # hashed files of one kind in one folder, above which they share an entry

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def read_table(path: Path) -> pl.DataFrame:
    """A csv file as text, since its digits count; a parquet file as it is."""
    if path.suffix == ".csv":
        table = pl.read_csv(path, infer_schema=False)
        return table.drop(TIMES & set(table.columns)) if path.name in TIMED_TABLES else table
    return pl.read_parquet(path)


def table_record(path: Path) -> Json:
    """Rows, and of each column its type and a hash of its values."""
    table = read_table(path)
    columns: dict[str, Json] = {
        column.name: f"{column.dtype} {digest(repr(column.to_list()).encode())}" for column in table
    }
    order: list[Json] = [*table.columns]
    return {"rows": len(table), "order": order, "columns": columns}


def tensor_record(path: Path) -> Json:
    """Of each tensor of a safetensors file its type, shape and a hash of its bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors: dict[str, Json] = {}
    for name, tensor in json.loads(content[8:start]).items():
        if name != "__metadata__":
            first, end = tensor["data_offsets"]
            hashed = digest(content[start + first : start + end])
            tensors[name] = f"{tensor['dtype']} {tensor['shape']} {hashed}"
    return tensors


def array_record(path: Path) -> Json:
    """Of each array of an npz or HDF5 file its type, shape and a hash of its bytes."""
    arrays: dict[str, np.ndarray] = {}
    if path.suffix == ".npz":
        with np.load(path) as opened:
            arrays = dict(opened)
    else:
        import h5py

        with h5py.File(path) as opened:
            opened.visititems(
                lambda name, item: arrays.update(
                    {name: np.asarray(item)} if hasattr(item, "shape") else {}
                )
            )
    return {name: f"{a.dtype} {a.shape} {digest(a.tobytes())}" for name, a in arrays.items()}


def without_times(content: dict[str, Json]) -> dict[str, Json]:
    return {
        key: value
        for key, value in content.items()
        if key not in TIMES or not isinstance(value, float)
    }


def json_record(path: Path) -> Json:
    return json.loads(path.read_text(), object_hook=without_times)


def yaml_record(path: Path) -> Json:
    return yaml.safe_load(path.read_text())


def hash_record(path: Path) -> Json:
    return digest(path.read_bytes())


READERS: dict[str, Callable[[Path], Json]] = {
    ".json": json_record,
    ".yaml": yaml_record,
    ".csv": table_record,
    ".parquet": table_record,
    ".safetensors": tensor_record,
    ".npz": array_record,
    ".h5": array_record,
    **dict.fromkeys(HASHED, hash_record),
}


def file_record(path: Path) -> Json:
    """What is compared of a file; of reports and of matplotlib's pictures that they are there."""
    plotted = path.suffix == ".png" and b"Matplotlib" in path.read_bytes()[:400]
    if path.name in UNCOMPARED_FILES or plotted or path.suffix not in READERS:
        return "present"
    return READERS[path.suffix](path)


def files_record(paths: Sequence[Path], folder: Path) -> Json:
    """What is compared of every file; many hashed files of one kind in a folder share an entry."""
    files: dict[str, Json] = {str(path.relative_to(folder)): file_record(path) for path in paths}
    kinds: dict[str, list[str]] = {}
    for name in files:
        if name.endswith(HASHED) and files[name] != "present":
            kinds.setdefault(f"{Path(name).parent}/*{Path(name).suffix}", []).append(name)
    for kind, names in kinds.items():
        if len(names) > MANY:
            together = json.dumps({name: files.pop(name) for name in names})
            files[kind] = f"{len(names)} files {digest(together.encode())}"
    return files
