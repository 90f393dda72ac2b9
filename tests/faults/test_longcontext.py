"""Faults of long contexts: kills while a plan is made, while prompts are answered and while a
context is compressed.
"""

import json
from pathlib import Path

import pytest

from headwise.base.files import checksum
from headwise.data.prompts.sample import write_sample_prompts

pytestmark = pytest.mark.timeout(1200)  # for the long forms
KILLS = [2, pytest.param(20, marks=pytest.mark.slow)]
PROMPTS = 120


def training(prompts: Path, run: Path) -> list:
    """A plan whose roles are learned, in a dozen steps."""
    words = ["longcontext", "train", "--data", prompts, "--run", run, "--model", "generated"]
    learned = ["--method", "lychee", "--fit-prompts", "8", "--epochs", "3", "--choose", "model"]
    return [*words, *learned, "--checkpoint-every", "1"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """Generated prompts."""
    return write_sample_prompts(tmp_path_factory.mktemp("longcontext"))


@pytest.fixture(scope="module")
def home(launch, prompts):
    """(prompts, run): generated prompts, and a plan that was made for them without a break."""
    folder = prompts.parent
    code, command = launch.run(*training(prompts, folder / "run"))
    assert code == 0, command.text()
    return prompts, folder / "run"


@pytest.mark.parametrize("kills", KILLS)
def test_f17_kill_while_a_plan_is_learned(tally, launch, home, tmp_path, dice, tries):
    prompts, reference = home
    for attempt in tries:
        run = tmp_path / str(attempt)
        words = training(prompts, run)
        if not launch.kill_when(words, (run / "history.csv").exists, dice.uniform(0, 0.5)):
            continue
        tries.done += 1
        code, command = launch.run(*words, "--resume")
        same = code == 0 and all(
            checksum(run / name) == checksum(reference / name)
            for name in ("model.safetensors", "spec.json")
        )
        tally("F17 SIGKILL while a plan is learned", same, command.text())


# What measures a prompt, by method.
MEASURES = {
    "needle": ("headwise.pipelines.longcontext.scored_heads", "needle_scores"),
    "moa": ("headwise.models.language.search.moa", "influence_blocks"),
}


@pytest.mark.parametrize("method", MEASURES)
def test_f17_kill_while_prompts_are_measured(tally, launch, prompts, tmp_path, dice, method):
    words = ["longcontext", "train", "--data", prompts, "--model", "generated", "--method", method]
    words += ["--share", "0.6", "--fit-prompts", "6", "--validation-prompts", "2"]
    words += ["--test-prompts", "2", "--choose", "model", "--run"]
    code, command = launch.run(*words, tmp_path / "once")
    assert code == 0, command.text()
    assert not (tmp_path / "once" / "measured").exists()
    run, call = tmp_path / "run", dice.randint(2, 6)
    code, command = launch.run(*words, run, die_at=(*MEASURES[method], call))
    assert code == -9, command.text()
    code, command = launch.run(*words, run, "--resume")
    same = code == 0 and all(
        checksum(run / name) == checksum(tmp_path / "once" / name)
        for name in ("model.safetensors", "spec.json", "metrics.json")
    )
    told = f"{call - 1} of 6 prompts were done before" in command.text()
    clean = not (run / "measured").exists()
    tally("F17 SIGKILL while prompts are measured", same and told and clean, command.text())


@pytest.mark.parametrize("kills", KILLS)
def test_f17_kill_while_prompts_are_answered(survives_kills, home, tmp_path):
    prompts, run = home
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    (tmp_path / "in").mkdir()
    for k in range(PROMPTS):
        (tmp_path / "in" / f"{k:03d}.txt").write_text(rows[k % len(rows)]["prompt"])
    words = ["longcontext", "predict", "--run", run, "--input", tmp_path / "in"]
    words += ["--batch-size", "2", "--max-new-tokens", "4"]
    survives_kills("F17 SIGKILL while prompts are answered", words, PROMPTS, 10)


@pytest.mark.parametrize("kills", KILLS)
def test_f17_kill_while_a_context_is_compressed(tally, launch, home, tmp_path, dice, tries):
    prompts, run = home
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    context = tmp_path / "context.txt"
    context.write_text(" ".join(row["prompt"] for row in rows)[:1000])
    words = ["longcontext", "compress", "--run", run, "--input", context, "--chunk", "4"]
    code, command = launch.run(*words, "--output", tmp_path / "once.safetensors")
    assert code == 0, command.text()
    for attempt in tries:
        folder = tmp_path / f"folder{attempt}"
        folder.mkdir()
        output = folder / "cache.safetensors"
        # It has no mark of how far it is.
        if not launch.kill_when([*words, "--output", output], lambda: True, dice.uniform(0, 1.5)):
            continue
        if output.exists():  # complete, or it should not be there
            assert checksum(output) == checksum(tmp_path / "once.safetensors")
            continue
        tries.done += 1
        code, command = launch.run(*words, "--output", output)
        same = code == 0 and checksum(output) == checksum(tmp_path / "once.safetensors")
        clean = sorted(path.name for path in folder.iterdir()) == [
            "cache.safetensors", "cache.safetensors.account.json"
        ]  # fmt: skip
        tally("F17 SIGKILL while a context is compressed", same and clean, command.text())
