"""YAML within limits: plain values as they are written, everything else one line."""

import os

import pytest

from headwise.base.errors import InputError
from headwise.base.yaml_text import YAML_CAP, parse_yaml, read_yaml


def test_plain_values_are_read_and_times_and_dates_stay_text() -> None:
    text = (
        "a: 12:30\nb: 2024-13-45\nc: 2024-01-13\nd: [1, 2.5, x, true]\ne: null\nf: 1e-3\ng: -.inf"
    )
    assert parse_yaml(text) == {
        "a": "12:30",
        "b": "2024-13-45",
        "c": "2024-01-13",
        "d": [1, 2.5, "x", True],
        "e": None,
        "f": "1e-3",
        "g": float("-inf"),
    }


def test_merge_keys_are_read_and_later_values_win() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], x: 4}\nd: *b"
    values = parse_yaml(text)
    assert values == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 4, "y": 3},
        "d": {"x": 1, "y": 3},
    }


def bomb(levels: int) -> str:
    """Ten merges of the level before in each level: ten to the number of levels in all."""
    lines = ["a0: &a0 {x: 1}"]
    for k in range(1, levels):
        lines.append(f"a{k}: &a{k}\n  <<: [{', '.join([f'*a{k - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), r"line 9: merge keys \(<<\) that unfold to too many values"),
        ("a: &a {<<: *a}", "merge keys"),
        ("a: 1\na: 2", "line 2: 'a' is there twice"),
        ("a: 1\n'a': 2", "line 2: 'a' is there twice"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 characters"),
        ("a: " + "1:" * 200 + "1.5", None),
        ("a: !!int abc", "invalid literal"),
        ("a: !!float abc", "could not convert"),
        ("a: !!bool perhaps", "perhaps"),
        ("a: !!timestamp x", "could not determine a constructor"),
        ("a: !!binary eA==", "could not determine a constructor"),
        ("a: !!map [1]", "expected a mapping node"),
        ("? [a]\n: 1", "unhashable"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_plain_is_one_line(text: str, message: str | None) -> None:
    if message is None:
        assert isinstance(parse_yaml(text), dict)
        return
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_pipes_devices_and_large_files_are_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="is not a plain file"):
            read_yaml(path)
    (tmp_path / "large").write_text("#" * (YAML_CAP + 1))
    with pytest.raises(InputError, match="too large"):
        read_yaml(tmp_path / "large")
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "missing")
