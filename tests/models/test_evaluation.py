"""What holds for every model: dropout is off in evaluation, gradients are whole, rows of a batch
are alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from headwise.models.bags.acmil import ACMIL, MaxPool, MeanPool
from headwise.models.clicks.click import DIN, PLE, DCNv2, Layout, MMoE, SharedBottom
from headwise.models.clicks.infnet import INFNet
from headwise.models.clicks.tokens import TokenMixer
from headwise.models.layers.vit import TokenModel, TransformerEncoder, VisionTransformer
from headwise.models.series.softs import SOFTS
from headwise.models.speech.speech_to_text import SpeechToText
from headwise.tests.models.contracts import (
    assert_evaluation_is_without_dropout,
    assert_gradient_is_the_derivative,
)

SPEECH = {
    "features": 6,
    "width": 8,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "audio_positions": 10,
    "text_positions": 8,
    "kernel": 3,
}
LAYOUT = Layout([9, 7, 5], [1, 1, 3], sequences=2, tasks=2, ages=10)


class Model(NamedTuple):
    """build: the model with that share of dropout; inputs: what it is called with; alone: rows of
    the batch are its first dimension, so that each can be given by itself; single: its answer is
    float32 whatever its weights are."""

    build: Callable[[float], nn.Module]
    inputs: tuple[Tensor, ...]
    alone: bool = True
    single: bool = False


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def small_timm(dropout: float) -> Any:
    from timm.models.vision_transformer import VisionTransformer as Timm

    from headwise.models.layers.vit_trunk import Trunk

    return Trunk(
        Timm(
            img_size=(16, 16),
            patch_size=8,
            embed_dim=8,
            depth=2,
            num_heads=2,
            num_classes=0,
            attn_drop_rate=dropout,
            proj_drop_rate=dropout,
            drop_path_rate=dropout,
        )
    )


def dcal(dropout: float) -> nn.Module:
    from headwise.models.vision.dcal import DCAL

    return DCAL(small_timm(dropout), 3, local=0.5, output="probabilities")


def cca(dropout: float) -> nn.Module:
    from headwise.models.vision.cca import ConditionalEmbedder

    return ConditionalEmbedder(small_timm(dropout), 2, vector=4)


def medusa(dropout: float) -> nn.Module:
    from headwise.models.vision.medusa import build_medusa

    return build_medusa("small", 3, body_width=2, head_width=4, dropout=dropout)


class First(nn.Module):
    """A trunk's tokens alone."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images)[0]


CLICKS = (
    torch.tensor([[1, 10, 17, 16, 20], [8, 9, 16, 16, 16]]),
    torch.tensor([1, 2, 3, 9, 5]),
    torch.tensor([1, 2, 3, 9, 5]),
    torch.tensor([0, 3, 4, 4, 5]),
)
PAST, BAGS, FRAMES = (
    (normal(3, 12, 4),),
    (normal(9, 6), torch.tensor([0, 4, 5, 9])),
    normal(2, 6, 20),
)
SPOKEN = (FRAMES, torch.tensor([[0, 3, 1], [0, 2, 2]]))
PICTURES = (normal(2, 3, 16, 16),)


def softs(**options: Any) -> Callable[[float], nn.Module]:
    sizes = {"lookback": 12, "horizon": 4, "width": 8, "core": 6, "feedforward": 8, "heads": 2}
    return lambda dropout: SOFTS(**{**sizes, **options, "dropout": dropout})


def bags(kind: type, **options: Any) -> Callable[[float], nn.Module]:
    return lambda dropout: kind(6, 3, inner=8, dropout=dropout, **options)


def mixed_bags(dropout: float) -> nn.Module:
    return ACMIL(
        6, 3, inner=8, hidden=4, mixing=TransformerEncoder(8, depth=1, heads=2, dropout=dropout)
    )


def clicks(kind: type, **options: Any) -> Callable[[float], nn.Module]:
    return lambda dropout: kind(LAYOUT, width=8, towers=[6], dropout=dropout, **options)


def speech(**options: Any) -> Callable[[float], nn.Module]:
    return lambda dropout: SpeechToText(7, **{**SPEECH, **options, "dropout": dropout})


MODELS: dict[str, Model] = {
    "softs": Model(softs(), PAST),
    "softs with experts": Model(softs(attention="softmax", ffn="moe", moe={"experts": 3}), PAST),
    "softs with known columns": Model(
        softs(ffn="glu", known=2), (PAST[0], normal(3, 12, 4), normal(3, 16, 2))
    ),
    "acmil gated": Model(bags(ACMIL, hidden=4), BAGS, alone=False),
    "acmil multihead": Model(bags(ACMIL, heads=2, attention="multihead"), BAGS, alone=False),
    "acmil mixed": Model(mixed_bags, BAGS, alone=False),
    "mean of a bag": Model(bags(MeanPool), BAGS, alone=False),
    "largest of a bag": Model(bags(MaxPool), BAGS, alone=False),
    "tokens": Model(lambda d: TokenModel(4, 3, width=8, depth=2, heads=2, dropout=d), PAST),
    "pictures": Model(
        lambda d: VisionTransformer(
            image=(16, 16), patch=8, width=8, depth=2, heads=2, ffn="convglu", dropout=d
        ),
        PICTURES,
    ),
    "speech": Model(speech(), SPOKEN),
    "speech conformer": Model(speech(encoder="conformer", ffn="glu"), SPOKEN),
    "speech with experts": Model(speech(ffn="moe", moe={"experts": 3}), SPOKEN),
    "shared bottom": Model(clicks(SharedBottom, bottom=[8]), CLICKS, alone=False),
    "mmoe": Model(clicks(MMoE, hidden=6), CLICKS, alone=False),
    "ple": Model(clicks(PLE, hidden=6), CLICKS, alone=False),
    "din": Model(clicks(DIN, targets=[0, 1], hidden=[6], bottom=[8]), CLICKS, alone=False),
    "dcn": Model(clicks(DCNv2, bottom=[8]), CLICKS, alone=False),
    "mixer": Model(clicks(TokenMixer, layers=1, heads=2), CLICKS, alone=False),
    "infnet": Model(clicks(INFNet, heads=2), CLICKS, alone=False),
    "infnet hub": Model(clicks(INFNet, heads=2, variant="hub"), CLICKS, alone=False),
    "trunk": Model(lambda d: First(small_timm(d)), PICTURES),
    "dcal": Model(dcal, PICTURES, single=True),
    "cca": Model(cca, PICTURES, single=True),
    "medusa": Model(medusa, (normal(2, 1, 32, 32), normal(2, 1, 24, 24))),
}
VISION = {"trunk", "dcal", "cca", "medusa"}
every_model = pytest.mark.parametrize("name", MODELS)


def built(name: str, dropout: float = 0.0) -> nn.Module:
    if name in VISION:
        pytest.importorskip("timm", reason="the extra `vision` is not installed")
    torch.manual_seed(0)
    model = MODELS[name].build(dropout)
    with torch.no_grad():  # norms that begin with 1 and biases with 0 would hide what they do
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def call(name: str, model: nn.Module) -> Tensor:
    return model(*MODELS[name].inputs)


@every_model
def test_dropout_is_off_in_evaluation(name: str) -> None:
    dropping, plain = built(name, 0.5), built(name)
    assert_evaluation_is_without_dropout(dropping, plain, lambda model: call(name, model))


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_the_weights_is_the_derivative(name: str, training: bool) -> None:
    from headwise.models.attention.base import auxiliary_loss

    model = built(name).double().train(training)
    inputs = [x.double() if x.is_floating_point() else x for x in MODELS[name].inputs]

    def loss() -> Tensor:
        out = model(*inputs)
        projection = (out * torch.cos(torch.arange(out.numel())).view_as(out)).sum()
        auxiliary = auxiliary_loss(model)
        return projection if auxiliary is None else projection + auxiliary

    if MODELS[name].single:
        assert_gradient_is_the_derivative(model, loss, step=1e-3, rtol=2e-3)
    else:
        assert_gradient_is_the_derivative(model, loss)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.alone])
def test_in_evaluation_a_row_is_the_same_alone_and_among_others(name: str) -> None:
    model = built(name).eval()
    together = call(name, model)
    for row in range(len(together)):
        alone = model(*(x[row : row + 1] for x in MODELS[name].inputs))
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-5)
