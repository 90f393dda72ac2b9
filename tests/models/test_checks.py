"""Numbers that no model can mean are refused where a model is made, in one line."""

import math
from collections.abc import Callable

import pytest
from torch import nn

from headwise.models.attention import build_attention
from headwise.models.attention.moh import MixtureOfHeads
from headwise.models.moe.layer import MoE
from headwise.models.moe.lora import MoELoRA

NAN, INF = math.nan, math.inf
NOT_SHARES, NEGATIVE, NOT_POSITIVE = (-0.1, 1.0, 1.5, NAN), (-1e-9, NAN, INF), (0, -1.0, NAN, INF)


def mechanism(name: str) -> Callable[..., nn.Module]:
    return lambda **options: build_attention(name, 16, heads=2, **options)


def layer(**options: object) -> nn.Module:
    return MoE(8, experts=4, **options)


def adapted(**options: object) -> nn.Module:
    return MoELoRA(nn.Linear(8, 8), **options)


@pytest.mark.parametrize(
    ("make", "option", "values", "words"),
    [
        (mechanism("softmax"), "dropout", (*NOT_SHARES, "0.1", True), "from 0 to below 1"),
        (mechanism("softmax"), "diversify", NEGATIVE, "0 or more"),
        (mechanism("tap"), "dropout", NOT_SHARES, "from 0 to below 1"),
        (mechanism("differential"), "dropout", NOT_SHARES, "from 0 to below 1"),
        (mechanism("differential"), "fixed_lambda", (NAN, -INF), "a finite number"),
        (mechanism("gaussian"), "eps", NOT_POSITIVE, "positive"),
        (mechanism("signed-root"), "eps", NOT_POSITIVE, "positive"),
        (mechanism("fixed-sequence"), "scale", NEGATIVE, "0 or more"),
        (mechanism("moh"), "balance", NEGATIVE, "0 or more"),
        (layer, "balance", NEGATIVE, "0 or more"),
        (layer, "z", NEGATIVE, "0 or more"),
        (layer, "dropout", NOT_SHARES, "from 0 to below 1"),
        (layer, "bias_rate", NEGATIVE, "0 or more"),
        (layer, "noise_scale", NEGATIVE, "0 or more"),
        (layer, "capacity", NOT_POSITIVE, "positive"),
        (layer, "temperature", NOT_POSITIVE, "positive"),
        (adapted, "balance", NEGATIVE, "0 or more"),
        (adapted, "alpha", (NAN, INF), "a finite number"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(
    make: Callable[..., nn.Module], option: str, values: tuple[object, ...], words: str
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^\w+: {option} must be {words}, got [^\n]+$"):
            make(**{option: value})


def test_the_ends_of_a_range_are_taken() -> None:
    assert MixtureOfHeads(16, heads=2, dropout=0, balance=0).balance == 0
    assert layer(dropout=0.999, z=0.0, bias_rate=0).z == 0
