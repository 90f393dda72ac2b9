"""Protocols of search against plain loops, what they say of cameras, baselines on colours."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from headwise.data.persons.persons import PictureSet
from headwise.pipelines.engine.pipeline import Calibration, Splits
from headwise.pipelines.engine.subsets import BoundedCache
from headwise.pipelines.reid import TASK, scoring
from headwise.pipelines.reid.data import ReidSpec
from headwise.pipelines.reid.options import ReidOptions
from headwise.pipelines.reid.pictures import Pictures, PictureSource
from headwise.pipelines.reid.pipeline import ReidPipeline
from headwise.pipelines.reid.protocol import protocol, search_all, search_part

PIPELINE = ReidPipeline(TASK)
OPTIONS = ReidOptions(seed=0, rerank=0, size=(8, 6))


def part_of(labels, cameras=None, parts=None, conditions=None) -> Pictures:
    """A data set of generated noise that lies in memory."""
    labels = np.asarray(labels)
    count = len(labels)
    names = [f"{k}.jpg" for k in range(count)]
    pictures = PictureSet(
        names,
        names,
        [str(label) for label in labels],
        None if cameras is None else [str(camera) for camera in cameras],
        list(parts or [""] * count),
        {},
        labels == -1,
        labels == 0,
        "table",
        "here",
    )
    source = PictureSource(pictures, (8, 6))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 6), dtype=torch.uint8, generator=generator)
    source.cache = BoundedCache(images.__getitem__)
    return Pictures(source, np.arange(count), labels, conditions)


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain(
    vectors, query, gallery, labels, cameras=None, conditions=None
) -> dict[int, tuple[float, int]]:
    """(average precision, rank of the first match) of each query that has a match, by the protocol
    of Market-1501.
    """
    scores = {}
    for q in query:
        candidates = []
        for g in gallery:
            if (
                g == q
                or labels[g] == -1
                or (conditions is not None and conditions[g] != conditions[q])
            ):
                continue
            if cameras is not None and labels[g] == labels[q] and cameras[g] == cameras[q]:
                continue
            candidates.append((-float(vectors[q] @ vectors[g]), g))
        right = [labels[g] == labels[q] and labels[q] > 0 for _, g in sorted(candidates)]
        if any(right):
            precision = [sum(right[: k + 1]) / (k + 1) for k in range(len(right)) if right[k]]
            scores[q] = (sum(precision) / len(precision), right.index(True) + 1)
    return scores


def check(scored, expected: dict[int, tuple[float, int]], query) -> None:
    assert scored.queries == len(expected)
    assert scored.skipped == len(query) - len(expected)
    for place, q in enumerate(query):
        if q in expected:
            assert scored.ap[place] == pytest.approx(expected[q][0], abs=1e-6)
            assert scored.first_rank[place] == expected[q][1]
        else:
            assert np.isnan(scored.ap[place])
    assert scored.mean_ap == pytest.approx(np.mean([ap for ap, _ in expected.values()]), abs=1e-6)
    assert scored.cmc[0] == pytest.approx(np.mean([first == 1 for _, first in expected.values()]))


LABELS = np.array([1, 1, 2, 2, 3, 0, -1, 1, 2, 2, 0, -1, 3, 4])
CAMERAS = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1, 2, 1, 1, 0, 0])
PARTS = ["query"] * 5 + ["gallery"] * 9


class TestSearch:
    @pytest.mark.parametrize("seed", range(3))
    def test_queries_against_the_gallery(self, seed: int) -> None:
        vectors, query, gallery = unit(14, seed), list(range(5)), list(range(5, 14))
        for cameras in (None, CAMERAS):
            part = part_of(LABELS, cameras, PARTS)
            searched = search_part(part, vectors)
            check(searched.scores, plain(vectors, query, gallery, LABELS, cameras), query)
            assert searched.cameras_used == (cameras is not None)
            np.testing.assert_allclose(
                searched.distance, 1 - vectors[:5] @ vectors[5:].T, atol=1e-6
            )
            assert searched.labels.tolist() == LABELS[:5].tolist()

    @pytest.mark.parametrize("seed", range(3))
    def test_every_picture_against_all_others(self, seed: int) -> None:
        vectors, everything = unit(14, seed), list(range(14))
        for cameras in (None, CAMERAS):
            searched = search_part(part_of(LABELS, cameras), vectors)
            check(
                searched.scores, plain(vectors, everything, everything, LABELS, cameras), everything
            )
            assert searched.cameras_used == (cameras is not None)

    @pytest.mark.parametrize("parts", [None, PARTS])
    def test_cameras_are_ignored_where_no_match_is_of_another(self, parts) -> None:
        vectors, cameras = unit(14), np.zeros(14, int)
        searched = search_part(part_of(LABELS, cameras, parts), vectors)
        query, gallery = (range(14), range(14)) if parts is None else (range(5), range(5, 14))
        check(searched.scores, plain(vectors, query, gallery, LABELS), query)
        assert not searched.cameras_used

    @pytest.mark.parametrize("used", [True, False])
    def test_pictures_are_compared_with_others_of_their_condition(self, used: bool) -> None:
        vectors, labels = unit(12, 5), np.array([1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4])
        conditions = np.array([0] * 6 + [1] * 6) * used
        scores, crossed = search_all(vectors, labels, None, conditions)
        check(
            scores, plain(vectors, range(12), range(12), labels, conditions=conditions), range(12)
        )
        assert not crossed


class TestProtocol:
    def test_it_says_what_cameras_do(self) -> None:
        def text(*arguments) -> str:
            part = part_of(*arguments)
            return protocol(part, search_part(part, unit(14)))

        assert text(LABELS) == (
            "each picture against all others; no cameras are known, so pictures of one camera "
            "count, "
            "5 queries without a match left out"
        )
        assert "pictures of the query's identity and camera do not count" in text(
            LABELS, CAMERAS, PARTS
        )
        assert text(LABELS, CAMERAS, PARTS).startswith("queries against the gallery; ")
        assert "cameras are ignored, as no query has a match of another camera" in text(
            LABELS, CAMERAS * 0, PARTS
        )
        assert "left out" not in text(np.arange(14) // 2 + 1, None)

    def test_nothing_to_score(self) -> None:
        part = part_of(np.arange(1, 9), None, ["query"] * 4 + ["gallery"] * 4)
        review = scoring.review_search(part, {"vectors": unit(8)}, OPTIONS, [])
        assert review.metrics == {"queries": 0, "skipped": 4}
        assert "none of 4 queries has a match" in review.headline


class TestReview:
    def test_recall_leaves_junk_out_and_distractors_are_like_nobody(self) -> None:
        vectors, everything = unit(14), range(14)
        review = scoring.review_search(part_of(LABELS), {"vectors": vectors}, OPTIONS, [])
        metrics = review.metrics
        expected = plain(vectors, everything, everything, LABELS)
        assert metrics["mAP"] == pytest.approx(
            np.mean([ap for ap, _ in expected.values()]), abs=1e-6
        )
        for k in (1, 2, 4, 8):
            share = np.mean([first <= k for _, first in expected.values()])
            assert metrics["recall_at"][str(k)] == pytest.approx(share), k
        assert metrics["cameras"] is False
        low, high = metrics["intervals"]["mAP"]
        assert low <= metrics["mAP"] <= high

    def test_the_baseline_ranks_by_colours_and_re_ranking_is_scored(self) -> None:
        part = part_of(LABELS, CAMERAS, PARTS)
        options = replace(OPTIONS, rerank=99)
        review = scoring.review_search(part, {"vectors": unit(14)}, options, [])
        flat = scoring.colours_of(part)
        expected = plain(flat, range(5), range(5, 14), LABELS, CAMERAS)
        assert review.metrics["baselines"]["colours alone"]["mAP"] == pytest.approx(
            np.mean([ap for ap, _ in expected.values()]), abs=1e-6
        )
        assert 0 <= review.metrics["reranked"]["mAP"] <= 1
        assert "recall_at" not in review.metrics
        assert [figure.name for figure in review.pictures] == [
            "cmc",
            "ranked-lists",
            "similarities",
        ]

    def test_validation(self) -> None:
        class FlatPictures(torch.nn.Module):
            """The pixels of the pictures as vectors."""

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.normalize(images.flatten(1))

        part = part_of(LABELS, CAMERAS)
        items = [part[k] for k in range(14)]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        halves = [
            {name: value[rows] for name, value in batch.items()}
            for rows in (slice(0, 9), slice(9, 14))
        ]
        scores = PIPELINE.validate(FlatPictures(), halves, OPTIONS)
        vectors = batch["image"].flatten(1).double().numpy() / 127.5 - 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        expected = plain(vectors, range(14), range(14), LABELS, CAMERAS)
        assert scores["mAP"] == pytest.approx(
            np.mean([ap for ap, _ in expected.values()]), abs=1e-5
        )
        assert scores["error"] == pytest.approx(1 - scores["mAP"])
        assert PIPELINE.validate(FlatPictures(), [], OPTIONS) == {"error": 0.0}


def fit_baseline(part: Pictures, goal: Literal["search", "classes"], classes: int) -> Calibration:
    spec = ReidSpec(
        input={"pictures": len(part), "size": [8, 6]},
        goal=goal,
        classes=[str(k) for k in range(classes)],
        layout="table",
        attributes=[],
        cameras=False,
        parts={},
    )
    splits = Splits(part, part, part, spec)
    return PIPELINE.calibrate(torch.nn.Flatten(), splits, OPTIONS, torch.device("cpu"))


class TestColours:
    def test_they_are_histograms_of_six_stripes(self) -> None:
        images = torch.randint(
            0, 256, (2, 3, 20, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        histograms = scoring.colours(images).numpy()
        for picture in range(2):
            rows = []
            for stripe in np.array_split(images[picture].numpy(), 6, axis=1):
                for channel in stripe:
                    rows.append(np.histogram(channel, bins=np.arange(0, 257, 32))[0] / channel.size)
            expected = np.sqrt(np.concatenate(rows))
            np.testing.assert_allclose(
                histograms[picture], expected / np.linalg.norm(expected), rtol=1e-5, atol=1e-6
            )

    @pytest.mark.parametrize("classes", [2, 3])
    def test_the_baseline_of_classes_is_a_logistic_regression(self, classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        part = part_of(np.arange(12) % classes)
        calibration = fit_baseline(part, "classes", classes)
        assert calibration["baseline_weight"].is_contiguous()  # safetensors keeps no other
        flat = scoring.colours_of(part)
        logits = (
            flat @ calibration["baseline_weight"].numpy().T + calibration["baseline_bias"].numpy()
        )
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        model = LogisticRegression(C=10.0, max_iter=1000).fit(flat, part.labels)
        np.testing.assert_allclose(share, model.predict_proba(flat), atol=1e-5)
        assert "baseline_weight" not in fit_baseline(part, "search", classes)
