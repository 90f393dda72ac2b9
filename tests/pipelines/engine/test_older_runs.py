"""Runs that an older version has started are resumed with the parts that they had."""

import json
from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats.pictures import write_png
from headwise.pipelines import load_task
from headwise.pipelines.engine.pipeline import Splits
from headwise.pipelines.engine.runs.run_directory import RunDirectory, dump_options
from headwise.pipelines.engine.training import jobs


def pictures(home: Path) -> Path:
    """24 pictures of two classes, of which two are exact copies."""
    rng = np.random.default_rng(0)
    for k in range(24):
        pixels = rng.integers(0, 255, (16, 16), dtype=np.uint8)
        write_png(home / "ab"[k % 2] / f"{k}.png", pixels)
    for name in ("first", "second"):
        write_png(home / "a" / f"{name}.png", np.full((16, 16), 90, np.uint8))
    return home


def bags(home: Path) -> Path:
    """A table of 24 bags."""
    rng = np.random.default_rng(0)
    rows = [
        f"b{bag},{bag % 2},{x:.3f},{y:.3f}"
        for bag in range(24)
        for x, y in rng.normal(bag % 2, 1, (3, 2))
    ]
    home.mkdir()
    (home / "t.csv").write_text("bag,label,x,y\n" + "\n".join(rows) + "\n")
    return home / "t.csv"


CASES = {
    "medical": (pictures, {"size": (16, 16), "body_size": (8, 8)}, ("copies", "unread", "rule")),
    "wsi": (bags, {}, ("groups_joined",)),
}


@pytest.fixture(params=CASES)
def case(request, tmp_path: Path):
    """A pipeline, the options of its training, and a run whose spec lacks the newer keys."""
    make, values, newer = CASES[request.param]
    card = load_task(request.param)
    options = card.options(data=str(make(tmp_path / "data")), resume=True, **values)
    pipeline, run = card.load(), RunDirectory(tmp_path / "run")
    run.path.mkdir()
    spec = pipeline.open_data(options).spec.to_json()
    older = {key: value for key, value in spec.items() if key not in newer}
    before = pipeline.open_data(options, pipeline.spec_class.from_json(older))
    older["parts"] = {name: len(before.part(name)) for name in spec["parts"]}
    (run.path / "spec.json").write_text(json.dumps(older))
    return pipeline, options, run


def names(splits: Splits) -> list[list[str]]:
    return [[member.file + member.id for member in part] for part in splits.members.values()]


def test_an_interrupted_run_of_an_older_version_goes_on(case) -> None:
    pipeline, options, run = case
    with opened() as account:
        splits = jobs._open_data(pipeline, options, run)
    assert "the run was started by an older version; its parts stay" in str(account.lines())
    stored = json.loads((run.path / "spec.json").read_text())
    as_then = pipeline.spec_class.from_json(stored)
    assert splits.spec == as_then
    assert names(splits) == names(pipeline.open_data(options, as_then))
    jobs._check_spec(run, splits.spec.to_json(), options)
    assert json.loads((run.path / "spec.json").read_text()) == stored
    # Changed data is refused as before.
    stored["parts"]["train"] += 1
    (run.path / "spec.json").write_text(json.dumps(stored))
    splits = jobs._open_data(pipeline, options, run)
    with pytest.raises(InputError, match=r"the data changed since the run was started \(parts\)"):
        jobs._check_spec(run, splits.spec.to_json(), options)


def test_an_option_that_an_older_version_did_not_have_is_at_its_default(case) -> None:
    pipeline, options, run = case
    written = dump_options(options).splitlines()
    (run.path / "config.yaml").write_text("\n".join(line for line in written if "seed" not in line))
    (run.path / "environment.json").write_text(json.dumps({"task": pipeline.task.name}))
    again = type(options)(**{**vars(options), "run": str(run.path)})
    jobs._reopen(pipeline, again).unlock()
    with pytest.raises(InputError, match="seed was 2021, now 3"):
        jobs._reopen(pipeline, type(options)(**{**vars(again), "seed": 3}))
