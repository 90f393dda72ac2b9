"""The simple models of slides: how sure they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.wsi.data import BagSet, WsiSpec, spec_of
from headwise.pipelines.wsi.options import WsiOptions
from headwise.pipelines.wsi.rungs import Form, SlideRungs, Statistics, fit_form, forms
from headwise.pipelines.wsi.sources import read_source

WIDTH = 3


@pytest.fixture(scope="module")
def bags() -> tuple[np.ndarray, np.ndarray]:
    """Statistics (N, 3 D) of bags of which two thirds are of one class, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 1], 20)
    return random.normal(size=(60, 3 * WIDTH)) + labels[:, None] * 0.6, labels


@pytest.mark.parametrize(("signal", "proven"), [(2.0, True), (0.0, False)])
def test_few_validation_bags_need_not_prove_what_the_training_part_does(
    tmp_path: Path, signal: float, proven: bool
) -> None:
    """40 bags to fit, 4 to validate: which model is right shows in folds of the 40."""
    random = np.random.default_rng(1)
    lines = ["label,bag,x,y,z"]
    for bag in range(44):
        for _ in range(3):
            values = random.normal(signal * (bag % 2), 1, 3)
            lines.append(f"{bag % 2},b{bag},{','.join(f'{v:.4f}' for v in values)}")
    (tmp_path / "bags.csv").write_text("\n".join(lines) + "\n")
    options = WsiOptions(run=str(tmp_path / "run"), data=str(tmp_path / "bags.csv"))
    source = read_source(options)
    train, validation = (BagSet(source, rows, ["0", "1"]) for rows in (range(40), range(40, 44)))
    spec = spec_of(source, {"train": train}, options)
    splits = Splits(train, validation, validation, spec)
    simple = SlideRungs().simple(nn.Identity(), splits, options, torch.device("cpu"))["simple"]
    assert simple.proven is proven
    # Fitted once more, it has seen all 44 bags.
    assert simple.refit is not None
    together = BagSet(source, range(44), ["0", "1"])
    bags = Statistics(together, validation).train
    facts = simple.facts
    form = next(form for form in forms(2) if form.words == simple.words)
    expected = fit_form(form, bags, together.labels, spec, options.seed % (1 << 32))
    again = simple.refit()
    assert again.facts["kind"] == facts["kind"]
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value)


def test_the_machine_is_as_sure_as_platt_would_be(bags: tuple[np.ndarray, np.ndarray]) -> None:
    """Against scikit-learn's parts, put together here: the logit of a held-out margin."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import SVC

    statistics, labels = bags
    spec = WsiSpec(
        input={},  # type: ignore[typeddict-item]
        classes=["a", "b"],
        width=WIDTH,
        extraction=None,
        mpp=None,
        parts={},
        mean=None,
        deviation=None,
    )
    model = fit_form(Form("kernel", True, 3.0), statistics, labels, spec, seed=0)
    x = ((statistics - statistics.mean(0)) / statistics.std(0)).astype(np.float32)
    margins = cross_val_predict(SVC(C=3.0), x, labels, cv=5, method="decision_function")
    platt = LogisticRegression(C=10.0).fit(margins[:, None], labels)
    final = SVC(C=3.0).fit(x, labels).decision_function(x)
    expected = platt.predict_proba(final[:, None])[:, 1]
    with torch.no_grad():
        probability = model.classify(torch.from_numpy(x)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(probability, expected, atol=1e-4)
    assert abs(probability.mean() - labels.mean()) < 0.1
