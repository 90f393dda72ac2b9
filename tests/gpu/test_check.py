"""`make gpu` on a machine without a card: a dry run, and what its verdict is made of."""

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from headwise.kernels import KERNELS
from headwise.pipelines import TASKS
from headwise.tests.gpu import check, modes, roofline, speed, training, values
from headwise.tests.gpu.workloads import WORKLOADS
from headwise.tests.kernels.cases import CASES, Case, Maker, Sizes

FORMULAS = {
    "rollout_row",
    "merge_partials",
    "label_contributions",
    "dispatch",
    "neighbourhood_scores",
    "neighbourhood_sum",
    "select_keys",
}
DOCS = Path(__file__).parents[2] / "docs" / "explanation" / "kernels.md"


def dry_run(folder: Path, *words: str) -> tuple[str, dict]:
    """What `check.py` prints and writes, in a process of its own: it changes Triton and PyTorch."""
    command = [sys.executable, "-W", "ignore", check.__file__, "--dry-run", "--output", folder]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*-dry.json")
    return done.stdout, json.loads(file.read_text())


@pytest.mark.skipif(not check.triton_here(), reason="Triton is optional and not installed")
def test_a_dry_run_is_right(tmp_path: Path) -> None:
    """Of one operator and a training step; `make gpu` runs the others dry, as tests/kernels do."""
    printed, report = dry_run(tmp_path, "--only", "differential", "--shapes", "1")
    assert "dry run (asked for)" in printed
    assert "all right" in printed
    assert len(report["values"]) >= 4
    assert {row["check"] for row in report["modes"]} == {"fake forms", "compiled"}
    assert [row["operator"] for row in report["times"]] == ["differential_combine"] * 2
    (row,) = report["pipelines"]
    assert row["pipeline"] == "forecast"
    assert row["loss"] == pytest.approx(row["loss_of_cpu"], rel=training.TOLERANCE)


def test_every_operator_is_checked_and_timed() -> None:
    named = [name for names in check.OPERATORS_OF.values() for name in names]
    assert list(check.OPERATORS_OF) == [case.__name__ for case in CASES]
    assert set(named) | FORMULAS == set(KERNELS) | {"attend_with_lse"}
    assert {workload.operator for workload in WORKLOADS} == set(named)


def test_a_wrong_number_shape_or_nan_is_noticed() -> None:
    right = [torch.tensor([1.0, 200.0, torch.inf])]

    def fault(*numbers: float) -> list[str]:
        return values.differences("result", [torch.tensor(numbers)], right, 1e-3)

    assert fault(1.1, 200.0, torch.inf) == []  # 0.1 of 200
    assert "off by 0.0015" in fault(1.3, 200.0, torch.inf)[0]
    for numbers in ((1.0, torch.nan, torch.inf), (1.0, 200.0, 5.0), (1.0, 200.0, -torch.inf)):
        assert "off by inf" in fault(*numbers)[0]
    assert "shape" in fault(1.0, 200.0)[0]
    whole = values.differences("result", [torch.tensor([1, 2])], [torch.tensor([1, 3])], 1.0)
    assert whole == ["result 0 differs in 1 of 2"]


def test_an_operator_that_is_wrong_or_random_gives_lines() -> None:
    def shifted(x: Maker, sizes: Sizes):
        numbers = x(sizes.batch, sizes.width)
        return lambda: numbers * (2.0 if x.reference else 2.1)

    def random(x: Maker, sizes: Sizes):
        return lambda: torch.zeros(3) if x.reference else torch.rand(3) * 1e-6

    cpu = torch.device("cpu")
    lines = values.wrong(values.Trial(shifted, Sizes(), torch.float32), cpu)
    assert [line.split(" is off")[0] for line in lines] == ["result 0", "gradient 0"]
    lines = values.wrong(values.Trial(random, Sizes(), torch.float32), cpu)
    assert lines == ["result 0 differs between two runs"]


@pytest.mark.parametrize("case", CASES)
def test_a_call_is_repeated_on_its_inputs_while_waits_are_errors(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", asked.append)
    assert modes.never_waits(case, torch.device("cpu"), modes.SMALL) == ""
    assert asked == ["error", "default"]


def test_full_size_trials_have_all_types_many_heads_and_nothing_to_compute() -> None:
    types = (torch.float32, torch.float16, torch.bfloat16)
    trials = list(values.trials(0, 12, types))
    for case in CASES:
        of_case = [trial for trial in trials if trial.case is case]
        assert {trial.dtype for trial in of_case} == set(types)
        assert {trial.lay.__name__ for trial in of_case} == {"straight", "permuted", "strided"}
        assert min(trial.sizes.batch for trial in of_case) == 0
        assert min(trial.sizes.tokens for trial in of_case) == 0
    assert max(trial.sizes.batch for trial in trials) == 65_537
    assert {trial.sizes.mask for trial in trials} == {"", "keys", "pairs", "heads"}
    assert sum(trial.far == 1e4 for trial in trials) == len(values.WITH_SCORES)
    assert trials == list(values.trials(0, 12, types))


def test_the_verdict_counts_wrong_values_checks_and_calls_but_no_time() -> None:
    report = {
        "values": [{"faults": []}, {"faults": ["result 0 is off"]}],
        "modes": [{"result": "right"}, {"result": "graph broke"}],
        "pipelines": [{"result": "right"}],
        "times": [{"ms": 1e9}, {"fault": "RuntimeError"}],
    }
    assert check.faults(report) == 3


def test_times_show_the_change_to_the_last_report_of_a_card(tmp_path: Path) -> None:
    workload = WORKLOADS[0]
    work = roofline.works(workload)["forward"]
    before = speed.row(workload, "forward", work, 2.0, 1.0)
    for name, dry in (("1", False), ("2", True)):
        report = {"dry": dry, "times": [before | {"ms": 4.0 if dry else 2.0}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    times = check.last_report(tmp_path)["times"]
    now = speed.row(workload, "forward", work, 1.0, 1.5)
    text = list(speed.lines([now, {"operator": "x", "fault": "raised"}], times))
    assert "-50 %" in text[1]
    assert "1.50" in text[1]  # the other way takes so many times as long
    assert f"{100e3 * work.roof:.1f} %" in text[1]
    assert "raised" in text[2]
    assert check.last_report(tmp_path / "none") == {}


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(3, 2), nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.layer(x)).relu()


def trainer_of(loss: Callable[..., torch.Tensor]) -> SimpleNamespace:
    """As much of a training as is compiled."""
    torch.manual_seed(1)
    plain = training.without_dropout(OneLayer())
    return SimpleNamespace(plain=plain, options=None, pipeline=SimpleNamespace(loss=loss))


def test_the_loss_of_a_task_is_compiled_and_compared() -> None:
    def right(model: nn.Module, batch: torch.Tensor, options: None) -> torch.Tensor:
        return model(batch).square().mean()

    def wrong(model: nn.Module, batch: torch.Tensor, options: None) -> torch.Tensor:
        return right(model, batch, options) * (1.01 if torch.compiler.is_compiling() else 1.0)

    batch = torch.randn(4, 3)
    assert training.compiled_fault(trainer_of(right), batch, training.DRY_BACKEND) == ""
    fault = training.compiled_fault(trainer_of(wrong), batch, training.DRY_BACKEND)
    assert fault.startswith("compiled, its loss is")


@pytest.mark.parametrize(
    ("losses", "fault"),
    [
        ((1.0, 1.01), ""),
        ((1.023, 1.0), ""),
        ((1.03, 1.0), "its loss is 1.03"),
        ((math.nan, 1.0), "its loss is nan"),
    ],
)
def test_a_step_whose_loss_is_not_that_of_the_cpu_is_noticed(
    losses: tuple[float, float], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    upcoming = list(losses)

    def step(*words: str) -> dict:
        asked.append(words)
        return {"loss": upcoming.pop(0), "compiled": "", "draws": [1.0, 1.002]}

    monkeypatch.setattr(training, "step", step)
    (row,) = training.steps("cuda", ("forecast",))
    assert row["result"].startswith(fault or "right")
    assert not row["bare"]
    assert asked == [("forecast", "cuda", "bf16-mixed", "inductor"), ("forecast", "cpu", "32-true")]
    assert list(inspect.signature(training.steps).parameters["names"].default) == list(TASKS)


def test_a_gpu_below_8_0_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert check.machine(dry=False)[1] == (
        "cuda:0 has compute capability 7.5, the kernels need 8.0"
    )
    assert check.machine(dry=True)[1] == ""


def test_the_roof_is_the_slower_of_memory_and_products() -> None:
    stats = roofline.works(WORKLOADS[0])
    batch, heads, tokens, _, width = WORKLOADS[0].sizes
    rows = batch * heads * tokens
    # Query, key, value and output of two bytes; log-sum-exp and entropy of four.
    assert stats["forward"].bytes == rows * (4 * 2 * width + 2 * 4)
    assert stats["forward"].flops == 4 * rows * tokens * width
    assert stats["forward"].roof == pytest.approx(4 * rows * tokens * width / 989e12)
    assert stats["backward"].bytes == 2 * stats["forward"].bytes
    (pool,) = (x for x in WORKLOADS if x.operator == "softmax_pool" and "N" in x.names)
    moved = roofline.works(pool)["forward"]
    assert moved.roof == moved.bytes / 3.35e12
    assert moved.limit == "memory"


def test_the_table_of_the_documentation_is_what_shapes_give() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for workload in WORKLOADS:
        for name, work in roofline.works(workload).items():
            row = f"| {' | '.join(roofline.figures(workload, name, work))} |"
            assert row in text, f"python tests/gpu/roofline.py: {row}"
