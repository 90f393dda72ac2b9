"""Feature files of other tools and of strangers: places, sides of tiles, and what is refused."""

import os
import zipfile

import numpy as np
import pytest
import torch

pytest.importorskip("h5py", reason="h5py is optional (extra wsi) and not installed")

import h5py

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.slides.features import most_frequent_gap, read_features


def grid(side: int, columns: int, rows: int, corner: tuple[int, int]) -> np.ndarray:
    return np.array([(x, y) for y in range(rows) for x in range(columns)]) * side + corner


class TestPlaces:
    def test_clam_has_a_grid_of_its_own_for_each_contour(self, tmp_path) -> None:
        """Two grids with other beginnings: the least distance of any two tiles says nothing."""
        places = np.concatenate(
            [grid(1024, 4, 3, (100, 200)), grid(1024, 3, 3, (10_137, 245)), [[4321, 4567]]]
        )
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file["features"], file["coords"] = np.ones((len(places), 4)), places
        with opened() as account:
            assert read_features(tmp_path / "s.h5").extent == 1024
        assert "s.h5: 1024" in account.lines()[0]

    def test_the_most_frequent_distance_is_that_of_neighbours(self) -> None:
        sparse = grid(512, 9, 9, (3, 4))[np.random.default_rng(0).random(81) < 0.5]
        assert most_frequent_gap(sparse) == 512
        assert most_frequent_gap(np.random.default_rng(0).integers(0, 10**6, (50, 2))) == 0
        assert most_frequent_gap(np.zeros((7, 2), np.int64)) == 0
        assert most_frequent_gap(np.array([[5, 5]])) == 0

    def test_a_side_that_nothing_tells_is_not_known_and_that_is_noted(self, tmp_path) -> None:
        with h5py.File(tmp_path / "one.h5", "w") as file:
            file["features"], file["coords"] = np.ones((1, 4)), np.zeros((1, 2), int)
        with opened() as account:
            stored = read_features(tmp_path / "one.h5")
        assert (stored.extent, stored.has_places, stored.can_be_drawn) == (0, True, False)
        assert "heatmaps of files whose tiles have an unknown side (one.h5)" in account.lines()[0]

    def test_features_without_places_have_none(self, tmp_path) -> None:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["features"] = np.ones((3, 4))
        torch.save(torch.full((3, 4), 2.0), tmp_path / "b.pt")
        torch.save(torch.full((1, 3, 4), 3.0, dtype=torch.float16), tmp_path / "c.pt")
        for name, value in (("a.h5", 1), ("b.pt", 2), ("c.pt", 3)):
            stored = read_features(tmp_path / name)
            assert (stored.features == value).all()
            assert (stored.features.shape, stored.features.dtype) == ((3, 4), np.float32)
            assert not stored.has_places
            assert not stored.can_be_drawn


def _external(file) -> None:
    file["features"] = h5py.ExternalLink("other.h5", "features")


def _soft(file) -> None:
    file["there"] = h5py.ExternalLink("other.h5", "/")
    file["features"] = h5py.SoftLink("/there/features")


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", (3, 2))
    file.create_virtual_dataset("features", layout)


def _raw(file) -> None:
    file.create_dataset("features", (4, 4), "u1", external=[("letter.txt", 0, 16)])


def _pipe(file) -> None:
    file["features"] = h5py.ExternalLink("pipe", "features")


def _group_elsewhere(file) -> None:
    file["hostile"] = h5py.ExternalLink("other.h5", "/")


def _many_places(file) -> None:
    file["features"] = np.ones((3, 2), np.float32)
    file.create_dataset("coords", (10**12, 2), "i8", chunks=(1000, 2))


def _nothing_stored(file) -> None:
    file.create_dataset("features", (10**6, 1000), "f4", chunks=(1000, 100))


def _packed_zeros(file) -> None:
    zeros = np.zeros((20_000, 1000), np.float32)
    file.create_dataset("features", data=zeros, compression="gzip", compression_opts=9)


def _too_many(file) -> None:
    file.create_dataset("features", (10**9, 1000), "f4", chunks=(1000, 100))


def _no_tiles(file) -> None:
    file["features"], file["coords"] = np.zeros((0, 4), np.float32), np.zeros((0, 2), int)


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("write", "message"),
        [
            (_external, "'features' is a link"),
            (_soft, "'features' is a link"),
            (_pipe, "'features' is a link"),
            (_group_elsewhere, "'hostile' is a link"),
            (_virtual, "takes its values from other files"),
            (_raw, "takes its values from other files"),
            (_many_places, "do not fit"),
            (_nothing_stored, "names 4,000,000,000 bytes, but the file holds 0"),
            (_packed_zeros, "names 80,000,000 bytes"),
            (_too_many, "more than a slide can have"),
            (_no_tiles, "holds no tiles"),
        ],
    )
    def test_a_file_that_leads_elsewhere_or_holds_less_than_it_names_has_one_line(
        self, tmp_path, monkeypatch, write, message: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "letter.txt").write_text("the bytes of some other file")
        os.mkfifo(tmp_path / "pipe")
        with h5py.File("other.h5", "w") as file:
            file["features"] = np.ones((3, 2), np.float32)
        with h5py.File("hostile.h5", "w") as file:
            write(file)
        with pytest.raises(InputError, match=message) as caught:
            read_features("hostile.h5", slide="hostile")
        assert "\n" not in str(caught.value)

    def test_a_tensor_that_is_none_or_holds_less_than_it_names_has_one_line(self, tmp_path) -> None:
        torch.save(torch.ones(1, 1).expand(10**6, 10**5), tmp_path / "wide.pt")
        torch.save({"a": 1}, tmp_path / "words.pt")
        torch.save(torch.ones(2, 2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        torch.save(torch.ones(2, 2), tmp_path / "sound.pt")
        with (
            zipfile.ZipFile(tmp_path / "sound.pt") as sound,
            zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in sound.namelist():
                packed.writestr(name, sound.read(name))
        messages = {
            "wide": "more than it holds",
            "words": "holds no tensor",
            "old": "no tensor of PyTorch 1.6",
            "packed": "is packed",
        }
        for name, message in messages.items():
            with pytest.raises(InputError, match=message):
                read_features(tmp_path / f"{name}.pt")
