"""Reasoning end to end. The contract of all tasks (tests/contract) holds it to the rest."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import headwise
from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.base.files import checksum
from headwise.data.trials.evaluate import evaluate
from headwise.data.trials.files import read_trials, trial_line
from headwise.data.trials.generate import trial
from headwise.data.trials.kinds import TrialKind
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.inference.export import export
from headwise.pipelines.engine.options import ExportOptions
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.reasoning.data import FreshTrials, TrialPart, generated, read_files
from headwise.pipelines.reasoning.published import published_facts
from headwise.pipelines.reasoning.scoring import attention_of, blind_accuracy, look_of, score
from headwise.tests.data.trials.plain import plain_answer

TINY = {
    "width": 16, "heads": 2, "layers": 1, "trials": 64, "validation_trials": 16, "test_trials": 12,
    "test_distractors": (6, 12), "batch_size": 16, "epochs": 2,
}  # fmt: skip


def train(path, **options):
    return pipelines.reasoning.train(run=path, **{**TINY, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network predicts."""
    return train(tmp_path_factory.mktemp("run") / "run", choose="model")


def part_of(kind, count=400, seed=1):
    return TrialPart([generated(trial(kind, seed, 9, index)) for index in range(count)])


def lines_of(kind, count=60, *, published=True, seed=1):
    return [trial_line(trial(kind, seed, 9, k), published=published) for k in range(count)]


def test_the_same_few_trials_are_learnt_by_heart(tmp_path):
    trained = train(
        tmp_path / "run", fresh=False, trials=24, epochs=60, patience=60, lr=1e-2, choose="model"
    )
    losses = pl.read_csv(trained.path / "history.csv")["train_loss"]
    assert losses[-1] < 0.5 < 2 < losses[0]


def test_half_a_minute_teaches_forty_distractors(tmp_path):
    """A third of the default training."""
    trained = pipelines.reasoning.train(
        run=tmp_path / "run", trials=16_000, epochs=8, validation_trials=300, test_trials=200
    )
    levels = trained.metrics()["levels"]
    assert levels["40 distractors"]["accuracy"] > 0.8
    assert levels["40 distractors"]["blind"] < 0.45


def test_no_epoch_sees_a_trial_of_another_epoch_and_all_follow_from_the_seed():
    fresh = FreshTrials(TrialKind("repaired"), 7, 50)
    batches = [fresh.batches(16, seed=3, epoch=epoch) for epoch in (0, 1)]
    assert [len(batch) for batch in batches[0]] == [16, 16, 16, 2]
    assert fresh.steps(16) == len(batches[0])
    indices = np.concatenate([*batches[0], *batches[1]])
    assert indices.tolist() == list(range(100))
    first, again = (fresh.__getitems__(batches[1][0]) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = FreshTrials(TrialKind("repaired"), 8, 50).__getitems__(batches[1][0])
    assert not torch.equal(other["rules"], first["rules"])


def test_a_training_on_fresh_trials_resumes_bit_for_bit(tmp_path):
    options = {"checkpoint_every": 3, "keep": 20}
    path = train(tmp_path / "run", **options).path
    copy = shutil.copytree(path, tmp_path / "copy")
    for checkpoint in copy.glob("checkpoints/step-*"):
        if int(checkpoint.name.split("-")[1]) > 6:  # in the middle of the second epoch
            shutil.rmtree(checkpoint)
    (copy / "model.safetensors").unlink()
    assert {p.name for p in copy.glob("checkpoints/step-*")} >= {"step-000000006"}
    train(copy, **options, resume=True)
    for name in ("model.safetensors", "calibration.safetensors", "history.csv"):
        if name == "history.csv":
            losses = [pl.read_csv(home / name)["train_loss"].to_list() for home in (path, copy)]
            assert losses[0] == losses[1]
        else:
            assert checksum(copy / name) == checksum(path / name), name


def test_a_fixed_set_is_the_first_epoch_again_and_again(tmp_path):
    pipeline = load_task("reasoning").load()
    chosen = parse(pipeline.task, "train", [], values={**TINY, "fresh": False})
    sample = pipeline.write_sample_for(chosen, tmp_path)
    splits = [
        pipeline.open_data(parse(pipeline.task, "train", [], values=values))
        for values in ({**TINY, "fresh": False, "data": sample}, {**TINY, "data": sample})
    ]
    fixed, fresh = (split.train for split in splits)
    assert isinstance(fixed, TrialPart)
    assert len(fixed) == len(fresh) == 64
    assert [each.trial for each in fixed.trials] == [fresh.trial(k) for k in range(64)]


@pytest.mark.parametrize(
    ("split", "levels", "depths"),
    [
        ("operators", ["as trained", "crossed"], {1}),
        ("operators-leaky", ["as trained", "crossed"], {1}),
        ("subtrees", ["as trained", "crossed"], {4}),
        ("depth", ["as trained", "depth 5"], {1, 4, 10}),
    ],
)
def test_the_sample_is_that_of_the_split(tmp_path, split, levels, depths):
    pipeline = load_task("reasoning").load()
    values = {**TINY, "split": split, "rules": "official", "test_trials": 40}
    sample = pipeline.write_sample_for(parse(pipeline.task, "train", [], values=values), tmp_path)
    splits = pipeline.open_data(parse(pipeline.task, "train", [], values=values | {"data": sample}))
    assert splits.spec.levels == levels
    assert splits.spec.parts == {"train": 64, "validation": 16, "test": 80}
    assert {len(each.trial.rule) for each in splits.test.trials} == depths
    assert all(each.trial.answer == each.by_rule for each in splits.test.trials)
    other = "depth" if split != "depth" else "operators"
    chosen = parse(pipeline.task, "train", [], values=values | {"data": sample, "split": other})
    with pytest.raises(InputError, match=f"--split {other} has"):
        pipeline.open_data(chosen)


def test_a_file_with_all_parts_is_trained_on_as_it_is(tmp_path):
    written = pipelines.reasoning.generate(
        output=tmp_path / "t.jsonl", split="subtrees", trials=20, validation_trials=5, test_trials=6
    )
    assert written.trials == 20 + 5 + 2 * 6
    again = pipelines.reasoning.generate(
        output=tmp_path / "u.jsonl", split="subtrees", trials=20, validation_trials=5, test_trials=6
    )
    assert written.output.read_bytes() == again.output.read_bytes()
    pipeline = load_task("reasoning").load()
    values = {"data": written.output, "split": "distractors"}
    splits = pipeline.open_data(parse(pipeline.task, "train", [], values=values))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 5, 12)
    assert not splits.spec.generated
    with pytest.raises(InputError, match="already exists"):
        pipelines.reasoning.generate(output=tmp_path / "t.jsonl")
    with pytest.raises(InputError, match=r"written as \.jsonl"):
        pipelines.reasoning.generate(output=tmp_path / "t.csv")


def test_equal_trials_of_a_file_without_parts_are_in_one_part(tmp_path):
    lines = lines_of(TrialKind("repaired"), 40, published=False)
    (tmp_path / "t.jsonl").write_text("\n".join(lines * 2))
    pipeline = load_task("reasoning").load()
    splits = pipeline.open_data(
        parse(pipeline.task, "train", [], values={"data": tmp_path / "t.jsonl"})
    )
    parts = [
        {each.trial[:2] for each in part.trials}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert all(parts)


def test_predictions_are_words_beside_those_of_the_rules(run):
    rows = pl.read_parquet(run.path / "predictions.parquet")
    sample = run.path / "sample" / "generated-trials.jsonl"
    trials = read_trials(sample, sample.read_text().splitlines())
    assert rows["id"].to_list() == [each.id for each in trials]
    assert rows["by_rule"].to_list() == [plain_answer(each.trial) for each in trials]
    assert rows["well_posed"].all()
    assert rows["probability"].is_between(1 / 138, 1).all()
    assert rows["question"][0].endswith("?")


def test_a_published_file_is_scored_with_its_answers_and_its_kinds_of_answers(run, tmp_path):
    lines = lines_of(TrialKind("official", fewest=10, most=10), 80)
    wrong = json.loads(lines[0])
    wrong["target"] = 137 if wrong["target"] != 137 else 136
    (tmp_path / "ref.jsonl").write_text("\n".join([json.dumps(wrong), *lines[1:]]))
    metrics = headwise.open(run.path).evaluate(tmp_path / "ref.jsonl")
    assert metrics["trials"] == 80
    assert metrics["answers_by_rule"] == pytest.approx(79 / 80)
    facts = metrics["published"]
    assert facts["answers_by_rule"] == 79
    assert sum(facts["kinds"].values()) == sum(facts["generated_kinds"].values()) == 80
    assert abs(facts["objects"] - facts["generated_objects"]) < 1
    account = json.loads((run.path / "evaluation-all-ref-account.json").read_text())
    assert "answers of the file are not those that the rules give" in json.dumps(account)
    report = (run.path / "evaluation-all-ref.html").read_text()
    assert "The rules give 79 of 80 answers" in report


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_published_trials_pass_the_comparison(depth):
    lines = lines_of(TrialKind("official", (depth,)), 1500, seed=4)
    same = published_facts(TrialPart(read_trials("f", lines)), 5)
    assert same is not None
    assert same.p > 0.01
    assert abs(same.objects - same.new_objects) < 0.2


def test_answers_of_other_kinds_fail_the_comparison():
    trials = read_trials("f", lines_of(TrialKind("official"), 600))
    changed = [
        replace(each, trial=each.trial._replace(answer=min(each.trial.answer, 1)))
        for each in trials
    ]
    other = published_facts(TrialPart(changed), 5)
    assert other is not None
    assert other.p < 1e-6
    assert published_facts(TrialPart(trials[:49]), 5) is None


@pytest.mark.parametrize(
    ("rules", "depth", "most", "expected"),
    [
        ("official", 1, 5, 0.400),
        ("official", 1, 40, 0.419),
        ("official", 3, 5, 0.404),
        ("official", 5, 5, 0.371),
        ("repaired", 1, 5, (5 * 0.5 + 0.1 + 0.1 + 0.01) / 8),
    ],
)
def test_the_blind_floor_is_that_of_the_reference(rules, depth, most, expected):
    """Of published trials as measured on the reference files; of repaired ones by counting."""
    kind = TrialKind(rules, (depth,), most if most > 5 else 0, most)
    assert blind_accuracy(part_of(kind, 2500)) == pytest.approx(expected, abs=0.03)


def test_a_few_trials_have_no_floor_of_their_own_answers():
    """Sixteen answers of `go` are all different: none is known from the others."""
    kind = TrialKind("repaired")
    trials = (trial(kind, 1, 4, index) for index in range(2000))
    answers = {each.answer: each for each in trials if each.rule[0].operator == 2}
    part = TrialPart([generated(each) for each in list(answers.values())[:16]])
    assert blind_accuracy(part) == 0.0


def test_scores_are_those_of_counting(run):
    part = part_of(TrialKind("official", (3,)), 300)
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(300, 138))
    right = generator.random(300) < 0.6
    logits[np.arange(300)[right], part.answers[right]] += 20
    told = logits.argmax(1) == part.answers
    scores = score(part, logits)
    assert scores.total.accuracy == told.mean()
    outcomes = [evaluate(each.trial.rule, each.trial.scene) for each in part.trials]
    clear = np.array([outcome.well_posed for outcome in outcomes])
    assert 0 < clear.sum() < 300
    assert scores.posed["well posed"].accuracy == told[clear].mean()
    assert scores.posed["ambiguous"].accuracy == told[~clear].mean()
    goes = np.array(
        [each.trial.rule[o.path[-1]].operator == 2 for each, o in zip(part.trials, outcomes)]
    )
    assert scores.operators["go"].accuracy == told[goes].mean()
    assert scores.operators["go"].trials == goes.sum()
    assert sum(share.trials for share in scores.operators.values()) == 300
    low, high = scores.total.interval
    assert low < told.mean() < high < low + 0.13
    assert list(scores.levels) == ["depth 3"]


def test_the_attention_that_is_measured_is_that_of_the_network(run):
    loaded = load_run(load_task("reasoning").load(), str(run.path))
    network = loaded.domain_model
    part = part_of(TrialKind("repaired", most=8), 40)
    attention = attention_of(network, part, torch.device("cpu"))
    batch = part.__getitems__(list(range(40)))
    with torch.no_grad():
        weights = network.attended(batch["rules"], batch["scenes"])["layer 1, answer"].numpy()
    look = look_of(part, attention["layer 1, answer"])
    masses, hits = [], []
    for row, (each, outcome) in enumerate(zip(part.trials, part.outcomes, strict=True)):
        if outcome.asked and len(each.trial.scene) > len(outcome.asked):
            masses.append(weights[row, list(outcome.asked)].sum())
            hits.append(weights[row, : len(each.trial.scene)].argmax() in outcome.asked)
    assert look is not None
    assert look.trials == len(masses)
    assert look.mass == pytest.approx(np.mean(masses), abs=1e-6)
    assert look.hits == np.mean(hits)
    assert run.metrics()["looked"].keys() == attention.keys()


def test_explanations_are_a_row_for_each_trial_and_pictures(run, tmp_path):
    explained = pipelines.reasoning.explain(run=run.path, output=tmp_path / "out", show=2)
    table = explained.table()
    assert explained.trials == 3 * 12
    assert table.height == 36 * len(explained.looks)
    asked = table.filter(pl.col("asked_objects") > 0)
    assert asked["attention_on_asked"].is_between(0, 1).all()
    assert table.filter(pl.col("asked_objects") == 0)["attention_on_asked"].is_null().all()
    assert len(list((tmp_path / "out").glob("trial-*.png"))) == 2
    with pytest.raises(InputError, match="already exists"):
        pipelines.reasoning.explain(run=run.path, output=tmp_path / "out")
    (tmp_path / "in.jsonl").write_text("\n".join(lines_of(TrialKind("official"), 5)))
    again = pipelines.reasoning.explain(
        run=run.path, output=tmp_path / "out", overwrite=True, input=tmp_path / "in.jsonl"
    )
    assert again.trials == 5


def test_a_network_without_attention_cannot_be_explained_and_says_so(tmp_path):
    trained = train(tmp_path / "run", model="recurrent", heads=4, max_steps=1)
    assert trained.metrics()["looked"] == {}
    with pytest.raises(InputError, match=r"--model recurrent .* has no attention weights"):
        pipelines.reasoning.explain(run=trained.path, output=tmp_path / "out")


def test_the_network_is_exported_whatever_its_scenes_hold(run, tmp_path):
    pipeline = load_task("reasoning").load()
    export(pipeline, ExportOptions(run=str(run.path), output=str(tmp_path / "m.pt2")))
    program = torch.export.load(tmp_path / "m.pt2").module()
    batch = part_of(TrialKind("repaired", fewest=3, most=9), 5).__getitems__(range(5))
    network = load_run(pipeline, str(run.path)).domain_model
    with torch.no_grad():
        torch.testing.assert_close(
            program(batch["rules"], batch["scenes"]),
            network(batch["rules"], batch["scenes"]),
            atol=1e-5,
            rtol=0,
        )


def test_models_of_one_size_are_trained_by_one_option(tmp_path):
    counts = []
    for model in ("cross", "single", "perceiver"):
        trained = train(tmp_path / model, model=model, width=64, parameters=50_000, max_steps=1)
        weights = load_file(trained.path / "model.safetensors")
        counts.append(sum(weight.numel() for weight in weights.values()))
    assert max(counts) < 1.15 * min(counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_depth": 4}, "--test-depth 4: must be 3, 5 or 7"),
        ({"most_distractors": 61}, "--most-distractors 61: must be between 0 and 60"),
        ({"test_distractors": (-1,)}, "--test-distractors -1"),
        ({"attention": "star-", "model": "single"}, "unknown"),
        ({"attention": "squeeze"}, "takes no context.*give --model single"),
        ({"attention": "tap"}, "are no grid"),
        ({"model": "cross", "latents": 3}, "--latents: is not read by --model cross"),
        ({"model": "recurrent", "attention": "moh"}, "--attention: is not read"),
        ({"model": "perceiver", "mask": "tree"}, "--mask: is not read"),
        ({"model": "double", "layers": 1}, "--layers 1: --model double"),
        ({"heads": 5}, "--heads 5: must divide --width 16"),
        ({"parameters": 500}, "parameters at least"),
        ({"model": "single", "attention": "star", "mask": "tree"}, "takes no mask of pairs"),
    ],
)
def test_options_that_fit_nothing_are_refused_on_one_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message) as caught:
        train(tmp_path / "run", **options)
    assert "\n" not in str(caught.value)


def test_what_a_file_says_is_in_the_account(tmp_path):
    lines = lines_of(TrialKind("official", (5,)), 60)
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with opened() as account:
        assert len(read_files(str(tmp_path / "t.jsonl"))) == 60
    text = " ".join(account.lines())
    assert "read: 60 trials" in text
    assert "ask about several objects at once" in text
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="has no trials"):
        read_files(str(tmp_path / "empty.jsonl"))
