"""Several findings at once: parts, masks, loss, calibration, audit, and a run from end to end."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("PIL", reason="the extra `vision` is not installed")
pytest.importorskip("timm", reason="the extra `vision` is not installed")

from PIL import Image
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, roc_auc_score

import headwise as hw
from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.several import truth_of
from headwise.models.layers.label_losses import LabelLoss
from headwise.pipelines import load_task
from headwise.pipelines.engine.serving.service import Service, Upload
from headwise.pipelines.engine.subsets import Subsets
from headwise.pipelines.medical.data import MedicalSpec, open_splits
from headwise.pipelines.medical.option_rules import check
from headwise.pipelines.medical.options import MedicalOptions
from headwise.pipelines.medical.several.audit import audit_findings, ridge
from headwise.pipelines.medical.several.figures import reliability
from headwise.pipelines.medical.several.learning import (
    calibrate_findings,
    check_calibration,
    epoch_figures,
    findings_loss,
)
from headwise.pipelines.medical.several.parts import learnable, take_balanced
from headwise.pipelines.metrics.operating import choose_threshold

SMALL = {"size": (32, 32), "body_size": (16, 16), "body_width": 2, "head_width": 4}
NAMES = ("Edema", "Mass", "Effusion", "Hernia")
PARTS = ("train", "validation", "test")


def write(folder, pictures=60):
    """Pictures of noise, two of each patient, with a bright place for each finding; -1 and empty
    cells as in CheXpert, and hardly any hernia.
    """
    generator = np.random.default_rng(0)
    (folder / "p").mkdir(parents=True)
    lines = ["Path,AP/PA,Patient ID,No Finding," + ",".join(NAMES)]
    for k in range(pictures):
        has = generator.random(4) < (0.45, 0.35, 0.3, 0.02)
        pixels = generator.normal(100, 25, (32, 32))
        for place in np.flatnonzero(has[:3]):
            pixels[4 + 9 * place : 11 + 9 * place, 8:18] += 90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "p" / f"{k:02d}.png")
        draw = generator.random(4)
        cells = [
            "-1.0" if u < 0.1 else "1.0" if it else "" if u < 0.5 else "0.0"
            for it, u in zip(has, draw, strict=True)
        ]
        view = "AP" if k % 6 < 2 else "PA"
        lines.append(
            f"p/{k:02d}.png,{view},P{k // 2},{'' if has.any() else '1.0'},{','.join(cells)}"
        )
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write(tmp_path_factory.mktemp("several") / "x")


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    return pipelines.medical.train(
        data=home,
        run=path,
        findings="all",
        uncertain="ignore",
        max_steps=2,
        choose="blend",
        **SMALL,
    )


def options_of(home, **changes):
    values = {"findings": ("all",), "uncertain": "ignore", **SMALL, **changes}
    return MedicalOptions(data=str(home), **values)


@pytest.fixture(scope="module")
def splits(home):
    with opened():
        return open_splits(options_of(home))


def table_of(home):
    """Truth and what is known, from the cells of the table."""
    table = pl.read_csv(home / "labels.csv", infer_schema_length=0)
    return {
        row["Path"]: [{"1.0": 1, "-1.0": None}.get(row[name], 0) for name in NAMES]
        for row in table.iter_rows(named=True)
    }


def test_parts_share_no_patient_and_hold_the_cells_of_the_table(home, splits):
    assert splits.spec.classes == ["Edema", "Effusion", "Mass"]
    assert splits.spec.several
    cells, order = table_of(home), [NAMES.index(name) for name in splits.spec.classes]
    patients = [set(splits.part(name).column("patients")) for name in PARTS]
    assert not any(first & second for first, second in combinations(patients, 2))
    assert sum(len(splits.part(name)) for name in PARTS) == 60
    for name in PARTS:
        part = splits.part(name)
        for k, picture in enumerate(part.column("names")):
            expected = [cells[picture][place] for place in order]
            sample = part[k]
            assert sample["known"].tolist() == [cell is not None for cell in expected]
            assert sample["label"].tolist() == [cell or 0 for cell in expected]


def test_findings_are_spread_over_the_parts_as_their_sizes_are(splits):
    total = sum(splits.part(name).truth.sum(0) for name in PARTS)
    assert np.abs(splits.test.truth.sum(0) - 0.2 * total).max() <= 1
    assert np.abs(splits.validation.truth.sum(0) - 0.15 * 0.8 * total).max() <= 1
    assert abs(len(splits.test) - 12) <= 2


def test_rare_findings_are_dealt_first():
    """Of 300 patients eight have the rarest of five findings; a fifth of everything is taken."""
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), generator.integers(1, 5, 300))
    truth = generator.random((len(groups), 5)) < (0.5, 0.3, 0.1, 0.05, 0.0)
    truth[np.flatnonzero(np.diff(groups, prepend=-1))[:8], 4] = True
    rows = np.arange(len(groups)) + 7
    taken, rest = take_balanced(rows, truth, groups, 0.2, 0)
    assert sorted([*taken, *rest]) == rows.tolist()
    assert not set(groups[taken - 7]) & set(groups[rest - 7])
    share = truth[taken - 7].sum(0) / truth.sum(0)
    assert np.abs(share - 0.2).max() < 0.06
    assert abs(len(taken) / len(rows) - 0.2) < 0.02
    sizes = np.bincount(groups)  # patients with many pictures are in both
    in_taken, in_rest = np.unique(groups[taken - 7]), np.unique(groups[rest - 7])
    assert abs(sizes[in_taken].mean() - sizes[in_rest].mean()) < 0.4
    again, _ = take_balanced(rows, truth, groups, 0.2, 0)
    assert again.tolist() == taken.tolist()
    assert take_balanced(rows, truth, groups, 0.2, 1)[0].tolist() != taken.tolist()
    assert len(take_balanced(rows, truth, groups, 0.0, 0)[0]) == 0
    assert len(take_balanced(rows, truth, groups * 0, 0.5, 0)[0]) == 0


def test_findings_with_too_few_pictures_are_left_out_or_refused(home):
    truth = np.zeros((20, 4), bool)
    truth[[0, 1, 2, 3, 4, 12, 13], 0] = True  # five and two: enough
    truth[[0, 1, 2, 3, 12, 13], 1] = True  # four in the training part
    truth[[0, 1, 2, 3, 4, 12], 2] = True  # one in the validation part
    truth[:, 3] = True
    known = np.ones_like(truth)
    subsets = Subsets(np.arange(12), np.arange(12, 17), np.arange(17, 20))
    args = ("x", ["a", "b", "c", "d"], truth, known, subsets)
    with pytest.raises(InputError, match=r"'b' has 4 with it in the training part \(and 2 more"):
        learnable(*args, named=True)
    with pytest.raises(InputError, match="leave it out of --findings"):
        learnable(*args, named=False)  # only one is left
    truth[[5, 14], 1:3] = True
    with opened() as account:
        assert learnable(*args, named=False) == ["a", "b", "c"]
    assert any("1 findings with too few pictures" in line for line in account.lines())
    assert any("d: 0 without it in the training part" in line for line in account.lines())
    known[[12, 13], 0] = truth[[12, 13], 0] = False  # what is not known does not count
    with opened():
        assert learnable(*args, named=False) == ["b", "c"]
    with pytest.raises(InputError, match=r"'Hernia' has \d with it in the training part"), opened():
        open_splits(options_of(home, findings=("Edema", "Hernia")))


def test_the_account_says_what_is_learned_of_whom(home):
    with opened() as account:
        open_splits(options_of(home))
    lines = "\n".join(account.lines())
    assert "1 findings with too few pictures, which are not learned (Hernia: " in lines
    assert "4 findings, with pictures in training, validation and test (Edema " in lines
    assert "uncertain cells (-1) are in no loss and no score: Edema " in lines
    assert "empty cells (not mentioned) count as without the finding: Edema " in lines


def test_a_run_finds_its_findings_and_parts_again(home, splits):
    spec = MedicalSpec.from_json(json.loads(json.dumps(splits.spec.to_json())))
    with opened():
        again = open_splits(options_of(home), spec)
    for name in PARTS:
        assert again.part(name).column("names") == splits.part(name).column("names")
        assert again.part(name).truth.tolist() == splits.part(name).truth.tolist()


def test_the_loss_goes_by_the_known_training_pictures_of_each_finding(splits):
    train = splits.train
    for k in range(3):
        known = train.truth[train.known[:, k], k]
        assert splits.spec.counts[k] == known.sum()
        assert splits.spec.known[k] == len(known)


@pytest.mark.parametrize("kind", ["pos-weight", "focal", "asymmetric", "logit-adjust"])
def test_what_is_not_known_is_in_no_loss_of_any_kind(home, splits, kind):
    pipeline, options = load_task("medical").load(), options_of(home, imbalance=kind)
    train = splits.train
    chosen = [*np.flatnonzero(~train.known.all(1))[:3].tolist(), 0, 1]
    batch = {name: torch.stack([train[k][name] for k in chosen]) for name in train[0]}
    objective = pipeline.build_model(options, splits.spec).objective
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    findings_loss(logits, batch, objective).backward()
    known = torch.from_numpy(train.known[chosen])
    assert objective.kind == kind
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).any()


@pytest.mark.parametrize("kind", ["none", "pos-weight"])
def test_the_loss_is_the_masked_binary_cross_entropy(splits, kind):
    train = splits.train
    unknown = np.flatnonzero(~train.known.all(1))[:3].tolist()
    chosen = [*unknown, 0, 1, 2, 3]
    batch = {name: torch.stack([train[k][name] for k in chosen]) for name in train[0]}
    counts, known = torch.tensor(splits.spec.counts), torch.tensor(splits.spec.known)
    objective = LabelLoss(kind, counts, known)
    logits = torch.randn(len(chosen), 3, generator=torch.Generator().manual_seed(0))
    logits = (3 * logits).requires_grad_()
    loss = findings_loss(logits, batch, objective)
    expected = 0.0
    for row, place in enumerate(chosen):
        for k in range(3):
            if train.known[place, k]:
                chance = expit(logits[row, k].item())
                positive = bool(train.truth[place, k])
                rarity = float((known[k] - counts[k]) / counts[k])
                weight = rarity if positive and kind == "pos-weight" else 1.0
                expected -= weight * np.log(chance if positive else 1 - chance)
    assert loss.item() == pytest.approx(expected / len(chosen) / 3, rel=1e-5)
    loss.backward()
    blank = ~torch.from_numpy(train.known[chosen])
    assert blank.any()
    assert (logits.grad[blank] == 0).all()
    assert (logits.grad[~blank] != 0).all()
    # Parts of a batch sum to the batch, as --accumulate needs.
    halves = [{name: values[part] for name, values in batch.items()} for part in
              (slice(0, 3), slice(3, 7))]  # fmt: skip
    parts = sum(
        findings_loss(values, half, objective) * len(values)
        for values, half in zip(logits.split((3, 4)), halves, strict=True)
    )
    assert parts.item() / 7 == pytest.approx(loss.item(), rel=1e-5)


def test_figures_of_an_epoch_are_means_over_the_findings():
    generator = np.random.default_rng(0)
    truth = generator.random((30, 2)) < 0.4
    known = generator.random((30, 2)) < 0.8
    logits = generator.normal(0, 2, (30, 2))
    batches = [
        (
            torch.from_numpy(logits[part]),
            {"label": torch.from_numpy(truth[part] * 1.0),
             "known": torch.from_numpy(known[part] * 1.0)},
        )
        for part in (slice(0, 11), slice(11, 30))
    ]  # fmt: skip
    figures = epoch_figures(batches)
    areas, losses = [], []
    for k in range(2):
        y, z = truth[known[:, k], k], logits[known[:, k], k]
        areas.append(roc_auc_score(y, z))
        losses.append(np.mean(np.log1p(np.exp(np.where(y, -z, z)))))
    assert figures["auc"] == pytest.approx(np.mean(areas))
    assert figures["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_each_finding_has_its_temperature_and_operating_point():
    """Of 4000 pictures, whose logits are too large by a factor of its own for each finding."""
    generator = np.random.default_rng(0)
    plain = generator.normal(-1, 1.5, (4000, 2))
    truth = generator.random((4000, 2)) < expit(plain)
    known = generator.random((4000, 2)) < 0.9
    logits = plain * (3.0, 0.5)
    logits = np.where(known, logits, 50.0)  # what is not known must not count
    calibration = calibrate_findings(truth, known, logits, None)
    np.testing.assert_allclose(calibration["temperature"], [3.0, 0.5], rtol=0.15)
    for k in range(2):
        rows = known[:, k]
        chance = expit(logits[rows, k] / calibration["temperature"][k].item())
        expected = choose_threshold(truth[rows, k], chance)
        assert calibration["threshold"][k] == pytest.approx(expected, rel=1e-4)
    sensitive = calibrate_findings(truth, known, logits, 0.95)["threshold"]
    assert (sensitive < calibration["threshold"]).all()
    check_calibration(calibration, 2)
    with pytest.raises(InputError, match="no temperature of each finding"):
        check_calibration(calibration, 3)


def test_the_linear_models_of_the_audit_are_ridge_regressions():
    generator = np.random.default_rng(0)
    for features in (5, 60):
        x, other = generator.normal(2, 3, (40, features)), generator.normal(2, 3, (7, features))
        truth = generator.random((40, 2)) < 0.4
        told = ridge(x, truth, np.ones_like(truth), other)
        scaled = [(part - x.mean(0)) / x.std(0) for part in (x, other)]
        model = Ridge(alpha=features).fit(scaled[0], truth.astype(float))
        np.testing.assert_allclose(told + truth.mean(0), model.predict(scaled[1]), atol=1e-8)


def test_the_audit_finds_the_finding_that_the_view_tells(tmp_path):
    home = write(tmp_path / "x", 80)
    table = pl.read_csv(home / "labels.csv", infer_schema_length=0)
    view = pl.Series("AP/PA", ["AP" if cell == "1.0" else "PA" for cell in table["Mass"]])
    table.with_columns(view).write_csv(home / "labels.csv")
    with opened():
        part = open_splits(options_of(home)).test
    report = audit_findings(part, np.full((len(part), 3), 0.5), 0)
    by_view = {row.finding: row.probe for row in report.probes if row.probe.name == "view"}
    assert by_view["Mass"].readable
    assert by_view["Mass"].auc > 0.95
    assert not by_view["Effusion"].readable
    assert "Mass" in report.readable
    assert report.sentences[0].startswith("Warning: findings can be told without the lung: ")
    assert "Mass (from view" in report.sentences[0]


def test_calibration_curves_are_means_of_bins():
    chance, share = reliability(np.array([True, False, True]), np.array([0.11, 0.19, 1.0]))
    np.testing.assert_allclose(chance, [0.15, 1.0])
    np.testing.assert_allclose(share, [0.5, 1.0])


def test_a_run_predicts_every_picture_with_a_probability_of_each_finding(run, home):
    rows = pl.read_parquet(run.path / "predictions.parquet")
    findings = ["Edema", "Effusion", "Mass"]
    assert rows.columns == [
        "file", "item", "part", "status", "error", "prediction",
        *(f"probability_{name}" for name in findings), "view",
    ]  # fmt: skip
    assert rows["status"].to_list() == ["ok"] * 60
    metrics = run.metrics()
    for row in rows.iter_rows(named=True):
        chances = {name: row[f"probability_{name}"] for name in findings}
        expected = [
            name for name in findings if chances[name] >= metrics["findings"][name]["threshold"]
        ]
        ordered = sorted(expected, key=lambda name: -chances[name])
        assert row["prediction"] == ("|".join(ordered) or "none")


def test_the_metrics_are_those_of_the_predictions_of_the_test_part(run, home):
    rows = pl.read_parquet(run.path / "predictions.parquet").filter(pl.col("part") == "test")
    cells, metrics = table_of(home), run.metrics()
    areas = []
    for name in ("Edema", "Effusion", "Mass"):
        truth = [cells[item][NAMES.index(name)] for item in rows["item"]]
        known = [k for k, cell in enumerate(truth) if cell is not None]
        y = np.array([truth[k] for k in known])
        chance = rows[f"probability_{name}"].to_numpy()[known].astype(float)
        facts = metrics["findings"][name]
        assert facts["unknown"] == len(truth) - len(known)
        assert (facts["with"], facts["without"]) == (y.sum(), (1 - y).sum())
        assert facts["prevalence"] == pytest.approx(y.mean())
        assert facts["auc"] == pytest.approx(roc_auc_score(y, chance), abs=1e-6)
        assert facts["auprc"] == pytest.approx(average_precision_score(y, chance), abs=1e-6)
        called = chance >= facts["threshold"]
        assert facts["sensitivity"] == pytest.approx(called[y == 1].mean())
        assert facts["specificity"] == pytest.approx((~called[y == 0]).mean())
        low, high = facts["intervals"]["auc"]
        assert low <= facts["auc"] <= high
        areas.append(facts["auc"])
    assert metrics["auc"] == pytest.approx(np.mean(areas))
    assert metrics["findings_scored"] == 3
    card = json.loads((run.path / "card.json").read_text())
    assert f"means over 3 findings: AUC {metrics['auc']:.3f}" in card["headline"]


def test_the_report_has_a_row_for_each_finding(run):
    page = (run.path / "report.html").read_text()
    for text in ("Scores of each finding", "mean of 3 of 3", "Could it be read without the lung?"):
        assert text in page
    names = {path.stem for path in (run.path / "figures").iterdir()}
    assert {"findings", "calibration", "attention"} <= names


def test_a_run_scores_its_parts_and_other_data(run, home, tmp_path, headwise):
    code, lines = headwise("medical", "evaluate", "--run", run.path, "--part", "validation")
    assert code == 0, lines
    write(tmp_path / "y", 20)
    text = (tmp_path / "y" / "labels.csv").read_text().splitlines()
    kept = [",".join(line.split(",")[:5]) for line in text]  # no column of masses and effusions
    (tmp_path / "y" / "labels.csv").write_text("\n".join(kept) + "\n")
    code, lines = headwise("medical", "evaluate", "--run", run.path, "--data", tmp_path / "y")
    assert code == 0, lines
    metrics = json.loads((run.path / "evaluation-all-y.json").read_text())
    assert metrics["findings_scored"] == 1
    assert metrics["findings"]["Mass"]["auc"] is None
    assert metrics["auc"] == metrics["findings"]["Edema"]["auc"]
    assert any("which are not scored (Effusion, Mass)" in line for line in lines)
    assert any("1 of 3 findings" in line for line in lines)


def test_new_pictures_are_predicted_and_explained(run, home, tmp_path, headwise):
    words = ("medical", "predict", "--run", run.path, "--input", home / "p" / "03.png")
    code, lines = headwise(*words, "--output", tmp_path / "one.csv")
    assert code == 0, lines
    assert (tmp_path / "one.csv.pictures" / "03.png").is_file()
    table = pl.read_csv(tmp_path / "one.csv")
    stored = pl.read_parquet(run.path / "predictions.parquet").filter(pl.col("item") == "p/03.png")
    assert table["prediction"][0] == stored["prediction"][0]
    opened_run = hw.open(run.path)
    rows = opened_run.predict(str(home / "p"), explain=False)
    assert rows.height == 60
    assert rows["probability_Edema"].is_between(0, 1).all()
    (line,) = opened_run.pipeline.answer_lines(stored, opened_run.loaded.spec)
    for name in ("Edema", "Effusion", "Mass"):
        assert f"{name} {stored[f'probability_{name}'][0]:.1%}" in line


def test_a_service_answers_with_the_same_rows(run, home):
    content = (home / "p" / "05.png").read_bytes()
    (reply,) = Service(hw.open(run.path), 4).answer([Upload(files=[("05.png", content)])])
    assert reply.status == 200
    (row,) = json.loads(reply.rows)
    stored = pl.read_parquet(run.path / "predictions.parquet").filter(pl.col("item") == "p/05.png")
    for name in ("Edema", "Effusion", "Mass"):
        column = f"probability_{name}"
        assert row[column] == pytest.approx(stored[column][0], rel=1e-4)
    assert row["prediction"] == stored["prediction"][0]


def test_the_model_gives_a_logit_of_each_finding_to_an_export(run, home, splits):
    opened_run = hw.open(run.path)
    arguments, _ = opened_run.pipeline.export_example(opened_run.loaded.model, splits)
    with torch.no_grad():
        logits = opened_run.loaded.model(*arguments)
    assert logits.shape == (2, 3)
    rows = pl.read_parquet(run.path / "predictions.parquet").filter(pl.col("part") == "test")
    temperature = opened_run.loaded.calibration["temperature"]
    for k, item in enumerate(splits.test.column("names")[:2]):
        row = rows.row(by_predicate=pl.col("item") == item, named=True)
        expected = [row[f"probability_{name}"] for name in splits.spec.classes]
        np.testing.assert_allclose((logits[k] / temperature).sigmoid(), expected, rtol=1e-4)


def test_variants_are_compared_by_the_mean_over_the_findings(home, tmp_path, headwise):
    words = ("--size", 32, 32, "--body-size", 16, 16, "--body-width", 2, "--head-width", 4)
    code, lines = headwise(
        "medical", "compare", "--data", home, "--findings", "Edema", "Mass", "--uncertain",
        "ignore", "--output", tmp_path / "c", *words, "--max-steps", 1, "--models", "none",
        "--seeds", 1,
    )  # fmt: skip
    assert code == 0, lines
    table = pl.read_csv(tmp_path / "c" / "comparison.csv")
    assert table["model"].to_list() == ["none", "shares of the findings"]
    assert table["auc"][1] == 0.5
    assert {"auprc", "sensitivity", "specificity"} <= set(table.columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"finding": "Mass"}, "leave out --finding"),
        ({"classes": ("a", "b")}, "leave out --classes"),
        ({"positive": "Mass"}, "leave out --positive"),
        ({"data": None}, "the generated sample has one label a picture"),
        ({"findings": ("Mass",)}, "of one: --finding Mass"),
        ({"findings": ("Mass", "Mass")}, "give each once"),
        ({"findings": ("all", "Mass")}, "or all alone"),
        ({"balanced": False}, "--no-balanced: is read by a training of classes"),
        ({"findings": (), "uncertain": "ignore"}, "needs --finding or --findings"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    values = {"data": "x", "findings": ("all",), **options}
    with pytest.raises(InputError, match=message):
        check(MedicalOptions(**values))


def test_specs_of_older_runs_have_one_label_a_picture(splits):
    values = splits.spec.to_json()
    del values["several"]
    assert not MedicalSpec.from_json(values).several
    task = load_task("medical").load()
    with pytest.raises(InputError, match="no temperature of each finding"):
        task.check_run(splits.spec, {"temperature": torch.ones(1), "threshold": torch.ones(1)})
    assert replace(splits.spec, several=False).classes == splits.spec.classes


def test_labels_hold_the_truth_of_each_picture():
    truth, known = truth_of(["A|?B", "B|C"], ["C", "B"])
    assert truth.tolist() == [[False, False], [True, True]]
    assert known.tolist() == [[True, False], [True, True]]
