"""Metrics of salience against formulas written here pixel by pixel, the field's golden values, and
PySODMetrics.
"""

import json
import warnings

import numpy as np
import pytest
import torch

from headwise.pipelines.metrics.saliency import SaliencyScores, bootstrap_table, saliency_scores

TINY = np.spacing(1)


def stretched(level):
    s = level / 255
    return (s - s.min()) / (s.max() - s.min()) if s.max() > s.min() else s


def plain_f(g, chosen):
    hits = (chosen & g).sum()
    if hits == 0:
        return 0.0
    precision, recall = hits / chosen.sum(), hits / g.sum()
    return 1.3 * precision * recall / (0.3 * precision + recall)


def plain_e(g, chosen):
    chosen = chosen.astype(float)
    if not g.any():
        matrix = 1 - chosen
    elif g.all():
        matrix = chosen
    else:
        a, b = chosen - chosen.mean(), g - g.mean()
        matrix = (2 * a * b / (a * a + b * b + TINY) + 1) ** 2 / 4
    return matrix.sum() / (g.size - 1 + TINY)


def plain_s(s, g):
    if not g.any():
        return 1 - s.mean()
    if g.all():
        return s.mean()

    def uniform(x):
        return 2 * x.mean() / (x.mean() ** 2 + 1 + (x.std(ddof=1) if x.size > 1 else 0))

    def alike(x, y):
        n = x.size
        a, b = x.mean(), y.mean()
        above = 4 * a * b * ((x - a) * (y - b)).sum() / max(n - 1, TINY)
        below = (a * a + b * b) * (((x - a) ** 2).sum() + ((y - b) ** 2).sum()) / max(n - 1, TINY)
        return above / below if abs(above) > 1e-20 else float(abs(below) < 1e-20)

    share = g.mean()
    at_once = share * uniform(s[g]) + (1 - share) * uniform(1 - s[~g])
    y, x = (int(c) + 1 for c in np.argwhere(g).mean(0).round())
    parts = [(a, b) for a in (slice(0, y), slice(y, None)) for b in (slice(0, x), slice(x, None))]
    region = sum(s[p].size / s.size * alike(s[p], g[p]) for p in parts if s[p].size)
    return max(0.0, 0.5 * at_once + 0.5 * region)


def plain_weighted_f(s, g):
    if not g.any():
        return 0.0
    salient = np.argwhere(g)
    error = np.abs(s - g)
    held, importance = error.copy(), np.ones_like(s)
    ambiguous = False
    for place in np.argwhere(~g):
        squared = ((salient - place) ** 2).sum(1)
        nearest = salient[squared == squared.min()]
        ambiguous |= len(nearest) > 1
        held[tuple(place)] = error[tuple(nearest[0])]
        importance[tuple(place)] = 2 - 0.5 ** (np.sqrt(squared.min()) / 5)
    kernel = np.exp(-(np.arange(-3, 4)[:, None] ** 2 + np.arange(-3, 4) ** 2) / 50)
    kernel /= kernel.sum()
    padded = np.pad(held, 3)
    smooth = np.array(
        [
            [(padded[y : y + 7, x : x + 7] * kernel).sum() for x in range(s.shape[1])]
            for y in range(s.shape[0])
        ]
    )
    least = np.where(g & (smooth < error), smooth, error) * importance
    right = g.sum() - least[g].sum()
    recall, precision = 1 - least[g].mean(), right / (right + least[~g].sum() + TINY)
    return None if ambiguous else 2 * recall * precision / (recall + precision + TINY)


def pairs(count, seed=0):
    """Random and degenerate maps and masks: uint8 and bool."""
    generator = np.random.default_rng(seed)
    for k in range(count):
        height, width = generator.integers(1, 32, 2)
        if k % 10 == 0:
            height, width = [(1, 1), (1, 9), (7, 1), (2, 2), (90, 150)][k // 10 % 5]
        y, x = np.mgrid[:height, :width]
        g = generator.random((height, width)) < generator.random()
        if k % 3 == 0:
            radius = 1 + generator.random(2) * (height / 2, width / 2)
            g = ((y - generator.random() * height) / radius[0]) ** 2 + (
                (x - width / 2) / radius[1]
            ) ** 2 < 1
        p = generator.integers(0, 256, (height, width))
        kind = k % 7
        if kind == 1:
            p[:] = generator.integers(256)
        elif kind == 2:
            p = g * 255
        elif kind == 3:
            p = np.clip(g * 150 + generator.integers(0, 100, g.shape), 0, 255)
        elif kind == 4:
            p = (p > 127) * 255
        g = np.zeros_like(g) if k % 11 == 0 else np.ones_like(g) if k % 13 == 0 else g
        yield p.astype(np.uint8), g


def ours(p, g):
    return saliency_scores(torch.from_numpy(p)[None], torch.from_numpy(g)[None])


def test_every_metric_is_its_definition():
    weighed = 0
    for p, g in pairs(60):
        result, s = ours(p, g), stretched(p)
        cut = (s * 255).astype(int)
        for t in range(0, 256, 17):
            chosen = cut >= 255 - t
            assert float(result.f_curve[0, t]) == pytest.approx(plain_f(g, chosen), abs=1e-9)
            assert float(result.e_curve[0, t]) == pytest.approx(plain_e(g, chosen), abs=1e-9)
            assert float(result.precision[0, t]) == pytest.approx(
                (chosen & g).sum() / max(chosen.sum(), 1)
            )
            assert float(result.recall[0, t]) == pytest.approx((chosen & g).sum() / max(g.sum(), 1))
        chosen = s >= min(2 * s.mean(), 1)
        assert float(result.f_adaptive[0]) == pytest.approx(plain_f(g, chosen), abs=1e-9)
        assert float(result.e_adaptive[0]) == pytest.approx(plain_e(g, chosen), abs=1e-9)
        assert float(result.mae[0]) == pytest.approx(np.abs(s - g).mean(), abs=1e-12)
        if p.min() < p.max() or p.flat[0] in (
            0,
            255,
        ):  # of other constants rounding decides, see the module
            assert float(result.s_measure[0]) == pytest.approx(plain_s(s, g), abs=1e-9)
        expected = plain_weighted_f(s, g) if p.size < 1000 else None
        if expected is not None:
            weighed += 1
            assert float(result.weighted_f[0]) == pytest.approx(expected, abs=1e-9)
    assert weighed > 15


def test_far_from_what_is_salient_an_error_counts_twice():
    g = np.zeros((400, 500), bool)
    g[10:20, 10:20] = True
    p = np.where(g, 255, 0).astype(np.uint8)
    p[300:310, 400:410] = 255
    result = float(ours(p, g).weighted_f[0])
    assert result == pytest.approx(2 * (100 / 300) / (1 + 100 / 300), abs=1e-6)


def test_golden_values_of_the_field(real_data):
    home = real_data / "saliency" / "pysodmetrics_golden"
    if not home.is_dir():
        pytest.skip(f"no golden values at {home}")
    from headwise.data.formats.pictures import read_picture

    golden = json.loads((home / "version_performance.json").read_text())["v1_4_3"]
    masks = sorted((home / "masks").iterdir())
    assert len(masks) == 3
    parts = []
    for mask in masks:
        (result,) = (home / "preds").glob(f"{mask.stem}.*")
        parts.append(ours(read_picture(result)[0], read_picture(mask)[0] > 128))
    table = SaliencyScores.join(parts).table()
    names = {
        "S-measure": "Smeasure",
        "weighted F-measure": "wFmeasure",
        "MAE": "MAE",
        "max E-measure": "maxEm",
        "mean E-measure": "meanEm",
        "adaptive E-measure": "adpEm",
        "max F-measure": "maxFm",
        "mean F-measure": "meanFm",
        "adaptive F-measure": "adpFm",
    }
    assert table.keys() == names.keys()
    for name, key in names.items():
        assert table[name] == pytest.approx(golden[key], abs=1e-6), name


def test_equal_to_pysodmetrics():
    sod_metrics = pytest.importorskip(
        "py_sod_metrics",
        reason="pysodmetrics is not installed (docs/reference/saliency.md says how)",
    )
    compared = 0
    for p, g in pairs(210, seed=5):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            parts = [
                sod_metrics.Smeasure(),
                sod_metrics.MAE(),
                sod_metrics.WeightedFmeasure(),
                sod_metrics.Emeasure(),
                sod_metrics.Fmeasure(),
            ]
            for part in parts:
                part.step(p, (g * 255).astype(np.uint8))
        s, mae, weighted, e, f = parts
        result = ours(p, g)
        expected = {
            "mae": mae.maes,
            "weighted_f": weighted.weighted_fms,
            "e_curve": e.changeable_ems,
            "e_adaptive": e.adaptive_ems,
            "f_curve": f.changeable_fms,
            "f_adaptive": f.adaptive_fms,
            "precision": f.precisions,
            "recall": f.recalls,
        }
        if np.isfinite(s.sms[0]):  # it is not a number there where a quadrant is empty
            expected["s_measure"] = s.sms
            compared += 1
        for name, values in expected.items():
            np.testing.assert_allclose(
                getattr(result, name)[0].numpy(), values[0], atol=1e-6, rtol=0, err_msg=name
            )
    assert compared > 180


def test_batches_joins_and_parts_are_the_pictures_one_by_one():
    generator = np.random.default_rng(1)
    p = torch.from_numpy(generator.integers(0, 256, (5, 9, 12)).astype(np.uint8))
    g = torch.from_numpy(generator.random((5, 9, 12)) < 0.4)
    at_once = saliency_scores(p, g)
    joined = SaliencyScores.join([saliency_scores(p[k : k + 1], g[k : k + 1]) for k in range(5)])
    for name in vars(at_once):
        torch.testing.assert_close(getattr(at_once, name), getattr(joined, name), rtol=0, atol=0)
    some = at_once.of(torch.tensor([3, 1]))
    assert torch.equal(some.mae, at_once.mae[[3, 1]])
    assert len(some) == 2
    table = at_once.table()
    assert table["max F-measure"] == float(at_once.f_curve.mean(0).max())
    assert table["mean E-measure"] == pytest.approx(float(at_once.e_curve.mean()))
    as_floats = saliency_scores(p.double() / 255, g)
    torch.testing.assert_close(as_floats.s_measure, at_once.s_measure, rtol=0, atol=0)
    grey = saliency_scores(p, g.to(torch.uint8) * 129)
    assert torch.equal(grey.weighted_f, at_once.weighted_f)
    assert len(saliency_scores(p[:0], g[:0])) == 0


def test_intervals_hold_the_value_and_shrink_with_groups_as_pictures():
    generator = np.random.default_rng(2)
    p = torch.from_numpy(generator.integers(0, 256, (40, 6, 6)).astype(np.uint8))
    g = torch.from_numpy(generator.random((40, 6, 6)) < 0.4)
    scores = saliency_scores(p, g)
    table, between = scores.table(), bootstrap_table(scores, seed=1)
    assert between.keys() == table.keys()
    for name in ("S-measure", "MAE", "mean F-measure"):
        low, high = between[name]
        assert low < table[name] < high
    spread = float(scores.mae.std()) / 40**0.5
    low, high = between["MAE"]
    assert (high - low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.15)
    twice = SaliencyScores.join([scores, scores])
    groups = [f"{k:02d}" for k in range(40)]  # in the order of the names
    same = bootstrap_table(twice, [*groups, *groups], seed=1)
    assert same["MAE"] == pytest.approx(
        between["MAE"]
    )  # a picture twice in one group is no more evidence


@pytest.mark.parametrize(
    ("p", "g", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, 2, dtype=torch.bool), "of one shape"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), "of one shape"),
        (torch.zeros(1, 0, 3), torch.zeros(1, 0, 3, dtype=torch.bool), "no pixels"),
        (torch.full((1, 2, 2), 1.5), torch.zeros(1, 2, 2, dtype=torch.bool), r"in \[0, 1\]"),
        (torch.full((1, 2, 2), torch.nan), torch.zeros(1, 2, 2, dtype=torch.bool), "finite"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), "bool or uint8"),
        (
            torch.zeros(1, 2, 2, dtype=torch.int64),
            torch.zeros(1, 2, 2, dtype=torch.bool),
            "uint8 or floats",
        ),
    ],
)
def test_mistakes_are_named(p, g, message):
    with pytest.raises(ValueError, match=message):
        saliency_scores(p, g)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match="at least one part"):
        SaliencyScores.join([])
    scores = saliency_scores(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="groups"):
        bootstrap_table(scores, [1])
