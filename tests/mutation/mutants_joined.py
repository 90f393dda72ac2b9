"""Bugs in what all tasks share since several had it: unread options, runs in memory, brackets."""

from mutant import Mutant

CHECKS = "pipelines/engine/command_line/checks.py"
UNREAD = ("pipelines/engine/test_unread_options.py",)
LOADED = ("pipelines/engine/test_run.py", "-k", "loads_the_run_once")
BRACKETS = ("pipelines/engine/test_paths.py", "-k", "brackets")
PARSING = "pipelines/engine/command_line/parsing.py"
SAMPLE = ("pipelines/engine/test_command_line.py", "-k", "preset_of_its_sample")

MUTANTS = [
    Mutant(
        "preset-of-the-sample-with-data",
        "engine",
        PARSING,
        'not (_value(call, "data") or stored.get("data")):',
        'not _value(call, "data"):',
        SAMPLE,
    ),
    Mutant(
        "preset-of-the-sample-over-the-file",
        "engine",
        PARSING,
        'from_file + flags if _value(call, "preset") else flags + from_file',
        "from_file + flags",
        SAMPLE,
    ),
    Mutant(
        "stored-runs-checked",
        "engine",
        CHECKS,
        "token = _of_a_run.set(True)",
        "token = _of_a_run.set(False)",
        UNREAD,
    ),
    Mutant(
        "presets-checked",
        "engine",
        CHECKS,
        "preset = _of_a_preset.get() or {}",
        "preset: dict[str, object] = {}",
        UNREAD,
    ),
    Mutant(
        "lists-of-presets",
        "engine",
        CHECKS,
        "return tuple(value) if isinstance(value, list) else value",
        "return value",
        UNREAD,
    ),
    Mutant(
        "no-unread-option",
        "engine",
        CHECKS,
        "        if name in changed:\n",
        "        if False:\n",
        UNREAD,
    ),
    Mutant(
        "stale-model",
        "engine",
        "pipelines/engine/runs/loaded.py",
        "return self.stamps == _stamps(self.run)",
        "return True",
        LOADED,
    ),
    Mutant(
        "model-of-another-device",
        "engine",
        "pipelines/engine/runs/run.py",
        " or chosen.accelerator != self.accelerator",
        "",
        LOADED,
    ),
    Mutant(
        "brackets-in-reports",
        "engine",
        "pipelines/engine/runs/report.py",
        'pl.read_csv(run.path / "history.csv", glob=False)',
        'pl.read_csv(run.path / "history.csv")',
        BRACKETS,
    ),
    Mutant(
        "brackets-in-lines",
        "engine",
        "pipelines/engine/inference/output.py",
        "pl.read_ndjson(path.read_bytes(),",
        "pl.read_ndjson(path,",
        BRACKETS,
    ),
]
