"""What no task may do to its rows: split a group over two parts, lose or double a row, count those
of other parts.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")
pytest.importorskip("timm", reason="the extra `vision` is not installed")
pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import soundfile
from PIL import Image

from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.pipeline import Splits

PARTS = ("train", "validation", "test")
Rows = Sequence[tuple[str, str, str]]  # label, group, part of each; "" where the data does not say


def table_of_xrays(home: Path, rows: Rows) -> str:
    lines = ["image,label,patient,part"]
    for k, (label, group, part) in enumerate(rows):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(home / f"{k}.png")
        lines.append(f"{k}.png,{label},{group},{part}")
    (home / "labels.csv").write_text("\n".join(lines))
    return str(home)


def table_of_slides(home: Path, rows: Rows) -> str:
    """With features of each slide, so that no slide is needed: four instances of the slide's
    number.
    """
    from headwise.data.slides.features import write_features

    (home / "features").mkdir()
    named = any(part for _, _, part in rows)
    lines = ["slide,label,patient" + (",split" if named else "")]
    for k, (label, group, part) in enumerate(rows):
        write_features(
            home / "features" / f"s{k}.h5", np.full((4, 3), k) * [1, 2, 3], np.zeros((4, 2)), {}
        )
        lines.append(f"s{k},{label},{group}" + (f",{part}" if named else ""))
    (home / "labels.csv").write_text("\n".join(lines))
    return str(home)


def table_of_scenes(home: Path, rows: Rows) -> str:
    lines = ["image,depth,mask,group,part"]
    for k, (_, group, part) in enumerate(rows):
        for name in ("i", "d", "m"):
            # No two colour pictures alike: copies of a scene would have to share a part.
            picture = np.full((8, 8), k if name == "i" else 0, np.uint8)
            picture[2:5, 2:6] = 255
            Image.fromarray(picture).save(home / f"{name}{k}.png")
        lines.append(f"i{k}.png,d{k}.png,m{k}.png,{group},{part}")
    (home / "scenes.csv").write_text("\n".join(lines))
    return str(home / "scenes.csv")


def table_of_people(home: Path, rows: Rows) -> str:
    lines = ["image,identity" + (",split" if rows[0][2] else "")]
    for k, (_, group, part) in enumerate(rows):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(home / f"{k}.jpg", "PNG")
        lines.append(f"{k}.jpg,{group}" + (f",{part}" if part else ""))
    (home / "people.csv").write_text("\n".join(lines))
    return str(home / "people.csv")


def table_of_recordings(home: Path, rows: Rows) -> str:
    soundfile.write(home / "a.wav", np.zeros(16_000 * 2, np.float32), 16_000)
    lines = ["audio,start,end,text,speaker,part"]
    lines += [
        f"a.wav,{0.01 * k:.2f},{0.01 * k + 0.5:.2f},{label},{group},{part}"
        for k, (label, group, part) in enumerate(rows)
    ]
    (home / "m.csv").write_text("\n".join(lines))
    return str(home / "m.csv")


def table_of_voices(home: Path, rows: Rows) -> str:
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 2)
    soundfile.write(home / "a.wav", noise, 16_000)
    lines = ["audio,start,end,label,speaker,part"]
    lines += [
        f"a.wav,{0.01 * k:.2f},{0.01 * k + 0.1:.2f},{','.join(row)}" for k, row in enumerate(rows)
    ]
    (home / "v.csv").write_text("\n".join(lines))
    return str(home / "v.csv")


def table_of_texts(home: Path, rows: Rows) -> str:
    lines = ["id,text,label,customer,part"]
    lines += [
        f"{k},the {k}th text about {rows[k][0]},{','.join(rows[k])}" for k in range(len(rows))
    ]
    (home / "t.csv").write_text("\n".join(lines))
    return str(home / "t.csv")


def table_of_prompts(home: Path, rows: Rows) -> str:
    lines = ["id,prompt,answer,group,part"]
    lines += [
        f"{k},the {k}th code is {k + 100}. the code is,{k + 100},{group},{part}"
        for k, (_, group, part) in enumerate(rows)
    ]
    (home / "p.csv").write_text("\n".join(lines))
    return str(home / "p.csv")


TABLES: dict[str, Callable[[Path, Rows], str]] = {
    "medical": table_of_xrays,
    "wsi": table_of_slides,
    "saliency": table_of_scenes,
    "reid": table_of_people,
    "speech": table_of_recordings,
    "recordings": table_of_voices,
    "text": table_of_texts,
    "longcontext": table_of_prompts,
    "finetune": table_of_prompts,
}
OPTIONS: dict[str, dict] = {
    "medical": {"size": (8, 8), "body_size": (8, 8)},
    "saliency": {"size": (32, 32)},
    "reid": {"triplet": "no"},
    "text": {"weights": "none"},
    "longcontext": {"model": "generated", "fit_prompts": 99, "validation_prompts": 99,
                    "test_prompts": 99},
    "finetune": {"model": "generated"},
}  # fmt: skip


def opened(task: str, home: Path, rows: Rows, **options: object) -> Splits:
    data = TABLES[task](home, rows)
    more = {"features": str(home / "features")} if task == "wsi" else {}
    card = load_task(task)
    return card.load().open_data(
        card.options(data=data, **{**OPTIONS.get(task, {}), **more, **options})
    )


def places(task: str, part: object) -> list[int]:
    """The rows of the table that a part holds."""
    if task == "wsi":
        return [int(name[1:]) for name in part.names]  # type: ignore[attr-defined]
    if task == "speech":
        return [round(100 * utterance.start) for utterance in part.utterances]  # type: ignore[attr-defined]
    if task == "longcontext":
        return [int(prompt.id) for prompt in part.prompts]  # type: ignore[attr-defined]
    if task == "finetune":
        return [int(dialogue.id) for dialogue in part.dialogues]  # type: ignore[attr-defined]
    if task == "text":
        return [int(name) for name in part.table.ids]  # type: ignore[attr-defined]
    return [int(row) for row in part.rows]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("first_part", "second_part"), list(combinations(PARTS, 2)))
@pytest.mark.parametrize(
    "task", ["medical", "wsi", "saliency", "text", "longcontext", "finetune", "recordings"]
)
def test_a_group_in_two_parts_of_the_data_is_refused(
    tmp_path: Path, task: str, first_part: str, second_part: str
) -> None:
    rows = [(("a", "b")[k % 2], f"g{k}", PARTS[k // 2 % 3]) for k in range(24)]
    opened(task, _folder(tmp_path / "sound"), rows)
    for place, part in ((0, first_part), (13, second_part)):
        rows[place] = (rows[place][0], "twice", part)
    for name, order in (("a", rows), ("b", rows[::-1])):
        with pytest.raises(InputError) as caught:
            opened(task, _folder(tmp_path / name), order)
        message = str(caught.value)
        assert "\n" not in message
        assert first_part in message
        assert second_part in message


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


CASES = [
    (task, own)
    for task in TABLES
    for own in ((), ("test",), ("validation",), ("validation", "test"))
    if own != ("validation",)
    or task
    in (
        "medical",
        "saliency",
        "text",
        "longcontext",
        "finetune",
    )  # the others draw no test part beside a validation
]


@pytest.mark.parametrize(("task", "named_parts"), CASES)
def test_no_group_is_split_and_no_row_is_lost(
    tmp_path: Path, task: str, named_parts: tuple[str, ...]
) -> None:
    """Where parts are drawn, and where the data names some of them; the data's own parts stay as
    they are.
    """
    rows = []
    for group in np.random.default_rng(len(named_parts)).integers(0, 20, 90):
        part = (
            named_parts[group % 3]
            if group % 3 < len(named_parts)
            else ("train" if named_parts else "")
        )
        rows.append((("a", "b")[group % 2], f"g{group}", part))
    splits = opened(task, tmp_path, rows, seed=3)
    rows_of_part = {name: places(task, getattr(splits, name)) for name in PARTS}
    assert all(rows_of_part.values())
    assert sorted(place for part in rows_of_part.values() for place in part) == list(
        range(len(rows))
    )
    for first_part, second_part in combinations(PARTS, 2):
        assert not {rows[k][1] for k in rows_of_part[first_part]} & {
            rows[k][1] for k in rows_of_part[second_part]
        }, (first_part, second_part)
    for name in named_parts:
        assert sorted(rows_of_part[name]) == [k for k, row in enumerate(rows) if row[2] == name]
    assert splits.spec.to_json()["parts"] == {
        name: len(part) for name, part in rows_of_part.items()
    }
    for name in PARTS:
        labels = getattr(getattr(splits, name), "labels", None)
        if labels is not None and task in ("medical", "wsi", "recordings"):
            assert [splits.spec.to_json()["classes"][label] for label in labels] == [
                rows[k][0] for k in rows_of_part[name]
            ]


@pytest.mark.parametrize("task", ["medical", "wsi"])
def test_weights_of_classes_and_moments_count_the_training_part_alone(
    tmp_path: Path, task: str
) -> None:
    """In which classes are as rare as they are not elsewhere."""
    rows = [(("a", "b", "c")[0 if k % 8 else 1 + k // 8 % 2], f"g{k}", "train") for k in range(32)]
    rows += [
        (("a", "b", "c")[k % 3 if part == "test" else 2 - k % 2], f"{part}{k}", part)
        for part in PARTS[1:]
        for k in range(15)
    ]
    splits = opened(task, tmp_path, rows, **({"class_weights": True} if task == "wsi" else {}))
    assert splits.spec.to_json()["classes"] == ["a", "b", "c"]
    count = np.array([28, 2, 2])
    if task == "medical":
        assert splits.spec.to_json()["counts"] == count.tolist()
    if task == "wsi":
        weights = splits.train.class_weights
        assert weights is not None
        np.testing.assert_allclose(weights.numpy(), 32 / 3 / count, rtol=1e-6)
        assert splits.validation.class_weights is splits.test.class_weights is None
        instances = np.repeat(np.arange(32), 4)[:, None] * [1, 2, 3]
        np.testing.assert_allclose(splits.spec.to_json()["mean"], instances.mean(0), rtol=1e-6)
        np.testing.assert_allclose(splits.spec.to_json()["deviation"], instances.std(0), rtol=1e-6)


@pytest.mark.parametrize("task", ["medical", "wsi", "recordings"])
def test_the_order_of_classes_is_that_of_their_names(tmp_path: Path, task: str) -> None:
    """Whichever comes first in the table; or that of the option, where there is one."""
    rows = [(("z", "b", "a")[k % 3], f"g{k}", PARTS[k // 3 % 3]) for k in range(36)]
    splits = opened(task, _folder(tmp_path / "a"), rows)
    assert splits.spec.to_json()["classes"] == ["a", "b", "z"]
    assert splits.test.labels.tolist() == [
        ("a", "b", "z").index(rows[k][0]) for k in places(task, splits.test)
    ]
    if task == "medical":
        chosen = opened(task, _folder(tmp_path / "b"), rows, classes=("z", "a"), positive="z")
        assert (chosen.spec.classes, chosen.spec.positive) == (["z", "a"], 0)
        assert sum(len(getattr(chosen, name)) for name in PARTS) == 24
        for name in PARTS:
            part = getattr(chosen, name)
            assert [chosen.spec.classes[label] for label in part.labels] == part.column("labels")


def test_what_a_part_hands_out_is_its_own_row(tmp_path: Path) -> None:
    """Pictures, labels and indices of x-rays in any order, twice, so that what is kept in memory is
    asked, too.
    """
    rows = [(("a", "b")[k % 2], f"g{k}", PARTS[k % 3]) for k in range(30)]
    splits = opened("medical", tmp_path, rows)
    for _ in range(2):
        for name in PARTS:
            part = getattr(splits, name)
            for index in np.random.default_rng(0).permutation(len(part)).tolist():
                sample, row = part[index], places("medical", part)[index]
                np.testing.assert_allclose(sample["picture"].numpy(), row / 255, atol=1e-6)
                assert (int(sample["label"]), int(sample["index"])) == (row % 2, index)
                assert rows[row][2] == name
