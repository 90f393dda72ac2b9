"""Faults of slides: kills while features are extracted, while slides are predicted, between
folds.
"""

from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise.data.slides.generate import write_sample_slides

pytestmark = pytest.mark.timeout(1200)  # for the long forms
EXTRACT = ["--encoder", "random-filters", "--tile", "64"]
KILLS = [2, pytest.param(20, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def cohort(launch, tmp_path_factory):
    """(slides, run, table of all predictions): twelve generated slides, an unbroken extraction and
    prediction.
    """
    folder = tmp_path_factory.mktemp("slides")
    slides = write_sample_slides(folder, slides=12, side=512)
    code, command = launch.run(
        "wsi", "features", "--slides", slides, "--output", folder / "whole", *EXTRACT
    )
    assert code == 0, command.text()
    words = [
        "wsi",
        "train",
        "--data",
        slides,
        "--run",
        folder / "run",
        "--epochs",
        "2",
        "--inner",
        "16",
        *EXTRACT,
    ]
    code, command = launch.run(*words)
    assert code == 0, command.text()
    code, command = launch.run(
        "wsi",
        "predict",
        "--run",
        folder / "run",
        "--input",
        slides,
        "--output",
        folder / "whole.parquet",
    )
    assert code == 0, command.text()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; locks hold nothing, and an account names what else lay there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "account.json")
    }


def killed(
    launch, words, folder: Path, pattern: str, count: int, pause: float
) -> dict[Path, int] | None:
    """Kill a command when `wanted` files stand; when each of those was written, or None if the kill
    came too late.
    """
    if not launch.kill_when(words, lambda: len(list(folder.glob(pattern))) >= count, pause):
        return None
    return {
        path: path.stat().st_mtime_ns
        for path in folder.glob(pattern)
        if not path.name.startswith(".aside-")
    }


@pytest.mark.parametrize("kills", KILLS)
def test_f13_kill_while_extracting(tally, launch, cohort, tmp_path, dice, tries):
    for attempt in tries:
        output = tmp_path / str(attempt)
        words = [
            "wsi",
            "features",
            "--slides",
            cohort / "generated-slides",
            "--output",
            output,
            *EXTRACT,
        ]
        stood = killed(launch, words, output, "*.h5", dice.randint(0, 10), dice.uniform(0, 0.05))
        if stood is None:
            continue
        tries.done += 1
        code, command = launch.run(*words)
        same = contents(output) == contents(cohort / "whole")
        once = all(path.stat().st_mtime_ns == when for path, when in stood.items())
        tally(
            "F13 SIGKILL while features are extracted", code == 0 and same and once, command.text()
        )


@pytest.mark.parametrize("kills", KILLS)
def test_f13_kill_while_predicting_slides(tally, launch, cohort, tmp_path, dice, tries):
    expected = pl.read_parquet(cohort / "whole.parquet")
    for attempt in tries:
        output = tmp_path / f"{attempt}.parquet"
        words = [
            "wsi",
            "predict",
            "--run",
            cohort / "run",
            "--input",
            cohort / "generated-slides",
            "--output",
            output,
        ]
        beside = Path(f"{output}.slides")
        stood = killed(
            launch, words, beside, "*/features.h5", dice.randint(0, 10), dice.uniform(0, 0.2)
        )
        if stood is None:
            continue
        tries.done += 1
        code, command = launch.run(*words)
        same = contents(beside) == contents(cohort / "whole.parquet.slides")
        same = same and pl.read_parquet(output).equals(expected)
        once = all(path.stat().st_mtime_ns == when for path, when in stood.items())
        clean = not Path(f"{output}.parts").exists()
        tally(
            "F13 SIGKILL while slides are predicted",
            code == 0 and same and once and clean,
            command.text(),
        )


def test_f13_kill_inside_the_writing_of_features(tally, launch, cohort, tmp_path):
    """At the very line: half of a file is on the disk, beside its place."""
    output = tmp_path / "o"
    words = [
        "wsi",
        "features",
        "--slides",
        cohort / "generated-slides",
        "--output",
        output,
        *EXTRACT,
    ]
    code, _ = launch.run(*words, die_at=("headwise.base.files", "flush", 5))
    temporaries = list(output.glob(".aside-*"))
    again, command = launch.run(*words)
    ok = (
        (code, again) == (-9, 0)
        and bool(temporaries)
        and contents(output) == contents(cohort / "whole")
    )
    tally("F13 SIGKILL inside the writing of features", ok, command.text())


def test_f13_kill_between_folds(tally, launch, cohort, tmp_path):
    def words(output):
        return [
            "wsi",
            "crossval",
            "--data",
            cohort / "generated-slides",
            "--output",
            output,
            "--models",
            "abmil",
            "--folds",
            "3",
            "--repeats",
            "2",
            "--epochs",
            "2",
            "--inner",
            "8",
            *EXTRACT,
        ]

    code, command = launch.run(*words(tmp_path / "whole"))
    assert code == 0, command.text()
    first, _ = launch.run(
        *words(tmp_path / "o"),
        die_at=("headwise.pipelines.engine.experiments.jobs", "write_json", 4),
    )
    code, command = launch.run(*words(tmp_path / "o"))
    names = ("predictions.parquet", "crossval.json")
    same = all(
        (tmp_path / "o" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names
    )
    ok = (
        (first, code) == (-9, 0) and same and "3 of 12 trainings were done before" in command.text()
    )
    tally("F13 SIGKILL between folds", ok, command.text())
