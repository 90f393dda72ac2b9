"""Faults of training: kills, signals, full disks, damaged checkpoints, dead workers, NaN, changed
options.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwise.base.files import checksum

pytestmark = pytest.mark.timeout(1200)  # for the long forms


def same_result(run: Path, unbroken: Path) -> str:
    """Empty if the run ended as the unbroken one, bit for bit; else what differs."""
    for name in ("model.safetensors", "calibration.safetensors"):
        if checksum(run / name) != checksum(unbroken / name):
            return f"{name} differs"
    histories = [
        [
            {k: v for k, v in row.items() if k != "steps_per_second"}
            for row in csv.DictReader((r / "history.csv").open())
        ]
        for r in (run, unbroken)
    ]
    if histories[0] != histories[1]:
        return "history.csv differs"
    temporaries = [str(p) for p in run.rglob("*") if p.name.startswith((".aside", ".step"))]
    return f"left behind: {temporaries}" if temporaries else ""


def resume(launch, train, run, *more):
    started = (run / "config.yaml").exists()
    return launch.run(*train, "--run", run, *(["--resume"] if started else []), *more)


SAVING = r"""
import os, random, signal, sys, time, torch
from pathlib import Path
from headwise.pipelines.engine.runs import checkpoint

folder, tries, plain = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "plain"
torch.set_num_threads(1)
dice, bad, steps = random.Random(0), 0, 0
for attempt in range(tries):
    place = folder / str(attempt)
    place.mkdir()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        step, weights = 0, torch.empty(6_000_000)
        while True:
            step += 1
            weights.fill_(step)
            if plain:
                torch.save({"w": weights, "step": step}, place / "last.pt")
            else:
                checkpoint.save(place, step, {"w": weights}, {"state": {}, "param_groups": []}, {})
                checkpoint.prune(place, 2, None)
            os.write(write, step.to_bytes(4, "little"))
    os.close(write)
    reported = int.from_bytes(os.read(read, 4), "little")  # at least one stands
    time.sleep(dice.uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    rest = os.read(read, 1 << 16)
    reported = int.from_bytes(rest[-4:], "little") if rest else reported
    os.close(read)
    try:
        if plain:
            found = torch.load(place / "last.pt", weights_only=True)
            step, weights = found["step"], found["w"]
        else:
            found = checkpoint.load_newest(place)
            step, weights = found["step"], found["model"]["w"]
        assert step in (reported, reported + 1) and bool((weights == step).all())
    except Exception as error:
        bad += 1
    for path in place.rglob("*"):
        path.unlink() if path.is_file() else None
print(tries - bad)
"""


def killed_saves(folder: Path, tries: int, how: str) -> int:
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", SAVING, str(folder), str(tries), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("tries", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_f1_kill_inside_a_save(tally, tmp_path, tries):
    survived = killed_saves(tmp_path / "ours", tries, "ours")
    for k in range(tries):
        tally("F1 SIGKILL inside a checkpoint save", k < survived, f"{survived} of {tries}")
    if tries > 5:
        plain = killed_saves(tmp_path / "plain", tries, "plain")
        print(f"for comparison, torch.save to the path itself: {plain}/{tries} loadable")


@pytest.mark.parametrize("kills", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_f2_kill_while_training(tally, launch, train, unbroken, tmp_path, dice, kills):
    reference, seconds = unbroken
    killed = attempt = 0
    while killed < kills:
        attempt += 1
        assert attempt < 5 * kills, "the kills come too late"
        run = tmp_path / str(attempt)
        share = (
            killed + dice.random()
        ) / kills  # spread over the whole run, its review and report included
        command = launch.start(*train, "--run", run)
        time.sleep(share * seconds)
        if command.running():
            command.kill()
        if command.wait() != -9:
            # Done before the kill came: no try, and the machine is quicker than it was.
            seconds *= 0.7
            continue
        killed += 1
        code, command = resume(launch, train, run, *(["--workers", "1"] if killed % 2 else []))
        why = same_result(run, reference) if code == 0 else command.text()
        tally(
            "F2 SIGKILL while training, resumed bit for bit",
            code == 0 and not why,
            f"killed at {share:.2f}: {why}",
        )


def test_f2_killed_again_and_again(tally, launch, train, unbroken, tmp_path, dice):
    reference, seconds = unbroken
    run, killed = tmp_path / "run", 0
    for start in range(12):
        words = [*train, "--run", run, *(["--resume"] if (run / "config.yaml").exists() else [])]
        command = launch.start(*words)
        if command.wait(dice.uniform(0.3, 0.9) * seconds) is None:
            command.kill()
            command.wait()
            killed += 1
        elif killed:
            break
        else:  # done before the first kill came: once more, with earlier kills
            run, seconds = tmp_path / f"run-{start}", 0.7 * seconds
        if killed == 5:
            break
    assert killed
    code, command = resume(launch, train, run)
    assert code == 0, command.text()
    tally(
        "F2 SIGKILL while training, resumed bit for bit",
        not same_result(run, reference),
        same_result(run, reference),
    )


def test_f3_sigterm_writes_a_checkpoint(tally, launch, train, unbroken, tmp_path):
    run = tmp_path / "run"
    command = launch.start(*train, "--run", run)
    wait_for(lambda: list(run.glob("checkpoints/step-*")), command)
    asked = time.monotonic()
    command.kill(signal.SIGTERM)
    code = command.wait()
    took = time.monotonic() - asked
    assert "continue with: headwise " in command.last()
    code_then, _ = resume(launch, train, run)
    why = same_result(run, unbroken[0]) if code_then == 0 else f"code {code_then}"
    tally(
        "F3 SIGTERM",
        code == 143 and took < 10 and code_then == 0 and not why,
        f"code {code} after {took:.1f} s; {why}",
    )


def wait_for(condition, command, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert command.running(), command.text()
        assert time.monotonic() < until
        time.sleep(0.01)


def test_f4_disk_full_while_saving(tally, launch, train, unbroken, tmp_path):
    run = tmp_path / "run"
    code, _ = launch.run(*train, "--run", run, "--max-steps", "20")
    assert code == 0
    (run / "model.safetensors").unlink()
    before = {p: checksum(p) for p in run.glob("checkpoints/step-*/*")}
    # Room for the small text files, none for the tensors.
    larger = [*train, "--run", tmp_path / "large", "--width", "256"]
    code, command = launch.run(*larger, "--max-steps", "20", file_limit=200_000)
    ok = code == 2 and len(errors(command)) == 1 and str(tmp_path / "large") in errors(command)[0]
    ok = ok and not list((tmp_path / "large" / "checkpoints").glob("step-*"))
    tally("F4 disk full while a checkpoint is saved", ok, command.text())
    again = [*train, "--run", run, "--resume", "--max-steps", "20"]
    code, command = launch.run(*again, file_limit=1_500)
    ok = code == 2 and len(errors(command)) == 1 and {p: checksum(p) for p in before} == before
    tally("F4 disk full while a checkpoint is saved", ok, command.text())
    code, command = launch.run(*again)
    tally("F4 disk full while a checkpoint is saved", code == 0, command.text())


def errors(command) -> list[str]:
    """Lines that say what is wrong; a traceback is never one of them."""
    assert "Traceback" not in command.text(), command.text()
    return [line for line in command.text().splitlines() if line.startswith("headwise: ")]


@pytest.mark.parametrize("place", ["/proc/headwise/run", "/dev/null/run"])
def test_f4_directory_that_cannot_be_written(tally, launch, train, place):
    code, command = launch.run(*train, "--run", place)
    ok = code == 2 and len(errors(command)) == 1 and place.rsplit("/", 2)[0] in errors(command)[0]
    tally("F4 directory that cannot be written", ok, command.text())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "truncated": lambda c: truncate(c / "optimizer.safetensors"),
    "a bit flipped": lambda c: flip(c / "model.safetensors"),
    "empty": lambda c: (c / "state.json").write_bytes(b""),
    "gone": lambda c: (c / "model.safetensors").unlink(),
    "pointer gone": lambda c: (c.parent / "LAST").unlink(),
}


@pytest.fixture(scope="module")
def halfway(launch, train, tmp_path_factory):
    """A run that was killed after its fourth checkpoint."""
    run = tmp_path_factory.mktemp("halfway") / "run"
    command = launch.start(*train, "--run", run, "--keep", "3")
    wait_for(lambda: len(list(run.glob("checkpoints/step-*"))) >= 3, command)
    command.kill()
    command.wait()
    return run


@pytest.mark.parametrize("damage", DAMAGES)
def test_f5_damaged_newest_checkpoint(tally, launch, train, unbroken, halfway, tmp_path, damage):
    run = shutil.copytree(halfway, tmp_path / "run")
    DAMAGES[damage](max(run.glob("checkpoints/step-*")))
    code, command = resume(launch, train, run)
    warned = "damaged" in command.text() or "missing" in command.text()
    tally(
        "F5 damaged newest checkpoint",
        code == 0 and warned and not same_result(run, unbroken[0]),
        f"{damage}: {command.text()[-500:]}",
    )


def test_f6_dead_loader_worker(tally, launch, train, unbroken, tmp_path):
    run = tmp_path / "run"
    command = launch.start(*train, "--run", run, "--workers", "1", "--epochs", "3")

    def workers() -> list[int]:
        try:
            return [
                int(p)
                for p in Path(f"/proc/{command.pid}/task/{command.pid}/children")
                .read_text()
                .split()
            ]
        except OSError:
            return []

    wait_for(lambda: list(run.glob("checkpoints/step-*")) and workers(), command)
    while command.running():  # a worker may just have finished its epoch: the next one is as good
        for pid in workers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
        if errors(command):
            break
    code = command.wait(60)
    ok = code == 2 and len(errors(command)) == 1 and "loader process died" in errors(command)[0]
    code, again = resume(launch, train, run, "--workers", "0")
    tally(
        "F6 dead loader worker",
        ok and code == 0 and not same_result(run, unbroken[0]),
        command.text() + again.text(),
    )


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_f7_loss_that_is_not_finite(tally, launch, train, tmp_path, policy):
    run = tmp_path / "run"
    code, command = launch.run(*train, "--run", run, "--lr", "1e30", "--nan", policy)
    bad_batches = json.loads((run / "nan.json").read_text())
    ok = (
        code == 2
        and len(errors(command)) == 1
        and "nan.json" in errors(command)[0]
        and len(bad_batches[0]["samples"]) == 8
    )
    if policy == "skip":
        ok = ok and "in a row" in errors(command)[0]
    tally("F7 loss that is not finite", ok, command.text()[-800:])


def test_f10_other_options_or_data_on_resume(tally, launch, train, data, halfway, tmp_path):
    run = shutil.copytree(halfway, tmp_path / "run")
    code, command = launch.run(*train, "--run", run, "--resume", "--width", "32", "--lr", "0.1")
    ok = (
        code == 2
        and re.search(r"width was 16, now 32", command.last())
        and "lr was" in command.last()
    )
    tally("F10 changed options, data or checkpoint refused", ok, command.text())
    changed = tmp_path / "changed.csv"
    text = data.read_text().splitlines(keepends=True)
    changed.write_text("".join([*text[:300], text[300].rsplit(",", 1)[0] + ",7.5\n", *text[301:]]))
    before = data.read_bytes()
    try:
        data.write_bytes(changed.read_bytes())
        code, command = launch.run(*train, "--run", run, "--resume")
    finally:
        data.write_bytes(before)
    ok = code == 2 and "the data changed" in command.last()
    tally("F10 changed options, data or checkpoint refused", ok, command.text())
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("width: 16", "width: 24"))
    code, command = launch.run("forecast", "train", "--run", run, "--resume")
    ok = code == 2 and "checkpoint of another model" in command.last()
    tally("F10 changed options, data or checkpoint refused", ok, command.text())


def test_f12_second_process_on_one_run(tally, launch, train, tmp_path):
    run = tmp_path / "run"
    first = launch.start(*train, "--run", run, "--epochs", "200", "--patience", "200")
    wait_for(lambda: list(run.glob("checkpoints/step-*")), first)
    for _ in range(2):
        code, second = launch.run("forecast", "train", "--run", run, "--resume")
        tally(
            "F12 second process on one run refused",
            code == 2 and "another process" in second.last(),
            second.text(),
        )
    assert first.running()
    first.kill()
    first.wait()
