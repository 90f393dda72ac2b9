"""Why a Triton form is refused, with devices that are not here."""

from types import SimpleNamespace

import pytest
import torch

from headwise.kernels import forms


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch):
    """Every GPU has this compute capability."""
    forms.too_old.cache_clear()
    yield lambda *pair: monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: pair
    )
    forms.too_old.cache_clear()


def on(name: str) -> SimpleNamespace:
    device = torch.device(name)
    return SimpleNamespace(device=device, is_cuda=device.type == "cuda")


@pytest.mark.parametrize(("pair", "refused"), [((7, 5), True), ((8, 0), False), ((12, 0), False)])
def test_gpus_older_than_ampere_are_refused_with_their_capability(
    capability, monkeypatch: pytest.MonkeyPatch, pair: tuple[int, int], refused: bool
) -> None:
    monkeypatch.setattr(forms, "triton_installed", lambda: True)
    capability(*pair)
    expected = "cuda:0 has compute capability 7.5, the kernels need 8.0" if refused else ""
    assert forms.triton_refused(on("cuda:0")) == expected


def test_the_numbers_of_amd_gpus_are_not_read_as_those_of_nvidia(
    capability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "triton_installed", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    capability(1, 0)
    assert forms.triton_refused(on("cuda:0")) == ""


def test_tensors_of_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "triton_installed", lambda: True)
    refused = forms.triton_refused(on("cuda:1"), on("cuda:0"))
    assert refused == "the tensors are on cuda:0, cuda:1, the kernel needs one device"
    assert "on cpu" in forms.triton_refused(on("cpu"), on("cuda:0"))


def test_without_triton_the_plain_form_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "triton_installed", lambda: False)
    assert forms.triton_refused(on("cuda:0")) == "Triton is not installed"
