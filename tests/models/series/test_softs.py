"""SOFTS against the published architecture written from its formulas, with the same weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise import models
from headwise.kernels.decompositions import plain_decompositions
from headwise.models import SOFTS
from headwise.tests.kernels.waiting import assert_never_waits


def published(
    weights: dict[str, Tensor], layers: int, past: Tensor, marks: Tensor | None, normalise: bool
) -> Tensor:
    """The published evaluation pass: softmax mean, copies of the core, concatenation, post-norm."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    channels, mean, deviation = past.shape[2], None, None
    if normalise:
        mean = past.mean(1, keepdim=True)
        past = past - mean
        deviation = torch.sqrt(
            past.pow(2).mean(1, keepdim=True) - past.mean(1, keepdim=True) ** 2 + 1e-5
        )
        past = past / deviation
    x = linear(
        torch.cat([past, marks], 2).transpose(1, 2) if marks is not None else past.transpose(1, 2),
        "embed",
    )
    for k in range(layers):
        name = f"layers.{k}"
        z = linear(F.gelu(linear(x, f"{name}.mixer.hidden")), f"{name}.mixer.core")
        core = (z.softmax(1) * z).sum(1, keepdim=True).repeat(1, x.shape[1], 1)
        fused = linear(
            F.gelu(linear(torch.cat([x, core], -1), f"{name}.mixer.fuse")), f"{name}.mixer.out"
        )
        x = norm(x + fused, f"{name}.norm1")
        x = norm(
            x + linear(F.gelu(linear(x, f"{name}.feedforward.up")), f"{name}.feedforward.down"),
            f"{name}.norm2",
        )
    out = linear(x, "head").transpose(1, 2)[:, :, :channels]
    return out if mean is None else out * deviation + mean


def small(**options: object) -> SOFTS:
    torch.manual_seed(0)
    return SOFTS(
        **({"lookback": 24, "horizon": 6, "width": 16, "core": 8, "feedforward": 12} | options)
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 7, 150])
@pytest.mark.parametrize("with_marks", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_evaluation_equals_the_published_architecture(
    channels: int, with_marks: bool, normalise: bool
) -> None:
    model = small(normalise=normalise).eval()
    past = 3 * torch.randn(4, 24, channels) + 5
    marks = torch.rand(4, 24, 4) - 0.5 if with_marks else None
    expected = published(model.state_dict(), 2, past, marks, normalise)
    torch.testing.assert_close(model(past, marks), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"width": 256, "core": 256, "feedforward": 256, "layers": 1}, 510_816),  # ETTh1
        ({"width": 128, "core": 64, "feedforward": 128, "layers": 2}, 223_840),  # ETTh2, ETTm1
        ({"width": 256, "core": 256, "feedforward": 128, "layers": 2}, 840_800),  # ETTm2
        (
            {"width": 512, "core": 128, "feedforward": 512, "layers": 3},
            4_438_496,
        ),  # ECL, Traffic, Weather
        ({"layers": 4, "horizon": 12}, 7_416_332),  # PEMS03
    ],
)
def test_parameter_counts_of_the_published_models(options: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        model = SOFTS(**({"lookback": 96, "horizon": 96} | options))
    assert sum(p.numel() for p in model.parameters()) == count


def test_channels_are_free_and_their_order_is_not_seen() -> None:
    model = small().eval()
    for channels in (1, 3, 40):
        past, order = torch.randn(2, 24, channels), torch.randperm(channels)
        torch.testing.assert_close(
            model(past[..., order]), model(past)[..., order], rtol=1e-5, atol=1e-5
        )


def test_known_columns_take_part_over_the_horizon() -> None:
    model = small(known=2).eval()
    past, known = torch.randn(2, 24, 3), torch.randn(2, 30, 2)
    out = model(past, known=known)
    assert out.shape == (2, 6, 3)
    later = known.clone()
    later[:, -1] += 1
    assert not torch.allclose(model(past, known=later), out)
    torch.testing.assert_close(model(past, known=known.double()), out)


@pytest.mark.parametrize("attention", ["star", "attention"])
@pytest.mark.parametrize("ffn", ["mlp", "glu"])
def test_training_step_in_every_arrangement(attention: str, ffn: str) -> None:
    model = small(attention=attention, ffn=ffn, heads=4, dropout=0.1, known=1).train()
    past, known = torch.randn(2, 24, 60), torch.randn(2, 30, 1)
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = model(past, torch.rand(2, 24, 4), known)
        out.float().pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_seed_decides_training() -> None:
    model, past = small().train(), torch.randn(2, 24, 30)
    torch.manual_seed(1)
    first = model(past)
    torch.manual_seed(1)
    assert torch.equal(model(past), first)
    assert not torch.equal(model(past), first)


def test_training_fits_a_simple_rule() -> None:
    """Series of one period: the error falls far below the variance of the series."""
    torch.manual_seed(2)
    model = small(layers=1).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    time = torch.arange(30.0)[None, :, None]
    loss = torch.tensor(1.0)
    for _ in range(150):
        series = torch.sin(time * (2 * torch.pi / 12) + 6.3 * torch.rand(16, 1, 5))
        loss = F.mse_loss(model(series[:, :24]), series[:, 24:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05


def test_training_on_a_gpu_never_waits_for_the_host() -> None:
    """So a CUDA graph can hold it. `star_core` is one operator here; its own tests look inside and
    at its backward pass.
    """
    model = small(attention="star").train()
    weights = model.state_dict()

    def forward(past: Tensor, *tensors: Tensor) -> None:
        out = torch.func.functional_call(model, dict(zip(weights, tensors)), (past,))
        out.square().mean()

    assert_never_waits(forward, torch.randn(2, 24, 150), *weights.values())


def test_compiled_training_step() -> None:
    model, past = small(layers=1).train(), torch.randn(2, 24, 40)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    outputs, gradients = [], []
    for call in (model, compiled):
        torch.manual_seed(3)
        out = call(past)
        outputs.append(out)
        gradients.append(torch.autograd.grad(out.sum(), list(model.parameters())))
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_exported_program_runs_without_headwise(tmp_path: Path) -> None:
    model = small(known=1).eval()
    batch, channels = torch.export.Dim("batch", min=1), torch.export.Dim("channels", min=1)
    sample = (torch.randn(3, 24, 7), torch.randn(3, 24, 4), torch.randn(3, 30, 1))
    dynamic = ({0: batch, 2: channels}, {0: batch}, {0: batch})
    program = torch.export.export(model, sample, dynamic_shapes=dynamic)
    plain = program.run_decompositions(plain_decompositions())
    assert "headwise" in program.graph_module.code
    assert "headwise" not in plain.graph_module.code
    inputs = (torch.randn(2, 24, 300), torch.randn(2, 24, 4), torch.randn(2, 30, 1))
    expected = model(*inputs).detach()
    for form in (program, plain):
        torch.testing.assert_close(form.module()(*inputs), expected)
    torch.export.save(plain, tmp_path / "model.pt2")
    torch.save((inputs, expected), tmp_path / "sample.pt")
    code = (
        "import sys, torch; folder = sys.argv[1];"
        "inputs, expected = torch.load(folder + '/sample.pt', weights_only=True);"
        "out = torch.export.load(folder + '/model.pt2').module()(*inputs);"
        "torch.testing.assert_close(out, expected); assert 'headwise' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(2, 23, 3), None, torch.zeros(2, 30, 1)), "past must be"),
        (
            (torch.zeros(2, 24, 3), torch.zeros(2, 23, 4), torch.zeros(2, 30, 1)),
            "past_marks must be",
        ),
        ((torch.zeros(2, 24, 3), None, None), "built for 1 known columns, got 0"),
        ((torch.zeros(2, 24, 3), None, torch.zeros(2, 24, 1)), "known must be"),
    ],
)
def test_mistakes_are_named(inputs: tuple[Tensor | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(known=1)(*inputs)


def test_constructor_and_module_mistakes() -> None:
    with pytest.raises(ValueError, match="lookback must be positive"):
        small(lookback=0)
    with pytest.raises(ValueError, match="known must not be negative"):
        small(known=-1)
    with pytest.raises(AttributeError):
        _ = models.nothing
