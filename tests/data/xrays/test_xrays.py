"""Chest X-rays in every layout; what does not fit is one line."""

import os

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.files import list_xrays
from headwise.data.xrays.xrays import read_row, read_xray, read_xray_set, two_sizes
from headwise.tests.picture_files import write_deep_png, write_deep_tiff


def save(path, seed=0, side=(10, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, side, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_folders_are_classes_and_parts(tmp_path):
    for k, name in enumerate(
        ("train/normal/a.png", "train/ill/b.png", "test/normal/c.png", "test/ill/d.png")
    ):
        save(tmp_path / name, k)
    xrays = read_xray_set(tmp_path)
    assert xrays.layout == "classes"
    assert sorted(zip(xrays.names, xrays.labels, xrays.parts))[0] == (
        "test/ill/d.png",
        "ill",
        "test",
    )
    assert len(xrays.rows("train")) == 2
    assert len(set(xrays.patients)) == 4
    assert set(read_xray_set(tmp_path, classes=["ill"]).labels) == {"ill"}
    with pytest.raises(InputError, match=r"has no class 'il'.*did you mean 'ill'"):
        read_xray_set(tmp_path, classes=["il"])
    save(tmp_path / "loose.png")
    with pytest.raises(InputError, match=r"'loose\.png' lies in no folder of a class"):
        read_xray_set(tmp_path)


def test_a_table_is_read(tmp_path):
    for k in range(3):
        save(tmp_path / "pictures" / f"{k}.png", k)
    table = tmp_path / "t.csv"
    table.write_text(
        "file,label,patient_id,view,source,split\npictures/0.png,ill,p1,AP,X,train\n"
        "pictures/1.png,well,p1,PA,Y,val\npictures/2.png,ill,,,,\n"
    )
    xrays = read_xray_set(table)
    assert xrays.labels == ["ill", "well", "ill"]
    assert xrays.patients == ["p1", "p1", "picture 3"]
    assert xrays.views == ["AP", "PA", ""]
    assert xrays.sources == ["X", "Y", ""]
    assert xrays.parts == ["train", "validation", ""]
    for text, message in [
        ("file,label\npictures/9.png,ill\n", "there is no picture"),
        ("file,label\npictures/0.png,\n", "is empty"),
        ("label\nill\n", "image"),
        ("file\npictures/0.png\n", "label"),
        ("file,label\n../t.csv,ill\n", "leads out"),
        ("file,label,part\npictures/0.png,ill,later\n", "'later' is none of"),
        ("file,label,split,fold\npictures/0.png,ill,test,test\n", "could both be the part"),
    ]:
        table.write_text(text)
        with pytest.raises(InputError, match=message) as error:
            read_xray_set(table)
        assert "\n" not in str(error.value)


def test_lists_of_covidx_are_read(tmp_path):
    save(tmp_path / "train" / "a b.png")
    save(tmp_path / "test" / "c.png")
    (tmp_path / "train_COVIDx8B.txt").write_text("7 a b.png positive cohen\n\n")
    (tmp_path / "test_COVIDx8B.txt").write_text("ricord-1 c.png negative ricord\n")
    xrays = read_xray_set(tmp_path)
    rows = sorted(zip(xrays.names, xrays.labels, xrays.sources, xrays.patients, xrays.parts))
    assert rows == [
        ("test/c.png", "negative", "ricord", "ricord-1", "test"),
        ("train/a b.png", "positive", "cohen", "7", "train"),
    ]
    alone = read_xray_set(tmp_path / "test_COVIDx8B.txt")
    assert alone.names == ["test/c.png"]
    (tmp_path / "test_COVIDx8B.txt").write_text("c.png negative\n")
    with pytest.raises(InputError, match=r"line 1: 'c\.png negative' is not"):
        read_xray_set(tmp_path)


def test_medmnist_is_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for word, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{word}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{word}_labels"] = rng.integers(0, 2, (count, 1), dtype=np.uint8)
    path = tmp_path / "pneumoniamnist.npz"
    np.savez_compressed(path, **arrays)
    xrays = read_xray_set(path)
    assert len(xrays) == 10
    assert set(xrays.labels) <= {"normal", "pneumonia"}
    row = int(xrays.rows("test")[1])
    np.testing.assert_allclose(
        read_row(xrays, row), arrays["test_images"][1] / np.float32(255), atol=1e-7
    )
    for name, wrong, message in [
        ("train_images", arrays["train_images"].astype(np.float32), "needs uint8"),
        ("val_labels", np.zeros((2, 3), np.uint8), "3 labels a picture"),
        ("test_labels", np.array([object()]), "cannot be read"),
        ("test_images", None, "has no array"),
    ]:
        altered = {k: v for k, v in {**arrays, name: wrong}.items() if v is not None}
        np.savez(path, **altered)
        with pytest.raises(InputError, match=message):
            read_xray_set(path)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"is no \.npz"):
        read_xray_set(path)


def medmnist(path, shape=(), seed=0, counts=(6, 3, 4)):
    """A file of MedMNIST whose pictures differ, and its arrays."""
    rng, arrays = np.random.default_rng(seed), {}
    for word, count in zip(("train", "val", "test"), counts):
        arrays[f"{word}_images"] = rng.integers(0, 256, (count, 28, 28, *shape), dtype=np.uint8)
        arrays[f"{word}_labels"] = rng.permutation(np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("name", ["pneumoniamnist", "breastmnist_128", "other"])
def test_labels_of_medmnist_stay_with_their_pictures(tmp_path, name, shape):
    """In all parts and also of some rows; colours are averaged; class numbers have the names of the
    set.
    """
    names = {
        "pneumoniamnist": ["normal", "pneumonia"],
        "breastmnist_128": ["malignant", "normal or benign"],
    }
    words = names.get(name, ["0", "1"])
    path = tmp_path / f"{name}.npz"
    arrays = medmnist(path, shape)
    for classes in (words, words[::-1], words[1:]):
        xrays = read_xray_set(path, classes=classes)
        expected = [
            (part, words[label], image)
            for part, word in (("train", "train"), ("validation", "val"), ("test", "test"))
            for image, label in zip(arrays[f"{word}_images"], arrays[f"{word}_labels"][:, 0])
            if words[label] in classes
        ]
        assert len(xrays) == len(expected)
        assert [xrays.rows(part).size for part in ("train", "validation", "test")] == [
            sum(truth[0] == part for truth in expected) for part in ("train", "validation", "test")
        ]
        for row in np.random.default_rng(1).permutation(len(expected)):
            part, label, image = expected[row]
            assert (xrays.parts[row], xrays.labels[row]) == (part, label)
            grey = image.astype(float) if not shape else image.mean(2)
            np.testing.assert_allclose(read_row(xrays, row), grey / 255, atol=1e-6)


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    """And two files, whose arrays are named alike, are never mistaken for one another."""
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    arrays = {path: medmnist(path, seed=seed) for seed, path in enumerate((first, second))}
    for row, path in ((2, first), (2, second), (1, first), (7, second), (7, first)):
        word, place = ("train", row) if row < 6 else ("val", row - 6)
        picture = read_row(read_xray_set(path), row)
        np.testing.assert_allclose(picture, arrays[path][f"{word}_images"][place] / 255, atol=1e-6)
    changed = medmnist(first, seed=9)
    os.utime(first, (1, 1))
    np.testing.assert_allclose(
        read_row(read_xray_set(first), 0), changed["train_images"][0] / 255, atol=1e-6
    )


def test_labels_of_tables_and_lists_stay_with_their_pictures(tmp_path):
    """Whatever the order of the rows; parts, patients, views and sources with them; none is
    lost.
    """
    order = np.random.default_rng(3).permutation(12)
    pixels = [save(tmp_path / "p" / f"{k}.png", k) for k in range(12)]
    parts = ("train", "validation", "test")
    rows = [
        (f"p/{k}.png", f"l{k % 3}", f"patient{k}", ("PA", "AP")[k % 2], f"s{k % 4}", parts[k % 3])
        for k in order
    ]
    lines = ["image,label,patient,view,source,part", *(",".join(row) for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    all_rows = read_xray_set(tmp_path)
    some = read_xray_set(tmp_path, classes=["l2", "l0"])
    assert (len(all_rows), len(some)) == (12, 8)
    for xrays in (all_rows, some, all_rows.of([5, 0, 3])):
        for row, name in enumerate(xrays.names):
            k = int(name.split("/")[1].split(".")[0])
            np.testing.assert_allclose(read_row(xrays, row), pixels[k] / 255, atol=1e-6)
            columns = (xrays.labels, xrays.patients, xrays.views, xrays.sources, xrays.parts)
            expected = (f"l{k % 3}", f"patient{k}", ("PA", "AP")[k % 2], f"s{k % 4}", parts[k % 3])
            assert tuple(values[row] for values in columns) == expected


def test_pictures_of_every_kind_become_grey(tmp_path):
    deep = np.arange(120, dtype=np.uint16).reshape(10, 12) * 500
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(
        read_xray(tmp_path / "deep.png"), deep / np.float32(65535), atol=1e-7
    )
    grey = save(tmp_path / "a.png")
    np.testing.assert_allclose(read_xray(tmp_path / "a.png"), grey / np.float32(255), atol=1e-7)
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "b.png")
    np.testing.assert_allclose(read_xray(tmp_path / "b.png"), grey / np.float32(255), atol=1e-2)
    Image.fromarray(np.dstack([grey] * 3 + [np.zeros_like(grey)])).save(tmp_path / "c.png")
    assert (read_xray(tmp_path / "c.png") == 0).all()
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(InputError, match="holds fractions"):
        read_xray(tmp_path / "d.tif")
    picture, small = two_sizes(read_xray(tmp_path / "a.png"), (32, 64), (16, 16))
    assert picture.shape == (1, 32, 64)
    assert small.shape == (1, 16, 16)
    assert [name for _, name in list_xrays(tmp_path)] == [
        "a.png",
        "b.png",
        "c.png",
        "d.tif",
        "deep.png",
    ]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_are_scaled_by_what_the_values_need(tmp_path, bits):
    values = np.linspace(0, 2**bits - 1, 90).reshape(9, 10).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    with opened() as account:
        pixels = read_xray(tmp_path / "a.png")
    np.testing.assert_allclose(pixels, values / (2**bits - 1), atol=1e-6)
    assert any(f"need only {bits}" in line for line in account.lines()) == (bits < 16)


def test_a_marker_in_sixteen_bits_is_cut_off(tmp_path):
    values = np.linspace(0, 4095, 900).reshape(30, 30).astype(np.uint16)
    values[0, :3] = 65535
    Image.fromarray(values).save(tmp_path / "a.png")
    with opened() as account:
        pixels = read_xray(tmp_path / "a.png")
    np.testing.assert_allclose(pixels[1:], values[1:] / 4095, atol=1e-6)
    assert (pixels[0, :3] == 1).all()
    assert any("burnt-in markers" in line for line in account.lines())


@pytest.mark.real_data
def test_real_sets_are_read(real_data):
    xrays = read_xray_set(real_data / "medical" / "talo_covid_cxr_480" / "metadata.csv")
    assert len(xrays) == 1124
    assert set(xrays.labels) == {"Covid-19", "No_findings", "Pneumonia"}
    assert len(set(xrays.views)) == 3
    mnist = read_xray_set(real_data / "medical" / "medmnist" / "pneumoniamnist.npz")
    assert [len(mnist.rows(part)) for part in ("train", "validation", "test")] == [4708, 524, 624]


def test_sixteen_bits_in_colour_and_with_white_as_zero_are_as_those_in_grey(tmp_path):
    values = np.linspace(0, 4095, 90).reshape(9, 10).astype(np.uint16)
    colour = write_deep_png(tmp_path / "a.png", np.dstack([values] * 3))
    np.testing.assert_allclose(read_xray(colour), values / 4095, atol=1e-6)
    inverse = write_deep_tiff(tmp_path / "b.tif", 4095 - values, white_is_zero=True)
    np.testing.assert_allclose(read_xray(inverse), values / 4095, atol=1e-6)


def test_folders_of_classes_that_look_alike_are_said_and_composed_letters_joined(tmp_path):
    for k, name in enumerate(("Sick/a", "sick/b", "fi\u00e8vre/c", "fie\u0300vre/d")):
        save(tmp_path / f"{name}.png", k)
    with opened() as account:
        xrays = read_xray_set(tmp_path)
    assert set(xrays.labels) == {"Sick", "sick", "fi\u00e8vre"}
    said = "; ".join(account.lines())
    assert "the classes 'Sick' and 'sick' differ by case only" in said
    assert r"folders 'fie\u0300vre' and 'fi\xe8vre' are one class" in said


def test_folders_that_are_called_like_no_part_are_named(tmp_path):
    for k, name in enumerate(("train/ill/a", "train/well/b", "eval/ill/c")):
        save(tmp_path / f"{name}.png", k)
    with opened() as account:
        read_xray_set(tmp_path)
    called = "1 folders that are called like no part, beside those of parts (eval)"
    assert f"items: {called}" in account.lines()
