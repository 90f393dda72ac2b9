"""Checkpoints of mmengine: of numpy 1 and 2, and files that mean harm."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine")

from headwise.models.adapters.openmmlab.checkpoints import (
    _Array,
    _NumberType,
    checkpoint_types,
    load_weights,
)


def write_history(path: Path) -> None:
    """A checkpoint as mmengine's Runner writes it."""
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer([1.0, 2.0, np.float64(6.0)], [1, 1, 1])
    checkpoint = {
        "meta": {"epoch": 1, "best": np.float32(0.5)},
        "state_dict": {"w": torch.ones(2, 2)},
        "message_hub": {"log_scalars": {"loss": history}, "info": {"loss": np.float64(0.1)}},
    }
    torch.save(checkpoint, path)


def as_numpy_1(path: Path) -> Path:
    """The same file with the names that numpy 1 has."""
    old = path.with_name("numpy1.pth")
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(old, "w") as archive:
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            archive.writestr(name, content)
    return old


@pytest.mark.parametrize("numpy", [1, 2])
def test_histories_and_numbers_of_both_numpys_are_read(tmp_path: Path, numpy: int) -> None:
    path = tmp_path / "a.pth"
    write_history(path)
    path = as_numpy_1(path) if numpy == 1 else path
    assert load_weights(path)["w"].tolist() == [[1, 1], [1, 1]]
    with checkpoint_types():
        checkpoint = torch.load(path, weights_only=True)
        history = checkpoint["message_hub"]["log_scalars"]["loss"]
        assert (history.mean(), history.max(), history.current()) == (3.0, 6.0, 6.0)
        assert checkpoint["message_hub"]["info"]["loss"] == 0.1
        assert checkpoint["meta"]["best"] == np.float32(0.5)
        history.update(8.0)
        torch.save(checkpoint, tmp_path / "again.pth")
        again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again["message_hub"]["log_scalars"]["loss"].data[0].tolist() == [1, 2, 6, 8]


class Reduced:
    """What a pickle makes of these parts."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


POINTER = b"A" * 8  # what numpy would take for the address of an object
RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float64(1).__reduce__()[0]
ARRAY = (RECONSTRUCT, (np.ndarray, (0,), b"b"))
HARM = {
    "array over bytes": Reduced(
        np.ndarray, ((1,), np.dtype([("a", "O")]), Reduced(bytearray, (POINTER,)))
    ),
    "objects": Reduced(np.dtype, ("O",)),
    "fields": Reduced(np.dtype, ([("a", "O")],)),
    "array of objects": Reduced(*ARRAY, (1, (1,), np.dtype("O"), False, POINTER)),
    "fields by state": Reduced(
        *ARRAY,
        (
            1,
            (1,),
            Reduced(
                np.dtype,
                ("f8", False, True),
                (3, "|", None, ("a",), {"a": (np.dtype("f8"), 0)}, 8, 1, 27),
            ),
            False,
            POINTER,
        ),
    ),
    "too few bytes": Reduced(*ARRAY, (1, (1000,), np.dtype("f8"), False, POINTER)),
    "negative shape": Reduced(*ARRAY, (1, (-1, -1), np.dtype("f8"), False, POINTER)),
    "huge shape": Reduced(*ARRAY, (1, (2**62, 4), np.dtype("f8"), False, POINTER)),
    "another type": Reduced(RECONSTRUCT, (np.matrix, (0,), b"b")),
    "a shape at once": Reduced(RECONSTRUCT, (np.ndarray, (10**12,), b"b")),
    "number of objects": Reduced(SCALAR, (np.dtype("O"), POINTER)),
    "number of few bytes": Reduced(SCALAR, (np.dtype("f8"), b"A")),
    "our own array": Reduced(_Array, ((1,), "O", POINTER)),
    "our own type": Reduced(_NumberType, ("O",)),
}


@pytest.mark.parametrize("harm", HARM)
def test_an_array_never_takes_its_objects_from_a_file(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "more": HARM[harm]}, path)
    for file in (path, as_numpy_1(path)):
        with pytest.raises(ValueError, match=r"no checkpoint that can be read without running"):
            load_weights(file)


def test_the_name_that_is_refused_is_said(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "more": Path("x")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"its code: Unsupported global: GLOBAL pathlib\.\w+$"):
        load_weights(tmp_path / "a.pth")
