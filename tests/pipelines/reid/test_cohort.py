"""Sets of pictures as data sets: parts, labels, what is searched for, samples of attributes,
mistakes.
"""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.errors import InputError
from headwise.data.persons.persons import read_picture_set
from headwise.pipelines.reid.data import IdentityPictures, Pictures, goal_of, open_splits
from headwise.pipelines.reid.options import ReidOptions


def fill(folder: Path, *names: str) -> Path:
    """Files of one byte: parting opens no picture."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def people(root: Path, count: int = 20, each: int = 5, under: str = "") -> Path:
    return fill(root, *(f"{under}p{one:02d}/{k}.jpg" for one in range(count) for k in range(each)))


def opened(data: Path, **options):  # type: ignore[no-untyped-def]
    return open_splits(ReidOptions(data=str(data), **options), None, False)


def identities(part: Pictures) -> list[str]:
    return [part.source.pictures.identities[row] for row in part.rows]


class TestParts:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @pytest.mark.parametrize(("test", "validation"), [(0.3, 0.15), (0.5, 0.3), (0.05, 0.01)])
    def test_no_identity_is_in_two_parts_of_a_search(
        self, tmp_path, seed, test, validation
    ) -> None:
        found = opened(people(tmp_path), seed=seed, test_share=test, validation_share=validation)
        parts = [set(identities(part)) for part in (found.train, found.validation, found.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert len(set.union(*parts)) == 20
        assert sum(map(len, (found.train, found.validation, found.test))) == 100
        tested = max(1, round(20 * test))
        assert len(parts[2]) == tested
        assert len(parts[1]) == max(1, round((20 - tested) * validation))
        assert found.spec["goal"] == "search"
        assert found.spec["classes"] == sorted(parts[0])
        assert found.spec["parts"] == {
            "train": len(found.train),
            "validation": len(found.validation),
            "test": len(found.test),
        }

    def test_the_seed_alone_decides(self, tmp_path) -> None:
        people(tmp_path)
        first, again, other = (opened(tmp_path, seed=seed).test.rows.tolist() for seed in (1, 1, 2))
        assert first == again != other

    @pytest.mark.parametrize(("test", "validation"), [(0.3, 0.15), (0.2, 0.5)])
    def test_classes_are_shared_out_by_picture(self, tmp_path, test, validation) -> None:
        people(tmp_path, 4, 20)
        fill(tmp_path, "rare/0.jpg")
        found = opened(tmp_path, goal="classes", test_share=test, validation_share=validation)
        rows = np.concatenate([found.train.rows, found.validation.rows, found.test.rows])
        assert sorted(rows) == list(range(81))
        assert found.spec["classes"] == ["p00", "p01", "p02", "p03", "rare"]
        assert identities(found.train).count("rare") == 1
        for one in found.spec["classes"][:4]:
            tested = round(20 * test)
            assert identities(found.test).count(one) == tested
            assert identities(found.validation).count(one) == round((20 - tested) * validation)
        for part in (found.train, found.test):
            assert [found.spec["classes"][label] for label in part.labels] == identities(part)
        assert not isinstance(found.train, IdentityPictures)
        assert isinstance(opened(tmp_path, goal="classes", triplet="yes").train, IdentityPictures)

    def test_the_datas_own_parts_are_kept(self, tmp_path) -> None:
        people(tmp_path, 6, 3, "train/")
        people(tmp_path, 2, 2, "val/")
        fill(tmp_path, "query/q/0.jpg", "gallery/q/1.jpg", "gallery/r/0.jpg")
        found = opened(tmp_path)
        assert (len(found.train), len(found.validation), len(found.test)) == (18, 4, 3)
        assert found.test.ranked
        assert [found.test.names()[k] for k in found.test.query] == ["query/q/0.jpg"]
        assert len(found.test.gallery) == 2
        assert not found.validation.ranked

    def test_without_validation_all_is_trained_on(self, tmp_path) -> None:
        found = opened(people(tmp_path, 10), validation_share=0.0)
        assert (len(found.train), len(found.validation), len(found.test)) == (35, 0, 15)


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


class TestLabels:
    def test_junk_is_minus_1_distractors_are_0_and_others_are_people(self, market) -> None:
        test = opened(market).test
        said = dict(zip(identities(test), test.labels.tolist()))
        assert said.pop("-1") == -1
        assert said.pop("0000") == 0
        assert sorted(said) == ["0011", "0012", "0013"]
        assert len(set(said.values())) == 3
        assert min(said.values()) > 0
        assert (len(test.query), len(test.gallery)) == (3, 4)

    def test_junk_is_not_learned(self, market) -> None:
        found = opened(market)
        assert "-1" not in found.spec["classes"]
        assert "-1" not in identities(found.train) + identities(found.validation)
        assert [found.spec["classes"][label] for label in found.train.labels] == identities(
            found.train
        )

    def test_cameras(self, market, tmp_path) -> None:
        test = opened(market).test
        given = [test.source.pictures.cameras[row] for row in test.rows]
        assert test.cameras is not None
        assert len(set(zip(given, test.cameras.tolist()))) == len(set(given)) == 3
        found = opened(people(tmp_path / "p", 8))
        assert found.train.cameras is None
        assert found.spec["cameras"] is False

    def test_a_sample_says_all(self, persons) -> None:
        part = opened(persons, size=(32, 16)).train
        one = part[3]
        assert one["image"].shape == (3, 32, 16)
        assert int(one["label"]) == part.labels[3]
        assert int(one["camera"]) == part.cameras[3]
        assert bool(one["triplet"])
        assert int(one["index"]) == 3
        assert part[3]["image"] is one["image"]  # held, not read again
        assert int(Pictures(part.source, part.rows, part.labels)[0]["triplet"]) == 0

    def test_pictures_are_read_larger_by_enlarge(self, persons) -> None:
        assert opened(persons, size=(32, 16), enlarge=1.25).test[0]["image"].shape == (3, 40, 20)

    def test_other_data_is_scored_by_its_test_part_or_whole(self, market, tmp_path) -> None:
        spec = opened(market).spec
        whole = open_splits(ReidOptions(data=str(market)), spec, True)
        assert len(whole.test) == 7
        other = open_splits(ReidOptions(data=str(people(tmp_path / "p", 3, 4))), spec, True).test
        assert len(other) == 12
        assert sorted(set(other.labels.tolist())) == [1, 2, 3]  # nobody that was trained on


class TestGoal:
    @pytest.mark.parametrize(
        ("tested", "goal"), [(("a", "b"), "classes"), (("a",), "classes"), (("a", "z"), "search")]
    )
    def test_auto_goes_by_who_is_tested(self, tmp_path, tested, goal) -> None:
        fill(tmp_path, *(f"train/{one}/{k}.jpg" for one in "abc" for k in range(3)))
        fill(tmp_path, *(f"test/{one}/0.jpg" for one in tested))
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
        found = opened(table(tmp_path), model="cca", per_identity=2, batch_size=8)
        assert found.spec["attributes"] == ["colour", "kind"]
        assert found.spec["goal"] == "search"
        seen: dict[int, tuple[str, str]] = {}
        count = 0
        for part in (found.train, found.validation, found.test):
            for row, label, condition in zip(part.rows, part.labels, part.conditions):
                name = found.spec["attributes"][condition]
                value = part.source.pictures.attributes[name][row]
                assert value is not None
                assert seen.setdefault(int(label), (name, value)) == (name, value)
                count += 1
        assert count == 40 + sum(k % 3 < 2 for k in range(40))
        assert sorted(seen) == list(range(1, 7))  # 0 and -1 would count as nobody
        assert len(set(seen.values())) == 6
        assert found.test.cameras is None

    def test_batches_are_of_one_condition_each(self, tmp_path) -> None:
        train = opened(table(tmp_path), model="cca", per_identity=2, batch_size=4).train
        batches = train.batches(4, seed=1, epoch=0)
        assert len(batches) == train.steps(4)
        conditions = [set(train.conditions[batch.ravel()].tolist()) for batch in batches]
        assert all(len(one) == 1 for one in conditions)
        assert set.union(*conditions) == {0, 1}
        assert (
            len({min(one) for one in conditions[: len(conditions) // 2]}) == 2
        )  # mixed, not one after the other
        again = train.batches(4, seed=1, epoch=0)
        assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
        other = train.batches(4, seed=1, epoch=1)
        assert any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(batches, other))

    def test_some_attributes(self, tmp_path) -> None:
        found = opened(
            table(tmp_path), model="cca", attributes=("kind",), per_identity=2, batch_size=8
        )
        assert found.spec["attributes"] == ["kind"]
        assert len(found.train) + len(found.validation) + len(found.test) == 40


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
        assert "has no pictures to train on; `evaluate --data` scores such a folder" in self.failed(
            tmp_path / "b"
        )
        people(tmp_path / "c", 4, 2)
        assert "has no test part, and --test-share 0.0 leaves none" in self.failed(
            tmp_path / "c", test_share=0.0
        )

    def test_too_few_identities(self, tmp_path) -> None:
        people(tmp_path / "a", 2, 4)
        assert "2 identities are too few to keep a share of them apart" in self.failed(
            tmp_path / "a"
        )
        fill(tmp_path / "b", "train/x/0.jpg", "train/x/1.jpg", "test/x/0.jpg")
        said = self.failed(tmp_path / "b", validation_share=0.0)
        assert "1 identity in the training part; learning needs two" in said
        fill(tmp_path / "c", *(f"train/{one}/0.jpg" for one in "ab"), "test/a/0.jpg")
        assert "--validation-share 0.15 leaves nothing; raise it, or give 0" in self.failed(
            tmp_path / "c"
        )

    def test_classes_that_the_model_does_not_know(self, tmp_path) -> None:
        fill(
            tmp_path,
            *(f"train/{one}/{k}.jpg" for one in ("cat", "dog") for k in range(9)),
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
