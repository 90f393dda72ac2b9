"""Search in a gallery: exact against a stable sort, FAISS against exact, vectors that must not be
mixed.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines.metrics.open_set import Nearest
from headwise.pipelines.reid import TASK
from headwise.pipelines.reid.answers import Answering
from headwise.pipelines.reid.options import SearchOptions
from headwise.pipelines.reid.pipeline import ReidPipeline
from headwise.pipelines.reid.verbs import search as searching
from headwise.pipelines.reid.verbs.search import Embedded, exact
from headwise.tests.statements import statements


def unit(count: int, width: int = 5, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def search_options(**values) -> SearchOptions:
    return SearchOptions(run="r", query="q", gallery="g", output="o", **values)


def embedded(vectors: np.ndarray) -> Embedded:
    names = [f"{k}.jpg" for k in range(len(vectors))]
    return Embedded(names, names, vectors, 0)


@pytest.mark.parametrize("role", ["query", "gallery"])
def test_vectors_that_are_searched_are_not_replaced(tmp_path: Path, role: str) -> None:
    vectors = tmp_path / "vectors.parquet"
    vectors.write_bytes(b"mine")
    values = {"query": "q", "gallery": "g", role: str(vectors)}
    options = SearchOptions(run="r", output=str(vectors), overwrite=True, **values)
    with pytest.raises(InputError, match=r"--output .*vectors\.parquet: is read by this command"):
        searching.search(ReidPipeline(TASK), options)
    assert vectors.read_bytes() == b"mine"


class TestFitting:
    ANSWERING = Answering(0.5, 1.0, 0.0, Nearest(*(np.zeros(0) for _ in range(3))), 9, 5)

    def test_vectors_of_other_heads_have_no_answers_and_it_is_said(self) -> None:
        with opened() as account:
            assert searching._fitting(search_options(), self.ANSWERING, 5) is self.ANSWERING
            assert not account.lines()
            assert searching._fitting(search_options(), self.ANSWERING, 7) is None
        assert any("no answers: vectors of 7 numbers" in line for line in account.lines())

    def test_a_share_that_was_asked_for_is_refused_with_them(self) -> None:
        with pytest.raises(InputError, match="--false-match: vectors of 7 numbers"):
            searching._fitting(search_options(false_match=0.1), self.ANSWERING, 7)


class TestExact:
    @pytest.mark.parametrize("block", [1 << 25, 40, 1])
    @pytest.mark.parametrize("k", [1, 3, 23])
    def test_it_is_a_stable_sort_in_blocks_of_any_size(
        self, monkeypatch, block: int, k: int
    ) -> None:
        monkeypatch.setattr(searching, "BLOCK_NUMBERS", block)
        query, gallery = unit(4), unit(23, seed=1)
        score, place = exact(query, gallery, k)
        similarity = query.astype(np.float64) @ gallery.T
        np.testing.assert_array_equal(place, np.argsort(-similarity, axis=1, kind="stable")[:, :k])
        np.testing.assert_allclose(score, -np.sort(-similarity, axis=1)[:, :k], atol=1e-6)

    @pytest.mark.parametrize("block", [1 << 25, 10, 1])
    def test_the_first_of_equal_pictures_comes_first(self, monkeypatch, block: int) -> None:
        monkeypatch.setattr(searching, "BLOCK_NUMBERS", block)
        gallery = np.eye(3, dtype=np.float32)[[1, 0, 2, 0, 1, 0, 2, 2, 0]]
        query = np.eye(3, dtype=np.float32)[[0, 2]]
        similarity = query @ gallery.T
        for k in (2, 5, 9):
            np.testing.assert_array_equal(
                exact(query, gallery, k)[1], np.argsort(-similarity, 1, kind="stable")[:, :k]
            )

    def test_no_query(self) -> None:
        score, place = exact(unit(3)[:0], unit(6), 2)
        assert score.shape == place.shape == (0, 2)


class TestNearest:
    def test_faiss_flat_is_exact(self) -> None:
        pytest.importorskip("faiss", reason="FAISS is optional (extra search) and not installed")
        query, gallery = unit(6, 8), unit(200, 8, 1)
        options = search_options(faiss="Flat")
        score, place = searching._nearest(embedded(query), embedded(gallery), 7, options)
        expected = exact(query, gallery, 7)
        np.testing.assert_array_equal(place, expected[1])
        np.testing.assert_allclose(score, expected[0], atol=1e-6)
        options = search_options(faiss="HNSW16")
        near = searching._nearest(embedded(query), embedded(gallery), 7, options)[1]
        assert np.mean([len(set(a) & set(b)) for a, b in zip(near, expected[1])]) > 6

    def test_faiss_that_cannot_be_is_one_line(self) -> None:
        pytest.importorskip("faiss", reason="FAISS is optional (extra search) and not installed")
        for kind, message in (
            ("Flatt", "makes no such index of 20"),
            ("IVF64,Flat", "makes no such index of 20"),
        ):
            with pytest.raises(InputError, match=message) as caught:
                searching._search_by_faiss(unit(2), unit(20, seed=1), 3, kind)
            assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="finds fewer than 20 pictures"):
            searching._search_by_faiss(unit(2), unit(20, seed=1), 20, "IVF4,Flat")

    def test_without_faiss_the_extra_is_named(self, monkeypatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "faiss", None)
        with pytest.raises(InputError, match=r"pip install .*\[search\]'"):
            searching._search_by_faiss(unit(2), unit(5), 1, "Flat")

    def test_re_ranking_orders_by_its_distance(self, monkeypatch) -> None:
        from headwise.pipelines.metrics.reranking import rerank

        query, gallery = unit(5), unit(40, seed=2)
        options = search_options(rerank=True)
        score, place = searching._nearest(embedded(query), embedded(gallery), 6, options)
        distance = rerank(query, gallery)
        np.testing.assert_array_equal(place, np.argsort(distance, axis=1, kind="stable")[:, :6])
        np.testing.assert_allclose(score, 1 - np.sort(distance, axis=1)[:, :6], atol=1e-6)
        monkeypatch.setattr(searching, "MOST_RERANKED", 44)
        with pytest.raises(
            InputError, match="compares all with all, and 45 pictures are more than 44"
        ):
            searching._nearest(embedded(query), embedded(gallery), 6, options)


def stored(path: Path, **columns) -> Path:
    defaults = {
        "item": ["a.jpg", "b.jpg", "c.jpg"],
        "file": ["/p/a.jpg", "/p/b.jpg", "/p/c.jpg"],
        "status": ["ok", "error", "ok"],
        "vector": [[1.0, 0.0], None, [0.0, 1.0]],
        "model": ["m1", None, "m1"],
    }
    table = pl.DataFrame({**defaults, **columns}, strict=False)
    table.drop([name for name in table.columns if table[name].dtype == pl.Null]).write_parquet(path)
    return path


class TestStored:
    def test_what_embed_wrote(self, tmp_path) -> None:
        stored_vectors = searching._stored(stored(tmp_path / "v[1].parquet"), "vector", "m1")
        assert stored_vectors is not None
        assert (stored_vectors.items, stored_vectors.files, stored_vectors.failed) == (
            ["a.jpg", "c.jpg"],
            ["/p/a.jpg", "/p/c.jpg"],
            1,
        )
        np.testing.assert_array_equal(stored_vectors.vectors, np.eye(2, dtype=np.float32))
        assert stored_vectors.vectors.dtype == np.float32

    def test_a_table_of_something_else_is_no_gallery(self, tmp_path) -> None:
        pl.DataFrame({"image": ["a.jpg"]}).write_parquet(tmp_path / "t.parquet")
        assert searching._stored(tmp_path / "t.parquet", "vector", "m1") is None

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (
                {"model": ["m1", None, "m2"]},
                "vectors are of the model m2, the run is m1; embed them with this run",
            ),
            ({"vector": [[1.0, 0.0], None, [1.0]]}, "vectors have several lengths"),
            ({"status": ["error"] * 3}, "holds no picture that could be read"),
        ],
    )
    def test_what_must_not_be_mixed(self, tmp_path, columns, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            searching._stored(stored(tmp_path / "v.parquet", **columns), "vector", "m1")
        assert str(tmp_path / "v.parquet") in str(caught.value)

    def test_other_columns_and_no_parquet(self, tmp_path) -> None:
        with pytest.raises(
            InputError, match="holds no column 'vector_colour'; it was made by another run"
        ):
            searching._stored(stored(tmp_path / "v.parquet"), "vector_colour", "m1")
        (tmp_path / "bad.parquet").write_text("no")
        with pytest.raises(InputError, match="cannot be read as parquet"):
            searching._stored(tmp_path / "bad.parquet", "vector", "m1")

    def test_vectors_that_are_read_are_counted_in_the_account(self, tmp_path) -> None:
        path = stored(tmp_path / "v.parquet")
        with opened() as account:
            embedded = searching._embedded(refuse_to_embed, str(path), "vector", "m1")
        count = len(embedded.items)
        assert count > 1
        assert statements(account) == {("read", "vectors"): (count, [])}


def refuse_to_embed(pictures: str) -> pl.DataFrame:
    raise AssertionError(f"{pictures} is embedded again")
