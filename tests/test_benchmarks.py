"""`make bench` in tiny sizes, so that no script rots, and its verdicts. No time is asserted."""

import json
import re
from pathlib import Path

import pytest
import torch

from headwise.benchmarks import ratios
from headwise.benchmarks.ratios import Row

BENCHMARKS = Path(ratios.__file__).parent


@pytest.mark.parametrize("script", ratios.SCRIPTS)
def test_every_script_agrees_with_the_other_ways(script: str) -> None:
    threads = torch.get_num_threads()
    rows = list(ratios.measured(script, "tiny", seconds=0.0, turns=2))
    assert rows
    for row in rows:
        assert row.left_out or len(row.faster) == 2
        assert all(second > 0 for turns in row.seconds for second in turns)
    assert len({row.key for row in rows}) == len(rows)
    assert torch.get_num_threads() == threads


def test_every_script_with_cases_is_run() -> None:
    with_cases = [path for path in BENCHMARKS.rglob("*.py") if "\ndef cases(" in path.read_text()]
    names = {str(path.relative_to(BENCHMARKS).with_suffix("")) for path in with_cases}
    assert names == set(ratios.SCRIPTS)


def test_recorded_ratios_are_ranges_of_scripts() -> None:
    for key, known in json.loads(ratios.RECORDED.read_text()).items():
        assert key.split(" | ")[0] in ratios.SCRIPTS
        assert known["from"]
        for name in ("time", "memory"):
            low, high = known.get(name, [0, 1])
            assert 0 <= low <= high


def row_of(*faster: float, sizes: tuple[int, int] = (0, 1)) -> Row:
    """A row whose turns are so many times as fast."""
    return Row("ops/rollout", "a", "b", [[1.0] * len(faster), list(faster)], list(sizes))


def test_noise_is_not_slower() -> None:
    assert not ratios.slower(row_of(1.0, 1.3, 1.1), {"time": [1.3, 1.4]})
    assert ratios.slower(row_of(1.0, 1.29, 1.1), {"time": [1.3, 1.4]})
    assert not ratios.slower(row_of(0.1), {})
    mib = ratios.MIB
    assert row_of(1.0, sizes=(9, 1)).share is None
    assert not ratios.larger(row_of(1.0, sizes=(51 * mib, 100 * mib)), {"memory": [0.4, 0.5]})
    assert ratios.larger(row_of(1.0, sizes=(52 * mib, 100 * mib)), {"memory": [0.4, 0.5]})


def test_one_table_and_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes are left out; a slow row is measured again, and both count."""
    runs = []

    def in_process(script: str, options: object, bar: object, memory: bool = False) -> list[Row]:
        runs.append(memory)
        if memory:
            return [Row(script, "a", "b", bytes=[2**20, 2**22])]
        seconds = [[1.0, 1.0], [1.5, 2.0] if runs == [False] else [2.5, 2.0]]
        return [Row(script, "a", "b", seconds, wants_memory=True), Row(script, "c", left_out="no")]

    key, file = "ops/rollout | a | b", tmp_path / "ratios.json"
    known = {"time": [2.4, 2.6], "memory": [0.3, 0.3], "from": "docs"}
    file.write_text(json.dumps({key: known, "ops/speech | d | e": known}))
    monkeypatch.setattr(ratios, "RECORDED", file)
    monkeypatch.setattr(ratios, "in_process", in_process)
    words = ["--only", "ops/rollout", "--record", "--output", str(tmp_path / "all.json")]
    ratios.main(words=words)
    assert runs == [False, False, True]
    printed = capsys.readouterr().out
    assert re.search(r"2\.00 \(1\.50–2\.50\) \| 2\.40–2\.60 .* \| 0\.250 \| 0\.300 \| +\|", printed)
    assert "left out: no" in printed
    assert "0 of 1 worse" in printed
    assert json.loads((tmp_path / "all.json").read_text())["rows"][0]["bytes"] == [2**20, 2**22]
    recorded = json.loads(file.read_text())
    assert recorded[key]["time"] == [1.5, 2.5]
    assert recorded[key]["memory"] == [0.25, 0.25]
    assert recorded["ops/speech | d | e"] == known
