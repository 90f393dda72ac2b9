"""A small data set of every task as a table, in which a contract test can change a cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

Row = dict[str, object]


@dataclass
class SmallData:
    """The data of a task: a table whose rows a test may change, and what its columns mean."""

    folder: Path
    rows: list[Row]
    item: str
    label: str
    group: str
    part: str
    ending: str
    """Of the files that the items lie in; "" where the table holds the items."""
    name: str = "table.csv"
    options: dict[str, Any] = field(default_factory=dict)

    def write(self) -> dict[str, Any]:
        """Write the table; returns options of `train`."""
        path = self.folder / self.name
        if path.suffix == ".jsonl":
            lines = [
                json.dumps({k: v for k, v in row.items() if v is not None}) for row in self.rows
            ]
            path.write_text("\n".join(lines) + "\n")
        else:
            pl.DataFrame(self.rows, infer_schema_length=None, strict=False).write_csv(path)
        return {"data": str(path), **self.options}

    def rename(self, column: str, name: str) -> None:
        """Give a column another name."""
        self.rows = [{name if k == column else k: v for k, v in row.items()} for row in self.rows]


def _picture(path: Path, seed: int, mode: str = "RGB", size: int = 32) -> None:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


def _part(k: int, count: int) -> str:
    return "train" if k < count // 2 else "val" if k < 3 * count // 4 else "test"


def _medical(folder: Path) -> SmallData:
    rows: list[Row] = []
    for k in range(24):
        _picture(folder / f"p{k:02d}.png", k, "L")
        rows.append(
            {
                "image": f"p{k:02d}.png",
                "label": ("sick", "well")[k % 2],
                "patient": f"n{k // 2}",
                "part": _part(k, 24),
            }
        )
    return SmallData(folder, rows, "image", "label", "patient", "part", ".png")


def _reid(folder: Path) -> SmallData:
    rows: list[Row] = []
    for k in range(32):
        _picture(folder / f"p{k:02d}.png", k)
        rows.append(
            {"image": f"p{k:02d}.png", "identity": f"id{k // 4}", "camera": f"c{k % 2}"}
            | {"part": "train" if k < 16 else "val" if k < 24 else ("query", "gallery")[k % 4 > 0]}
        )
    return SmallData(folder, rows, "image", "identity", "identity", "part", ".png")


def _saliency(folder: Path) -> SmallData:
    rows: list[Row] = []
    for k in range(16):
        for kind, mode in (("rgb", "RGB"), ("depth", "L"), ("mask", "1")):
            _picture(folder / kind / f"s{k:02d}.png", 100 * k + len(kind), mode)
        rows.append(
            {
                "image": f"rgb/s{k:02d}.png",
                "depth": f"depth/s{k:02d}.png",
                "mask": f"mask/s{k:02d}.png",
                "group": f"g{k // 2}",
                "part": _part(k, 16),
            }
        )
    return SmallData(folder, rows, "image", "mask", "group", "part", ".png")


def _speech(folder: Path) -> SmallData:
    import soundfile

    rows: list[Row] = []
    for k in range(16):
        samples = 0.1 * np.random.default_rng(k).standard_normal(8000)
        soundfile.write(folder / f"r{k:02d}.wav", samples, 16000)
        rows.append(
            {
                "audio": f"r{k:02d}.wav",
                "text": ("one two", "three")[k % 2],
                "speaker": f"s{k // 2}",
                "part": _part(k, 16),
            }
        )
    return SmallData(folder, rows, "audio", "text", "speaker", "part", ".wav", "manifest.csv")


def _recordings(folder: Path) -> SmallData:
    import soundfile

    rows: list[Row] = []
    for k in range(24):
        samples = 0.1 * np.random.default_rng(k).standard_normal(3200)
        soundfile.write(folder / f"r{k:02d}.wav", samples, 16000)
        rows.append(
            {
                "audio": f"r{k:02d}.wav",
                "label": ("joy", "anger")[k % 2],
                "speaker": f"s{k // 2}",
                "part": _part(k, 24),
            }
        )
    return SmallData(folder, rows, "audio", "label", "speaker", "part", ".wav")


def _wsi(folder: Path) -> SmallData:
    import h5py

    rows: list[Row] = []
    for k in range(24):
        with h5py.File(folder / f"s{k:02d}.h5", "w") as file:
            random = np.random.default_rng(k)
            file["features"] = random.standard_normal((6, 8)).astype(np.float32)
            file["coords"] = np.stack([np.arange(6) * 256, np.zeros(6, int)], 1)
        rows.append(
            {
                "slide": f"s{k:02d}",
                "label": ("a", "b")[k % 2],
                "patient": f"n{k // 2}",
                "split": _part(k, 24),
            }
        )
    options = {"features": str(folder)}
    return SmallData(folder, rows, "slide", "label", "patient", "split", ".h5", options=options)


def _ranking(folder: Path) -> SmallData:
    random = np.random.default_rng(0)
    rows: list[Row] = [
        {
            "user_id": f"u{k % 20}",
            "item_id": f"i{random.integers(15)}",
            "time": 1_700_000_000 + 60 * k,
            "price": round(float(random.uniform(1, 9)), 2),
            "click": int(random.random() < 0.4),
        }
        for k in range(600)
    ]
    (folder / "table.yaml").write_text(
        "log: table.csv\nuser: user_id\nitem: item_id\ntime: {column: time, unit: s}\n"
        "tasks: {click: click}\nnumeric: {price: {}}\n"
    )
    return SmallData(folder, rows, "user_id", "click", "user_id", "", "")


def _forecast(folder: Path) -> SmallData:
    rows: list[Row] = [
        {
            "unique_id": f"k{series}",
            "ds": f"2024-{1 + day // 28:02d}-{1 + day % 28:02d}",
            "y": value,
        }
        for series in range(3)
        for day, value in enumerate(
            np.random.default_rng(series).uniform(5, 9, 28).round(3).tolist()
        )
    ]
    options = {"lookback": 4, "horizon": 2}
    return SmallData(folder, rows, "unique_id", "y", "unique_id", "", "", options=options)


def _text(folder: Path) -> SmallData:
    rows: list[Row] = [
        {
            "text": f"message {k} says that the {('printer', 'wifi')[k % 2]} is slow",
            "label": ("hardware", "network")[k % 2],
            "customer": f"n{k // 2}",
            "part": _part(k, 24),
        }
        for k in range(24)
    ]
    options = {"weights": "none"}
    return SmallData(folder, rows, "text", "label", "customer", "part", "", options=options)


def _reasoning(folder: Path) -> SmallData:
    letters = "abcdefghij"
    rows: list[Row] = []
    for k in range(24):
        colour, letter = ("red", "blue")[k // 2 % 2], letters[k % 10]
        exists = (colour, letter) == ("red", "c")
        rows.append(
            {
                "id": f"t{k}",
                "rule": [("exist red c", f"getcolor {letter}")[k % 2]],
                "scene": [f"{colour} {letter} {k // 10},{k % 10}"],
                "answer": colour if k % 2 else str(exists).lower(),
                "part": _part(k, 24),
            }
        )
    return SmallData(folder, rows, "id", "answer", "id", "part", "", "table.jsonl")


def _longcontext(folder: Path) -> SmallData:
    rows: list[Row] = [
        {
            "prompt": f"In house {k} the code is {1000 + k}. It rains. In house {k} the code is",
            "answer": str(1000 + k),
            "group": f"n{k // 2}",
            "part": _part(k, 24),
        }
        for k in range(24)
    ]
    options = {"model": "generated"}
    return SmallData(folder, rows, "prompt", "answer", "group", "part", "", options=options)


def _finetune(folder: Path) -> SmallData:
    rows: list[Row] = [
        {
            "prompt": f"What is {k} and one?",
            "answer": str(k + 1),
            "group": f"n{k // 2}",
            "part": _part(k, 24),
        }
        for k in range(24)
    ]
    options = {"model": "generated"}
    return SmallData(folder, rows, "prompt", "answer", "group", "part", "", options=options)


BUILDERS: dict[str, Callable[[Path], SmallData]] = {
    "finetune": _finetune,
    "forecast": _forecast,
    "longcontext": _longcontext,
    "medical": _medical,
    "ranking": _ranking,
    "recordings": _recordings,
    "reasoning": _reasoning,
    "reid": _reid,
    "saliency": _saliency,
    "speech": _speech,
    "text": _text,
    "wsi": _wsi,
}


def copies_of(row: Row, **changes: object) -> Sequence[Row]:
    """A row and a copy with other cells."""
    return [row, {**row, **changes}]
