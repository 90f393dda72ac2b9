"""Faults of speech: kills while a model is trained, while recordings are transcribed, and while
they are explained.
"""

from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")
pytest.importorskip("skimage", reason="the extra `speech` is not installed")

from headwise.base.files import checksum
from headwise.data.speech.generate import write_sample_speech

pytestmark = pytest.mark.timeout(1200)  # for the long forms
SMALL = [
    "--width",
    "16",
    "--heads",
    "2",
    "--encoder-layers",
    "1",
    "--decoder-layers",
    "1",
    "--epochs",
    "3",
    "--checkpoint-every",
    "2",
    "--warp-bands",
    "0.1",
]
KILLS = [2, pytest.param(20, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def home(launch, tmp_path_factory):
    """(recordings, run): twenty-four strings of tones, and a model that was trained without a
    break.
    """
    folder = tmp_path_factory.mktemp("speech")
    recordings = write_sample_speech(folder, strings=24)
    code, command = launch.run(
        "speech", "train", "--data", recordings, "--run", folder / "run", *SMALL
    )
    assert code == 0, command.text()
    return recordings, folder / "run"


@pytest.mark.parametrize("kills", KILLS)
def test_f15_kill_while_training_on_recordings(tally, launch, home, tmp_path, dice, tries):
    recordings, reference = home
    for attempt in tries:
        run = tmp_path / str(attempt)
        words = ["speech", "train", "--data", recordings, "--run", run, *SMALL]
        if not launch.kill_when(words, (run / "history.csv").exists, dice.uniform(0, 0.3)):
            continue
        tries.done += 1
        code, command = launch.run(*words, "--resume")
        names = ("model.safetensors", "calibration.safetensors", "assets/tokenizer.json")
        same = code == 0 and all(
            checksum(run / name) == checksum(reference / name) for name in names
        )
        tally("F15 SIGKILL while trained on recordings", same, command.text())


@pytest.mark.parametrize("kills", KILLS)
def test_f15_kill_while_transcribing(tally, launch, home, tmp_path, dice, tries):
    recordings, run = home
    words = [
        "speech",
        "predict",
        "--run",
        run,
        "--input",
        recordings,
        "--shard-size",
        "4",
        "--batch-size",
        "2",
        "--formats",
        "json",
        "srt",
    ]
    code, command = launch.run(*words, "--output", tmp_path / "whole.parquet")
    assert code == 0, command.text()
    expected = pl.read_parquet(tmp_path / "whole.parquet")
    for attempt in tries:
        output = tmp_path / f"{attempt}.parquet"
        parts = Path(f"{output}.parts")
        shards = dice.randint(0, 4)

        def stand(parts=parts, shards=shards):
            return parts.exists() and len(list(parts.glob("part-*.parquet"))) >= shards

        if not launch.kill_when([*words, "--output", output], stand, dice.uniform(0, 0.1)):
            continue
        tries.done += 1
        code, command = launch.run(*words, "--output", output)
        same = code == 0 and pl.read_parquet(output).equals(expected)
        texts = [
            {p.name: p.read_bytes() for p in Path(f"{table}.texts").iterdir()}
            for table in (output, tmp_path / "whole.parquet")
        ]
        tally(
            "F15 SIGKILL while recordings are transcribed",
            same and texts[0] == texts[1],
            command.text(),
        )


@pytest.mark.parametrize("kills", KILLS)
def test_f15_kill_while_explaining(tally, launch, home, tmp_path, dice, tries):
    recordings, run = home
    words = [
        "speech",
        "compare",
        "--run",
        run,
        "--data",
        recordings,
        "--masks",
        "20",
        "--input-masks",
        "8",
        "--segments",
        "20",
        "--no-gradients",
        "--no-deletion",
    ]
    code, command = launch.run(*words, "--output", tmp_path / "whole")
    assert code == 0, command.text()
    table = (tmp_path / "whole" / "tables" / "agreement.csv").read_bytes()
    for attempt in tries:
        output = tmp_path / str(attempt)
        count = dice.randint(0, 12)

        def stand(output=output, count=count):
            return len(list((output / "recordings").glob("g*.json"))) >= count

        if not launch.kill_when([*words, "--output", output], stand, dice.uniform(0, 0.1)):
            continue
        tries.done += 1
        stood = {path: path.stat().st_mtime_ns for path in (output / "recordings").glob("g*.json")}
        code, command = launch.run(*words, "--output", output)
        once = all(path.stat().st_mtime_ns == when for path, when in stood.items())
        same = code == 0 and (output / "tables" / "agreement.csv").read_bytes() == table
        tally("F15 SIGKILL while recordings are explained", same and once, command.text())
