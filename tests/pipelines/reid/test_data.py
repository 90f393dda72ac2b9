"""Sets of pictures as data sets: parts, labels, what is searched for, samples of
attributes, mistakes.
"""

from pathlib import Path

import numpy as np
import pytest

from headwise.base import account
from headwise.base.errors import InputError
from headwise.data.persons.persons import read_picture_set
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.reid import pictures
from headwise.pipelines.reid.data import ReidSpec, _take_of_each, goal_of, open_pictures
from headwise.pipelines.reid.options import ReidOptions
from headwise.pipelines.reid.pictures import IdentityPictures, Pictures
from headwise.tests.data.persons.sets import fill
from headwise.tests.statements import statements


@pytest.fixture(autouse=True)
def files_of_one_byte_are_pictures(monkeypatch) -> None:
    """Files of `fill` show noise that is different for each."""
    read_file = pictures.read_picture

    def read(path, size) -> np.ndarray:
        if Path(path).read_bytes() != b"x":
            return read_file(path, size)
        seed = list(str(path).encode())
        return np.random.default_rng(seed).integers(0, 256, (3, *size), dtype=np.uint8)

    monkeypatch.setattr(pictures, "read_picture", read)


def people(root: Path, count: int = 20, pictures: int = 5, under: str = "") -> Path:
    return fill(
        root, *(f"{under}p{person:02d}/{k}.jpg" for person in range(count) for k in range(pictures))
    )


def opened(data: Path, **options) -> Splits[ReidSpec]:
    return open_pictures(ReidOptions(data=str(data), **options))


def identities(part: Pictures) -> list[str]:
    return [part.source.pictures.identities[row] for row in part.rows]


class TestParts:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize(("test", "validation"), [(0.3, 0.15), (0.5, 0.3), (0.05, 0.01)])
    def test_no_identity_is_in_two_parts_of_a_search(
        self, tmp_path, seed, test, validation
    ) -> None:
        splits = opened(people(tmp_path), seed=seed, test_share=test, validation_share=validation)
        parts = [set(identities(part)) for part in (splits.train, splits.validation, splits.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert len(set.union(*parts)) == 20
        assert sum(map(len, (splits.train, splits.validation, splits.test))) == 100
        tested = max(1, round(20 * test))
        assert len(parts[2]) == tested
        assert len(parts[1]) == max(1, round((20 - tested) * validation))
        assert splits.spec.goal == "search"
        assert splits.spec.classes == sorted(parts[0])
        assert splits.spec.parts == {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        }

    def test_the_seed_alone_decides(self, tmp_path) -> None:
        people(tmp_path)
        first, again, with_other_seed = (
            opened(tmp_path, seed=seed).test.rows.tolist() for seed in (1, 1, 2)
        )
        assert first == again != with_other_seed

    @pytest.mark.parametrize(("test", "validation"), [(0.3, 0.15), (0.2, 0.5)])
    def test_classes_are_shared_out_by_picture(self, tmp_path, test, validation) -> None:
        people(tmp_path, 4, 20)
        fill(tmp_path, "rare/0.jpg")
        splits = opened(tmp_path, goal="classes", test_share=test, validation_share=validation)
        rows = np.concatenate([splits.train.rows, splits.validation.rows, splits.test.rows])
        assert sorted(rows) == list(range(81))
        assert splits.spec.classes == ["p00", "p01", "p02", "p03", "rare"]
        assert identities(splits.train).count("rare") == 1
        for name in splits.spec.classes[:4]:
            tested = round(20 * test)
            assert identities(splits.test).count(name) == tested
            assert identities(splits.validation).count(name) == round((20 - tested) * validation)
        for part in (splits.train, splits.test):
            assert [splits.spec.classes[label] for label in part.labels] == identities(part)
        assert not isinstance(splits.train, IdentityPictures)
        assert isinstance(opened(tmp_path, goal="classes", triplet="yes").train, IdentityPictures)

    def test_the_datas_own_parts_are_kept(self, tmp_path) -> None:
        people(tmp_path, 6, 3, "train/")
        people(tmp_path, 2, 2, "val/")
        fill(tmp_path, "query/q/0.jpg", "gallery/q/1.jpg", "gallery/r/0.jpg")
        splits = opened(tmp_path)
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 4, 3)
        assert splits.test.ranked
        assert [splits.test.names()[k] for k in splits.test.query] == ["query/q/0.jpg"]
        assert len(splits.test.gallery) == 2
        assert not splits.validation.ranked

    def test_without_validation_all_is_trained_on(self, tmp_path) -> None:
        splits = opened(people(tmp_path, 10), validation_share=0.0)
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (35, 0, 15)


@pytest.fixture
def market(tmp_path) -> Path:
    names = [
        f"bounding_box_train/{n:04d}_c{c}s1_000{n:03d}_0{c}.jpg"
        for n in range(1, 9)
        for c in (1, 2)
    ]
    names += [f"query/{n:04d}_c1s1_000001_00.jpg" for n in (11, 12, 13)]
    names += [f"bounding_box_test/{n:04d}_c2s1_000002_00.jpg" for n in (11, 12)]
    names += [f"bounding_box_test/{n}_c3s1_000003_00.jpg" for n in ("0000", "-1")]
    names += ["bounding_box_train/-1_c1s1_000009_01.jpg"]
    return fill(tmp_path / "m", *names)


def picture(path: Path, seed: int) -> None:
    Image = pytest.importorskip("PIL.Image", reason="Pillow is optional and not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


class TestCopies:
    """Pictures that are the same pixels under other names."""

    def split(self, home: Path, **options) -> list[set[str]]:
        splits = opened(home, size=(16, 8), **options)
        return [set(part.names()) for part in (splits.train, splits.validation, splits.test)]

    def test_copies_of_a_class_share_a_part(self, tmp_path) -> None:
        for name in "ab":
            for number in range(10):
                picture(tmp_path / name / f"{number}.png", ord(name) * 100 + number % 5)
        for seed in range(5):
            with account.opened() as notes:
                parts = self.split(
                    tmp_path, goal="classes", seed=seed, test_share=0.4, validation_share=0.3
                )
            assert sum(map(len, parts)) == 20
            for name in "ab":
                for number in range(5):
                    pair = {f"{name}/{number}.png", f"{name}/{number + 5}.png"}
                    assert sum(pair <= part for part in parts) == 1
            assert any("10 exact copies of other pictures" in line for line in notes.lines())

    def test_without_copies_the_parts_are_as_they_were(self, tmp_path) -> None:
        classes = np.repeat(["a", "b"], 10)
        rows = np.arange(20)
        drawn = [
            _take_of_each(classes, rows, 0.3, np.random.default_rng(1), groups)[0].tolist()
            for groups in (rows, rows.astype(str))
        ]
        generator, chosen = np.random.default_rng(1), []
        for start in (0, 10):
            chosen += (start + generator.permutation(10)[:3]).tolist()
        assert drawn[0] == drawn[1] == sorted(chosen)

    def test_a_class_of_copies_alone_stays_in_training(self) -> None:
        rows = np.arange(6)
        groups = np.array([0, 0, 0, 3, 4, 5])
        for seed in range(9):
            generator = np.random.default_rng(seed)
            taken, rest = _take_of_each(np.repeat(["a", "b"], 3), rows, 0.4, generator, groups)
            assert {0, 1, 2} <= set(rest.tolist())
            assert len(taken) == 1

    def test_copies_in_two_parts_or_of_two_people_are_refused_unless_accepted(
        self, tmp_path
    ) -> None:
        for number in range(6):
            picture(tmp_path / "train" / f"p{number // 2}" / f"{number}.png", number)
        picture(tmp_path / "query" / "q" / "0.png", 90)
        picture(tmp_path / "gallery" / "q" / "1.png", 90)
        picture(tmp_path / "gallery" / "r" / "2.png", 92)
        with account.opened() as notes:
            self.split(tmp_path)
        assert any("gallery that are exact copies of a query" in line for line in notes.lines())
        picture(tmp_path / "gallery" / "r" / "3.png", 4)
        with pytest.raises(InputError, match=r"exact copies with the labels .*--accept two-labels"):
            self.split(tmp_path)
        (tmp_path / "gallery" / "r" / "3.png").unlink()
        picture(tmp_path / "gallery" / "p2" / "3.png", 4)
        with pytest.raises(InputError, match=r"exact copies in test and in train.*--accept copies"):
            self.split(tmp_path)
        with account.opened(["copies"]) as notes:
            self.split(tmp_path)
        assert any(
            "identities in the training and in the test part (p2)" in x for x in notes.lines()
        )

    def test_an_identity_in_training_and_test_is_refused_in_a_search(self, tmp_path) -> None:
        people(tmp_path, 4, 3, "train/")
        fill(tmp_path, "query/p01/8.jpg", "gallery/p01/9.jpg")
        with pytest.raises(InputError, match="identity 'p01' is in the training and in the test"):
            opened(tmp_path)
        known = opened(tmp_path, goal="classes", validation_share=0.0)
        assert known.spec.goal == "classes"
        with account.opened(["copies"]):
            assert len(opened(tmp_path).test) == 2

    def test_members_are_the_pictures_of_each_part(self, tmp_path) -> None:
        splits = opened(people(tmp_path))
        for name in ("train", "validation", "test"):
            part = splits.part(name)
            assert [Path(member.file) for member in splits.members[name]] == [
                tmp_path / item for item in part.names()
            ]


class TestUnreadable:
    def test_a_few_pictures_are_left_out_and_named_and_many_are_refused(self, tmp_path) -> None:
        people(tmp_path)
        (tmp_path / "p03" / "1.jpg").write_bytes(b"no picture")
        with account.opened() as open_account:
            splits = opened(tmp_path)
        parts = (splits.train, splits.validation, splits.test)
        names = sorted(name for part in parts for name in part.names())
        assert len(names) == 99
        assert "p03/1.jpg" not in names
        # Each picture still has its own identity and pixels.
        part = next(part for part in parts if "p03/2.jpg" in part.names())
        place = part.names().index("p03/2.jpg")
        assert identities(part)[place] == "p03"
        expected = pictures.read_picture(str(tmp_path / "p03" / "2.jpg"), (128, 64))
        np.testing.assert_array_equal(part.image(place).numpy(), expected)
        lines = open_account.lines()
        assert lines[0] == "read: 99 pictures; 20 identities"
        assert "1 pictures that are missing or cannot be read (p03/1.jpg: " in lines[1]
        for k in range(12):
            (tmp_path / f"p{k:02d}" / "0.jpg").write_bytes(b"no picture")
        with pytest.raises(InputError, match=r"13 of 100 pictures cannot be read; at most 10%"):
            opened(tmp_path)


class TestLabels:
    def test_junk_is_minus_1_distractors_are_0_and_others_are_people(self, market) -> None:
        test = opened(market).test
        label_of = dict(zip(identities(test), test.labels.tolist()))
        assert label_of.pop("-1") == -1
        assert label_of.pop("0000") == 0
        assert sorted(label_of) == ["0011", "0012", "0013"]
        assert len(set(label_of.values())) == 3
        assert min(label_of.values()) > 0
        assert (len(test.query), len(test.gallery)) == (3, 4)

    def test_junk_is_not_learned(self, market) -> None:
        splits = opened(market)
        assert "-1" not in splits.spec.classes
        assert "-1" not in identities(splits.train) + identities(splits.validation)
        assert [splits.spec.classes[label] for label in splits.train.labels] == identities(
            splits.train
        )

    def test_cameras(self, market, tmp_path) -> None:
        test = opened(market).test
        cameras = [test.source.pictures.cameras[row] for row in test.rows]
        assert test.cameras is not None
        assert len(set(zip(cameras, test.cameras.tolist()))) == len(set(cameras)) == 3
        splits = opened(people(tmp_path / "p", 8))
        assert splits.train.cameras is None
        assert splits.spec.cameras is False

    def test_a_sample_says_all(self, persons) -> None:
        part = opened(persons, size=(32, 16)).train
        sample = part[3]
        assert sample["image"].shape == (3, 32, 16)
        assert int(sample["label"]) == part.labels[3]
        assert int(sample["camera"]) == part.cameras[3]
        assert bool(sample["triplet"])
        assert int(sample["index"]) == 3
        assert part[3]["image"] is sample["image"]  # held, not read again
        assert int(Pictures(part.source, part.rows, part.labels)[0]["triplet"]) == 0

    def test_pictures_are_read_larger_by_enlarge(self, persons) -> None:
        assert opened(persons, size=(32, 16), enlarge=1.25).test[0]["image"].shape == (3, 40, 20)

    def test_other_data_is_scored_by_its_test_part_or_whole(self, market, tmp_path) -> None:
        spec = opened(market).spec
        scored = open_pictures(ReidOptions(data=str(market)), spec, as_test=True)
        assert len(scored.test) == 7
        options = ReidOptions(data=str(people(tmp_path / "p", 3, 4)))
        test = open_pictures(options, spec, as_test=True).test
        assert len(test) == 12
        assert sorted(set(test.labels.tolist())) == [1, 2, 3]  # nobody that was trained on


class TestGoal:
    @pytest.mark.parametrize(
        ("tested", "goal"), [(("a", "b"), "classes"), (("a",), "classes"), (("a", "z"), "search")]
    )
    def test_auto_goes_by_who_is_tested(self, tmp_path, tested, goal) -> None:
        fill(tmp_path, *(f"train/{name}/{k}.jpg" for name in "abc" for k in range(3)))
        fill(tmp_path, *(f"test/{name}/0.jpg" for name in tested))
        pictures = read_picture_set(tmp_path)
        assert goal_of(ReidOptions(), pictures) == goal
        assert goal_of(ReidOptions(goal="search"), pictures) == "search"
        assert goal_of(ReidOptions(goal="classes"), pictures) == "classes"
        assert goal_of(ReidOptions(model="cca"), pictures) == "search"

    def test_without_parts_it_is_a_search(self, tmp_path) -> None:
        assert goal_of(ReidOptions(), read_picture_set(people(tmp_path))) == "search"

    def test_fine_grained_sets_are_classes(self, tmp_path) -> None:
        pictures = read_picture_set(people(tmp_path))
        for layout in ("cub200", "cars", "aircraft"):
            object.__setattr__(pictures, "layout", layout)
            assert goal_of(ReidOptions(), pictures) == "classes"


def table(folder: Path, count: int = 40) -> Path:
    fill(folder, *(f"{k}.jpg" for k in range(count)))
    lines = ["image,identity,camera,colour,kind"]
    for k in range(count):
        lines.append(f"{k}.jpg,i{k % 10},c{k % 2},{['red', 'blue', ''][k % 3]},{'cart'[k % 4]}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


class TestAttributes:
    def test_a_sample_for_each_attribute_that_is_known(self, tmp_path) -> None:
        splits = opened(table(tmp_path), model="cca", per_identity=2, batch_size=8)
        assert splits.spec.attributes == ["colour", "kind"]
        assert splits.spec.goal == "search"
        value_of: dict[int, tuple[str, str]] = {}
        count = 0
        for part in (splits.train, splits.validation, splits.test):
            for row, label, condition in zip(part.rows, part.labels, part.conditions):
                name = splits.spec.attributes[condition]
                value = part.source.pictures.attributes[name][row]
                assert value is not None
                assert value_of.setdefault(int(label), (name, value)) == (name, value)
                count += 1
        assert count == 40 + sum(k % 3 < 2 for k in range(40))
        assert sorted(value_of) == list(range(1, 7))  # 0 and -1 would count as nobody
        assert len(set(value_of.values())) == 6
        assert splits.test.cameras is None

    def test_batches_are_of_one_condition_each(self, tmp_path) -> None:
        train = opened(table(tmp_path), model="cca", per_identity=2, batch_size=4).train
        batches = train.batches(4, seed=1, epoch=0)
        assert len(batches) == train.steps(4)
        conditions = [set(train.conditions[batch.ravel()].tolist()) for batch in batches]
        assert all(len(of_batch) == 1 for of_batch in conditions)
        assert set.union(*conditions) == {0, 1}
        assert (
            len({min(of_batch) for of_batch in conditions[: len(conditions) // 2]}) == 2
        )  # mixed, not one after the other
        again = train.batches(4, seed=1, epoch=0)
        assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
        next_epoch = train.batches(4, seed=1, epoch=1)
        assert any(
            a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(batches, next_epoch)
        )

    def test_some_attributes(self, tmp_path) -> None:
        splits = opened(
            table(tmp_path), model="cca", attributes=("kind",), per_identity=2, batch_size=8
        )
        assert splits.spec.attributes == ["kind"]
        assert len(splits.train) + len(splits.validation) + len(splits.test) == 40

    @pytest.mark.parametrize(
        ("options", "unused", "unit"),
        [
            ({}, ["colour", "kind"], "identities"),
            ({"goal": "classes"}, ["colour", "kind"], "pictures of each class"),
            ({"model": "cca", "attributes": ("kind",)}, ["colour"], "pictures"),
        ],
    )
    def test_columns_that_are_not_used_and_what_parts_are_shares_of_are_in_the_account(
        self, tmp_path, options, unused, unit
    ) -> None:
        path = table(tmp_path)
        with account.opened() as notes:
            opened(path, per_identity=2, batch_size=8, validation_share=0.4, **options)
        assert statements(notes, "columns") == {("columns", "not used"): (len(unused), unused)}
        for part in ("validation", "test"):
            what = f"the {part} part is a share of the {unit}; exact copies stay together"
            assert statements(notes, "groups")["groups", what] == (0, [])


class TestMistakes:
    def failed(self, data: Path, **options) -> str:
        with pytest.raises(InputError) as caught:
            opened(data, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_parts_that_are_missing(self, tmp_path) -> None:
        people(tmp_path / "a", 4, 2, "train/")
        assert "has no pictures to test by; name them test, or query and gallery" in self.failed(
            tmp_path / "a"
        )
        people(tmp_path / "b", 4, 2, "query/")
        people(tmp_path / "b", 4, 2, "gallery/")
        assert "has no pictures to train on; `evaluate --data` scores such a set" in self.failed(
            tmp_path / "b"
        )
        people(tmp_path / "c", 4, 2)
        assert "has no test part, and --test-share 0.0 leaves none" in self.failed(
            tmp_path / "c", test_share=0.0
        )

    def test_too_few_identities(self, tmp_path) -> None:
        people(tmp_path / "a", 2, 4)
        assert "2 identities are too few to set a share of them aside" in self.failed(
            tmp_path / "a"
        )
        fill(tmp_path / "b", "train/x/0.jpg", "train/x/1.jpg", "test/x/0.jpg")
        message = self.failed(tmp_path / "b", validation_share=0.0)
        assert "1 identity in the training part; learning needs two" in message
        fill(tmp_path / "c", *(f"train/{name}/0.jpg" for name in "ab"), "test/a/0.jpg")
        assert "--validation-share 0.15 leaves none of it; raise it, or give 0" in self.failed(
            tmp_path / "c"
        )

    def test_classes_that_the_model_does_not_know(self, tmp_path) -> None:
        fill(
            tmp_path,
            *(f"train/{name}/{k}.jpg" for name in ("cat", "dog") for k in range(9)),
            "test/cats/0.jpg",
        )
        assert "class 'cats' is none of the model's; did you mean 'cat'" in self.failed(
            tmp_path, goal="classes"
        )

    def test_batches_that_are_no_whole_identities(self, tmp_path) -> None:
        people(tmp_path, 6, 4)
        assert "--batch-size 10: must be a multiple of --per-identity 4" in self.failed(
            tmp_path, batch_size=10
        )

    def test_attributes_that_are_not_there(self, tmp_path) -> None:
        assert "'colr'" in self.failed(table(tmp_path / "t"), model="cca", attributes=("colr",))
        assert "has no attributes" in self.failed(people(tmp_path / "p"), model="cca")
