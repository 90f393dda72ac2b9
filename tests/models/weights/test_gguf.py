"""GGUF files are read as their format says, and damaged ones are refused in one line."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest

from headwise.models.weights.gguf import read_gguf

from .gguf_files import SIZES, floats, gguf_bytes, plain_block, random_blocks, text, write

FACTS = {
    "general.architecture": "llama",
    "a.count": 7,
    "a.negative": -3,
    "a.number": 0.5,
    "a.flag": True,
    "a.words": ["eins", "zwei", "東京"],
    "a.numbers": [1, 2, 3],
    "a.floats": [0.5, -1.0],
    "a.flags": [True, False],
    "a.none": [],
}


def tiny() -> bytes:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    return gguf_bytes(FACTS, {"x.weight": floats(values), "y": floats(values[0, :3])})


def refused(path: Path, content: bytes) -> str:
    with pytest.raises(ValueError, match="cannot be read") as caught:
        read_gguf(write(path, content))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", SIZES)
def test_blocks_of_every_kind_are_the_values_of_the_plain_formula(
    kind: str, tmp_path: Path
) -> None:
    weights, size = SIZES[kind]
    stored = random_blocks(kind, 6)
    content = gguf_bytes({}, {"first": floats(np.ones(3)), "w": ((3, 2 * weights), kind, stored)})
    read = read_gguf(write(tmp_path / "a.gguf", content)).values("w")
    plain = [plain_block(kind, stored[k : k + size]) for k in range(0, len(stored), size)]
    assert read.shape == (3, 2 * weights)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(
        read.reshape(-1).view(np.uint32), np.concatenate(plain).astype(np.float32).view(np.uint32)
    )


def test_a_tensor_of_many_blocks_is_the_same_in_all_its_parts(tmp_path: Path) -> None:
    block = random_blocks("Q4_1", 1)
    content = gguf_bytes({}, {"w": ((5, 32 * 9000), "Q4_1", block * 45000)})
    read = read_gguf(write(tmp_path / "a.gguf", content)).values("w")
    assert (read.reshape(-1, 32) == np.array(plain_block("Q4_1", block))).all()


@pytest.mark.parametrize("version", [2, 3])
def test_facts_of_all_kinds_and_shapes_are_read(version: int, tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    content = gguf_bytes(FACTS, {"x.weight": floats(values)}, version=version)
    file = read_gguf(write(tmp_path / "a.gguf", content))
    assert file.facts == FACTS
    assert type(file.facts["a.flag"]) is bool
    np.testing.assert_array_equal(file.values("x.weight"), values)


def test_a_file_that_ends_anywhere_before_its_end_is_one_line(tmp_path: Path) -> None:
    content = tiny()
    end = len(content) - 32 + 12  # the last tensor is followed by filling bytes
    for length in (*range(0, end, 7), end - 1):
        refused(tmp_path / "cut.gguf", content[:length])
    assert read_gguf(write(tmp_path / "whole.gguf", content[:end])).values("y").tolist() == [
        0,
        1,
        2,
    ]


def test_a_changed_byte_never_ends_in_another_error(tmp_path: Path) -> None:
    content = bytearray(tiny())
    for place in range(0, len(content) - 64, 5):
        for value in (0, 0xFF, content[place] ^ 1):
            before, content[place] = content[place], value
            path = write(tmp_path / "a.gguf", bytes(content))
            with contextlib.suppress(ValueError):
                file = read_gguf(path)
                for name in file.tensors:
                    file.values(name)
            content[place] = before


def test_huge_counts_are_refused_before_anything_is_read_by_them(tmp_path: Path) -> None:
    path, huge = tmp_path / "a.gguf", 1 << 60
    for tensors, facts in ((huge, 0), (0, huge)):
        assert "at most" in refused(path, b"GGUF" + struct.pack("<IQQ", 3, tensors, facts))
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    assert "at most" in refused(path, start + struct.pack("<Q", huge))
    for inner in (0, 7, 8, 12):
        listed = text("a") + struct.pack("<IIQ", 9, inner, huge)
        assert "ends too early" in refused(path, start + listed)
    shape = struct.pack("<IQQIQ", 2, huge, huge, 0, 0)
    assert "behind the end" in refused(
        path, b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("w") + shape + bytes(64)
    )


def test_what_is_not_known_is_refused_by_its_name(tmp_path: Path) -> None:
    path, one = tmp_path / "a.gguf", floats(np.ones(4))
    assert "of version 1;" in refused(path, gguf_bytes({}, {}, version=1))
    assert "byte order" in refused(path, b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    assert "begin with GGUF" in refused(path, b"PK\3\4" + bytes(60))
    assert "aligned" in refused(path, gguf_bytes({"general.alignment": 3}, {"w": one}))
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a")
    assert "kind 99" in refused(path, start + struct.pack("<I", 99))
    assert "list of kind 9" in refused(path, start + struct.pack("<IIQ", 9, 9, 1) + bytes(99))
    entry = text("w") + struct.pack("<IQIQ", 1, 4, 19, 0)
    unknown = refused(path, b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry + bytes(64))
    assert "'w' is stored as kind 19; read are F32" in unknown
    odd = refused(path, gguf_bytes({}, {"w": ((2, 33), "Q8_0", random_blocks("Q8_0", 3))}))
    assert "'w' of Q8_0 has the shape (2, 33)" in odd
    content = gguf_bytes({"a": 1, "b": 1}, {"v": one, "w": one})
    assert "says 'a' twice" in refused(path, content.replace(text("b"), text("a")))
    assert "holds 'v' twice" in refused(path, content.replace(text("w"), text("v")))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    content = gguf_bytes({}, {"w": floats(np.array([1, np.nan], np.float32))})
    with pytest.raises(ValueError, match="w holds values that are not finite"):
        read_gguf(write(tmp_path / "a.gguf", content)).values("w")


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.gguf"):
        with pytest.raises(ValueError, match="is no plain file"):
            read_gguf(path)
    refused(tmp_path / "empty.gguf", b"")
