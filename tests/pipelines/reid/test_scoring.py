"""What is asked and how: protocols against plain loops, what is said of cameras, baselines on
colours.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headwise.data.persons.persons import PictureSet
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.reid import scoring
from headwise.pipelines.reid.data import Pictures, Source

OPTIONS = SimpleNamespace(seed=0, model="dcal", rerank=0, size=(8, 6))


def part_of(labels, cameras=None, parts=None, conditions=None) -> Pictures:
    """A data set of generated noise that lies in memory."""
    labels = np.asarray(labels)
    count = len(labels)
    names = [f"{k}.jpg" for k in range(count)]
    pictures = PictureSet(
        names,
        names,
        [str(one) for one in labels],
        None if cameras is None else [str(one) for one in cameras],
        list(parts or [""] * count),
        {},
        labels == -1,
        labels == 0,
        "table",
        "here",
    )
    source = Source(pictures, (8, 6))
    generator = torch.Generator().manual_seed(0)
    for row in range(count):
        source.held[row] = torch.randint(0, 256, (3, 8, 6), dtype=torch.uint8, generator=generator)
    return Pictures(source, np.arange(count), labels, conditions)


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain(
    given, query, gallery, labels, cameras=None, conditions=None
) -> dict[int, tuple[float, int]]:
    """(average precision, rank of the first match) of each query that has a match, by the protocol
    of Market-1501.
    """
    found = {}
    for q in query:
        asked = []
        for g in gallery:
            if (
                g == q
                or labels[g] == -1
                or (conditions is not None and conditions[g] != conditions[q])
            ):
                continue
            if cameras is not None and labels[g] == labels[q] and cameras[g] == cameras[q]:
                continue
            asked.append((-float(given[q] @ given[g]), g))
        right = [labels[g] == labels[q] and labels[q] > 0 for _, g in sorted(asked)]
        if any(right):
            precision = [sum(right[: k + 1]) / (k + 1) for k in range(len(right)) if right[k]]
            found[q] = (sum(precision) / len(precision), right.index(True) + 1)
    return found


def check(scored, found: dict[int, tuple[float, int]], query) -> None:
    assert scored.queries == len(found)
    assert scored.skipped == len(query) - len(found)
    for place, q in enumerate(query):
        if q in found:
            assert scored.ap[place] == pytest.approx(found[q][0], abs=1e-6)
            assert scored.first_rank[place] == found[q][1]
        else:
            assert np.isnan(scored.ap[place])
    assert scored.mean_ap == pytest.approx(np.mean([ap for ap, _ in found.values()]), abs=1e-6)
    assert scored.cmc[0] == pytest.approx(np.mean([first == 1 for _, first in found.values()]))


LABELS = np.array([1, 1, 2, 2, 3, 0, -1, 1, 2, 2, 0, -1, 3, 4])
CAMERAS = np.array([0, 1, 0, 1, 0, 0, 0, 0, 1, 2, 1, 1, 0, 0])
PARTS = ["query"] * 5 + ["gallery"] * 9


class TestAsk:
    @pytest.mark.parametrize("seed", range(3))
    def test_queries_against_the_gallery(self, seed: int) -> None:
        given, query, gallery = unit(14, seed), list(range(5)), list(range(5, 14))
        for cameras in (None, CAMERAS):
            part = part_of(LABELS, cameras, PARTS)
            found = scoring.ask(part, given)
            check(found.scores, plain(given, query, gallery, LABELS, cameras), query)
            assert found.cameras_used == (cameras is not None)
            np.testing.assert_allclose(found.distance, 1 - given[:5] @ given[5:].T, atol=1e-6)
            assert found.ids.tolist() == LABELS[:5].tolist()

    @pytest.mark.parametrize("seed", range(3))
    def test_every_picture_against_all_others(self, seed: int) -> None:
        given, every = unit(14, seed), list(range(14))
        for cameras in (None, CAMERAS):
            found = scoring.ask(part_of(LABELS, cameras), given)
            check(found.scores, plain(given, every, every, LABELS, cameras), every)
            assert found.cameras_used == (cameras is not None)

    @pytest.mark.parametrize("parts", [None, PARTS])
    def test_cameras_are_ignored_where_no_match_is_of_another(self, parts) -> None:
        given, cameras = unit(14), np.zeros(14, int)
        found = scoring.ask(part_of(LABELS, cameras, parts), given)
        query, gallery = (range(14), range(14)) if parts is None else (range(5), range(5, 14))
        check(found.scores, plain(given, query, gallery, LABELS), query)
        assert not found.cameras_used

    @pytest.mark.parametrize("used", [True, False])
    def test_pictures_ask_others_of_their_condition(self, used: bool) -> None:
        given, labels = unit(12, 5), np.array([1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4])
        conditions = np.array([0] * 6 + [1] * 6) * used
        found, crossed = scoring.search_all(given, labels, None, conditions)
        check(found, plain(given, range(12), range(12), labels, conditions=conditions), range(12))
        assert not crossed


class TestSaid:
    def test_of_cameras(self) -> None:
        def said(*given) -> str:  # type: ignore[no-untyped-def]
            part = part_of(*given)
            return scoring.protocol(part, scoring.ask(part, unit(14)))

        assert said(LABELS) == (
            "each picture against all others; no cameras are known, so pictures of one camera count, "
            "5 queries without a match left out"
        )
        assert "pictures of the query's identity and camera do not count" in said(
            LABELS, CAMERAS, PARTS
        )
        assert said(LABELS, CAMERAS, PARTS).startswith("queries against the gallery; ")
        assert "cameras are ignored, as no query has a match of another camera" in said(
            LABELS, CAMERAS * 0, PARTS
        )
        assert "left out" not in said(np.arange(14) // 2 + 1, None)

    def test_nothing_to_score(self) -> None:
        part = part_of(np.arange(1, 9), None, ["query"] * 4 + ["gallery"] * 4)
        found = scoring._search(part, {"vectors": unit(8)}, OPTIONS, [])
        assert found.metrics == {"queries": 0, "skipped": 4}
        assert "none of 4 queries has a match" in found.headline


class TestReview:
    def test_recall_leaves_junk_out_and_distractors_are_like_nobody(self) -> None:
        given, every = unit(14), range(14)
        found = scoring._search(part_of(LABELS), {"vectors": given}, OPTIONS, []).metrics
        expected = plain(given, every, every, LABELS)
        assert found["mAP"] == pytest.approx(np.mean([ap for ap, _ in expected.values()]), abs=1e-6)
        for k in (1, 2, 4, 8):
            share = np.mean([first <= k for _, first in expected.values()])
            assert found["recall_at"][str(k)] == pytest.approx(share), k
        assert found["cameras"] is False
        low, high = found["intervals"]["mAP"]
        assert low <= found["mAP"] <= high

    def test_the_baseline_ranks_by_colours_and_re_ranking_is_scored(self) -> None:
        part = part_of(LABELS, CAMERAS, PARTS)
        options = SimpleNamespace(**{**vars(OPTIONS), "rerank": 99})
        found = scoring._search(part, {"vectors": unit(14)}, options, [])
        flat = scoring.colours_of(part)
        expected = plain(flat, range(5), range(5, 14), LABELS, CAMERAS)
        assert found.metrics["baselines"]["colours alone"]["mAP"] == pytest.approx(
            np.mean([ap for ap, _ in expected.values()]), abs=1e-6
        )
        assert 0 <= found.metrics["reranked"]["mAP"] <= 1
        assert "recall_at" not in found.metrics
        assert [one.name for one in found.pictures] == ["cmc", "ranked-lists", "similarities"]

    def test_validation(self) -> None:
        class Looked(torch.nn.Module):
            """Vectors that the pictures hold; as `scoring.outputs` asks for them."""

            heads, output = "both", "vectors"

            def branches(self, images):  # type: ignore[no-untyped-def]
                return SimpleNamespace(tokens={"sa": images.flatten(1)})

        part = part_of(LABELS, CAMERAS)
        items = [part[k] for k in range(14)]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        halves = [
            {name: value[own] for name, value in batch.items()}
            for own in (slice(0, 9), slice(9, 14))
        ]
        found = scoring.validate(Looked(), halves, OPTIONS)
        given = batch["image"].flatten(1).double().numpy() / 127.5 - 1
        given /= np.linalg.norm(given, axis=1, keepdims=True)
        expected = plain(given, range(14), range(14), LABELS, CAMERAS)
        assert found["mAP"] == pytest.approx(np.mean([ap for ap, _ in expected.values()]), abs=1e-5)
        assert found["error"] == pytest.approx(1 - found["mAP"])
        assert scoring.validate(Looked(), [], OPTIONS) == {"error": 0.0}


class TestColours:
    def test_they_are_histograms_of_six_stripes(self) -> None:
        images = torch.randint(
            0, 256, (2, 3, 20, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
        )
        found = scoring.colours(images).numpy()
        for one in range(2):
            rows = []
            for stripe in np.array_split(images[one].numpy(), 6, axis=1):
                for channel in stripe:
                    rows.append(np.histogram(channel, bins=np.arange(0, 257, 32))[0] / channel.size)
            expected = np.sqrt(np.concatenate(rows))
            np.testing.assert_allclose(
                found[one], expected / np.linalg.norm(expected), rtol=1e-5, atol=1e-6
            )

    @pytest.mark.parametrize("classes", [2, 3])
    def test_the_baseline_of_classes_is_a_logistic_regression(self, classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        part = part_of(np.arange(12) % classes)
        found = scoring.fit_baseline(Splits(part, part, part, {"goal": "classes"}), 0)
        assert found["baseline_weight"].is_contiguous()  # safetensors keeps no other
        flat = scoring.colours_of(part)
        logits = flat @ found["baseline_weight"].numpy().T + found["baseline_bias"].numpy()
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        own = LogisticRegression(C=10.0, max_iter=1000).fit(flat, part.labels)
        np.testing.assert_allclose(share, own.predict_proba(flat), atol=1e-5)
        assert scoring.fit_baseline(Splits(part, part, part, {"goal": "search"}), 0) == {}
