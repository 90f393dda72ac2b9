"""What the fault tests share: commands that can be killed, a small run, and the table
survived/tried.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

TALLY: dict[str, list[int]] = {}


def pytest_configure(config):
    config.headwise_tally = TALLY


def pytest_terminal_summary(terminalreporter):
    if TALLY:
        terminalreporter.section("faults survived")
        terminalreporter.write_line("| fault | survived/tried |\n|---|---|")
        for fault, (survived, tried) in sorted(
            TALLY.items(), key=lambda row: (len(row[0].split()[0]), row[0])
        ):
            terminalreporter.write_line(f"| {fault} | {survived}/{tried} |")


@pytest.fixture
def tally():
    """`tally("F1 kill inside a save", ok)` counts one try, and fails the test if it was not
    survived.
    """

    def count(fault: str, survived: bool, why: object = "") -> None:
        row = TALLY.setdefault(fault, [0, 0])
        row[0] += bool(survived)
        row[1] += 1
        print(f"{fault}: survived {row[0]}/{row[1]}")
        assert survived, f"{fault}: {why}"

    return count


class Command:
    """A `headwise` command in a process of its own."""

    def __init__(self, launcher: "Launcher", pid: int, log: Path) -> None:
        self.launcher, self.pid, self.log = launcher, pid, log

    def wait(self, seconds: float = 120) -> int | None:
        return self.launcher.ask(wait=self.pid, seconds=seconds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.killpg(self.pid, number)

    def running(self) -> bool:
        try:
            return (
                Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
            )
        except OSError:
            return False

    def text(self) -> str:
        return self.log.read_text()

    def last(self) -> str:
        return self.text().strip().splitlines()[-1]


class Launcher:
    """Forks commands from one prepared process (see launcher.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "launcher.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, **question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self, *words: object, file_limit: int | None = None, die_at: tuple | None = None
    ) -> Command:
        self.count += 1
        log = self.folder / f"log-{self.count}"
        log.touch()
        asked = {
            "words": [str(w) for w in words],
            "log": str(log),
            "file_limit": file_limit,
            "die_at": die_at,
        }
        return Command(self, self.ask(**asked), log)

    def run(self, *words: object, **how: object) -> tuple[int, Command]:
        command = self.start(*words, **how)
        code = command.wait()
        assert code is not None, f"{words}: still running after two minutes"
        return code, command

    def kill_when(self, words: list, ready: Callable[[], bool], pause: float) -> bool:
        """Start a command and kill it `pause` seconds after `ready`; False if it was done
        before.
        """
        command, until = self.start(*words), time.monotonic() + 90
        while command.running() and time.monotonic() < until and not ready():
            time.sleep(0.001)
        time.sleep(pause)
        if command.running():
            command.kill()
        return command.wait() == -9


class Kills:
    """Numbers of tries from 1 on until `done`, which the loop counts up, is `count`; most may come
    too late.
    """

    def __init__(self, count: int) -> None:
        self.count, self.done = count, 0

    def __iter__(self) -> Iterator[int]:
        attempt = 0
        while self.done < self.count:
            attempt += 1
            assert attempt < 3 * self.count + 3, "the kills come too late"
            yield attempt


@pytest.fixture
def tries(kills: int) -> Kills:
    """The tries of a test with a parameter `kills`."""
    return Kills(kills)


@pytest.fixture
def survives_kills(tally, launch, tmp_path, dice, tries):
    """`survives_kills(fault, words, rows, shards)`: a prediction of so many rows that is killed
    when up to `shards` of its parts stand, and started again, has the rows of one without a break
    and leaves nothing else.
    """

    def check(fault: str, words: list, rows: int, shards: int) -> None:
        code, command = launch.run(*words, "--output", tmp_path / "once.parquet")
        assert code == 0, command.text()
        expected = pl.read_parquet(tmp_path / "once.parquet")
        assert expected.height == rows
        for attempt in tries:
            output = tmp_path / f"{attempt}.parquet"
            parts, least = Path(f"{output}.parts"), dice.randint(0, shards)

            def stand(parts=parts, least=least):
                return parts.exists() and len(list(parts.glob("part-*.parquet"))) >= least

            if not launch.kill_when([*words, "--output", output], stand, dice.uniform(0, 0.05)):
                continue
            if output.exists():
                continue
            tries.done += 1
            code, command = launch.run(*words, "--output", output)
            same = code == 0 and pl.read_parquet(output).equals(expected)
            remaining = sorted(path.name for path in tmp_path.glob(f"*{attempt}.parquet*"))
            clean = remaining == [f"{attempt}.parquet", f"{attempt}.parquet.account.json"]
            tally(fault, same and clean, command.text())

    return check


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    launcher = Launcher(tmp_path_factory.mktemp("launcher"))
    yield launcher
    launcher.process.kill()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A wide table, generated."""
    from headwise.data.series.generate import sample_series, write_wide

    path = tmp_path_factory.mktemp("data") / "wide.csv"
    write_wide(sample_series(rows=700, channels=3), path)
    return path


SMALL = [
    "--horizon",
    "12",
    "--lookback",
    "24",
    "--width",
    "16",
    "--core",
    "8",
    "--feedforward",
    "16",
    "--layers",
    "1",
    "--epochs",
    "3",
    "--batch-size",
    "8",
    "--checkpoint-every",
    "5",
    "--dropout",
    "0.1",
]


@pytest.fixture(scope="session")
def train(data):
    """The words of the training that is broken off; everything random is in it: dropout, draws,
    shuffling.
    """
    return ["forecast", "train", "--data", str(data), *SMALL]


@pytest.fixture(scope="session")
def unbroken(launch, train, tmp_path_factory):
    """(run, seconds) of the training that nothing happened to."""
    path = tmp_path_factory.mktemp("unbroken") / "run"
    started = time.monotonic()
    code, command = launch.run(*train, "--run", path)
    assert code == 0, command.text()
    return path, time.monotonic() - started


@pytest.fixture
def dice():
    """Random moments, the same in each session."""
    return random.Random(0)


@pytest.fixture(scope="session")
def many(launch, tmp_path_factory):
    """(run, input, output) of a batch inference over a long table: 400 series, 4 of them broken, 20
    shards.
    """
    from headwise.data.series.generate import many_series

    folder = tmp_path_factory.mktemp("many")
    many_series(40, 200, folder / "train.csv", broken=0)
    broken = many_series(400, 80, folder / "input.csv", broken=4)
    code, command = launch.run(
        "forecast", "train", "--data", folder / "train.csv", "--run", folder / "run", *SMALL
    )
    assert code == 0, command.text()
    words = [
        "forecast",
        "predict",
        "--run",
        folder / "run",
        "--input",
        folder / "input.csv",
        "--shard-size",
        "20",
    ]
    code, command = launch.run(*words, "--output", folder / "once.parquet")
    assert code == 3, command.text()
    return words, folder / "once.parquet", broken
