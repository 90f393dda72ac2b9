"""The table of mechanisms: classes by name, and mechanisms from outside the package."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from headwise.base.errors import InputError
from headwise.models import attention
from headwise.models.attention import (
    ATTENTION,
    Attention,
    SoftmaxAttention,
    accepts_option,
    attention_class,
    build_attention,
    register_attention,
)
from headwise.models.layers.vit import VisionTransformer
from headwise.pipelines.engine.command_line import listings
from headwise.pipelines.engine.command_line.checks import check_attention
from headwise.pipelines.speech import options as speech
from headwise.pipelines.speech.options import SpeechOptions


class Mean(Attention):
    """Every token receives the mean.

    More is not in the summary.
    """

    def __init__(self, width: int, *, gain: float = 1.0) -> None:
        super().__init__(width)
        self.gain = gain
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        source = self.check(x, context, mask)
        return self.gain * self.out(source.mean(1, keepdim=True)).expand_as(x)


class MeanOfCells(Mean):
    extras = ("size",)


@pytest.fixture(autouse=True)
def _unchanged_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works on a copy of the table."""
    monkeypatch.setattr(attention, "REGISTERED", {})
    before = dict(ATTENTION)
    yield
    ATTENTION.clear()
    ATTENTION.update(before)


def test_a_class_is_given_by_name_or_alias() -> None:
    assert attention_class("softmax") is attention_class("attention") is SoftmaxAttention
    assert accepts_option("softmax", "causal")
    assert not accepts_option("star", "causal")
    with pytest.raises(InputError, match="no mechanism 'sofmax'; nearest is 'softmax'"):
        attention_class("sofmax")


def test_a_registered_mechanism_is_accepted_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    register_attention("mean", Mean, cost="O(N D)")
    mechanism = build_attention("mean", 8, 2, gain=3.0)
    assert isinstance(mechanism, Mean)
    assert mechanism.gain == 3.0
    with pytest.raises(ValueError, match="'mean' has no option 'gian'; nearest is 'gain'"):
        build_attention("mean", 8, gian=1)
    model = VisionTransformer(
        image=(4, 4), patch=2, channels=1, classes=2, width=8, depth=1, heads=2, attention="mean"
    )
    assert model(torch.randn(3, 1, 4, 4)).shape == (3, 2)
    check_attention("mean", fits=("any tokens",), why="")
    with pytest.raises(InputError, match="--attention maen: unknown; did you mean mean"):
        check_attention("maen", fits=("any tokens",), why="")
    listings.run("list", ["attention"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mean "))
    assert row.split("  ")[-1].strip() == "Every token receives the mean."


def test_speech_accepts_what_a_registered_class_declares() -> None:
    register_attention("mean", Mean)
    speech.check(SpeechOptions(encoder_attention="mean", cross_attention="mean"))
    with pytest.raises(InputError, match="--decoder-attention mean: has no causal form"):
        speech.check(SpeechOptions(decoder_attention="mean"))


def test_a_grid_is_known_by_its_extra() -> None:
    register_attention("cells", MeanOfCells)
    assert ATTENTION["cells"].fits == "grid"
    with pytest.raises(InputError, match="--attention cells: no grid"):
        check_attention("cells", fits=("any tokens",), why="no grid")
    with pytest.raises(ValueError, match="fits 'sequence', but extras are"):
        register_attention("cells-in-a-row", MeanOfCells, fits="sequence")
    with pytest.raises(ValueError, match="fits 'grid', but extras are"):
        register_attention("mean", Mean, fits="grid")


def test_the_same_class_may_be_registered_again_and_another_may_not() -> None:
    register_attention("mean", Mean, summary="first")
    register_attention("mean", Mean, summary="second")
    assert ATTENTION["mean"].paper == "second"
    for taken in ("mean", "star", "attention"):
        with pytest.raises(ValueError, match=f"'{taken}' is the name of another mechanism"):
            register_attention(taken, MeanOfCells)


@pytest.mark.parametrize("name", ["", "none", "two words", "-m", "Mean"])
def test_a_name_must_be_usable_as_an_option(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        register_attention(name, Mean)


def test_what_is_no_mechanism_is_refused() -> None:
    with pytest.raises(ValueError, match="not a subclass of Attention"):
        register_attention("linear", nn.Linear)  # pyright: ignore[reportArgumentType]


def test_the_package_and_all_mechanisms_load_without_the_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "import headwise.models.attention as attention\n"
        "assert 'torch' not in sys.modules\n"
        "for name in attention.ATTENTION:\n"
        "    attention.build_attention(name, 16, 4)\n"
        "heavy = {'timm', 'polars', 'matplotlib', 'pandas', 'sklearn', 'torchvision'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_forward_without_the_arguments_of_all_mechanisms_is_refused() -> None:
    class Unmasked(Mean):
        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return x

    with pytest.raises(ValueError, match="forward of Unmasked takes no mask; every mechanism has"):
        register_attention("unmasked", Unmasked)
