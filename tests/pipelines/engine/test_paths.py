"""A run can be used from any folder, whatever was typed when it was trained."""

import json

import pytest
import yaml

from headwise.base.errors import InputError
from headwise.pipelines.engine.runs.paths import with_absolute_paths
from headwise.tests.pipelines.engine.averages import AveragesOptions, call


@pytest.fixture
def trained(averages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = averages()
    pipeline.write_sample(tmp_path / "home").rename("rows.json")
    call(pipeline, "train", data="rows.json", run="run", momentum=0.9)
    (tmp_path / "elsewhere").mkdir()
    return pipeline


def test_the_data_of_a_run_are_met_from_another_folder(trained, tmp_path, monkeypatch) -> None:
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["data"] == str(tmp_path / "rows.json")
    monkeypatch.chdir("elsewhere")
    assert call(trained, "evaluate", run="../run")["rows"] == 3
    before = (tmp_path / "run" / "predictions.parquet").read_bytes()
    call(trained, "train", run="../run", resume=True)
    assert (tmp_path / "run" / "predictions.parquet").read_bytes() == before


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl", ".xlsx"])
def test_brackets_in_a_path_are_no_pattern(trained, tmp_path, ending) -> None:
    call(trained, "train", data="rows.json", run="run [1]")
    assert call(trained, "evaluate", run="run [1]")["rows"] == 3
    (tmp_path / "in[1].json").write_text("[1, 2]")
    files = {"input": "in[1].json", "output": f"o[1]{ending}"}
    rows = call(trained, "predict", run="run [1]", **files).table()
    assert rows["item"].n_unique() == 2


@pytest.mark.parametrize("data", ["rows.json", "./rows.json", "run/../rows.json"])
def test_a_resumed_run_takes_its_data_however_they_are_typed(trained, data) -> None:
    call(trained, "train", run="run", resume=True, data=data)
    with pytest.raises(InputError, match="cannot resume with other options: data was"):
        call(trained, "train", run="run", resume=True, data="other.json")


def test_a_run_that_holds_a_relative_path_is_resumed(trained, tmp_path) -> None:
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "rows.json"), "rows.json"))
    call(trained, "train", run="run", resume=True, data="rows.json")


def test_messages_have_the_path_as_it_was_typed(averages, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = averages()
    monkeypatch.setattr(
        pipeline, "open_data", lambda options, *_, **__: _refuse(f"{options.data}: is empty")
    )
    with pytest.raises(InputError, match=r"^x\.json: is empty$"):
        call(pipeline, "train", data="x.json", run="run")


def _refuse(text: str) -> None:
    raise InputError(text)


def test_words_and_names_stay_as_they_are(tmp_path, monkeypatch) -> None:
    from headwise.pipelines import load_task

    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    (tmp_path / "w.pt").touch()
    options = load_task("medical").options
    assert with_absolute_paths(options(weights="random")).weights == "random"
    assert with_absolute_paths(options(weights="pretrained")).weights == "pretrained"
    assert with_absolute_paths(options(weights="w.pt")).weights == str(tmp_path / "w.pt")
    assert with_absolute_paths(options(body="missing.pt")).body == "missing.pt"
    assert with_absolute_paths(AveragesOptions(data="a/*.csv")).data == str(tmp_path / "a/*.csv")
    assert with_absolute_paths(AveragesOptions()).data is None


def test_a_stopped_run_says_the_command_that_goes_on(trained, tmp_path) -> None:
    from headwise.pipelines.engine.runs.run_directory import RunDirectory
    from headwise.pipelines.engine.training.storage import RunStorage

    storage = RunStorage(RunDirectory("my run"), AveragesOptions(), first_process=False)
    assert storage.resumed_by("averages") == "headwise averages train --run 'my run' --resume"
    assert json.loads((tmp_path / "run" / "card.json").read_text())["task"] == "averages"
