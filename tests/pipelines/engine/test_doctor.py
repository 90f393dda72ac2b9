"""`headwise doctor` says which types a GPU multiplies fast, with GPUs that are not here."""

from types import SimpleNamespace

import pytest
import torch

from headwise.kernels import forms
from headwise.pipelines.engine.command_line.machine import doctor


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Pretends that this machine has GPUs of these compute capabilities."""

    def pretend(*capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda index: SimpleNamespace(
                name=f"Card {index}",
                total_memory=80 * 2**30,
                major=capabilities[index][0],
                minor=capabilities[index][1],
            ),
        )
        monkeypatch.setattr(
            torch.cuda, "get_device_capability", lambda device: capabilities[device.index]
        )
        monkeypatch.setattr(forms, "triton_installed", lambda: True)

    forms.too_old.cache_clear()
    yield pretend
    forms.too_old.cache_clear()


def row(name: str) -> str:
    return next(line for line in doctor() if line.startswith(name)).removeprefix(name).strip()


def test_a_gpu_with_bf16_says_where_tf32_is_taken(gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    shown = "Card 0, 80 GiB, sm_90, bf16, TF32 (off in matrix products, on in convolutions)"
    assert row("gpu 0") == shown
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert "TF32 (on in matrix products, off in convolutions)" in row("gpu 0")
    assert row("kernels") == "Triton on the GPU"


def test_an_older_gpu_has_neither_and_takes_the_plain_forms(gpus) -> None:
    gpus((7, 5), (8, 0))
    assert "neither bf16 nor TF32: --precision 16-mixed" in row("gpu 0")
    assert "sm_80, bf16, TF32" in row("gpu 1")
    assert row("kernels").startswith("Triton on the GPU; cuda:0 has compute capability 7.5")
    forms.too_old.cache_clear()
    gpus((7, 5))
    assert row("kernels").startswith("plain PyTorch on the GPU; cuda:0 has compute capability 7.5")


def test_an_amd_gpu_has_bf16_alone(gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 4))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert row("gpu 0").endswith("bf16, no TF32")


def test_without_a_gpu_no_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert row("gpu") == "none: everything runs on the CPU"
    assert row("kernels") == "plain PyTorch on the CPU"
