"""What the table says of mechanisms without importing them, and what their classes say."""

import pytest

from headwise.base.errors import InputError
from headwise.models.attention import ATTENTION, build_attention, has_feature, names_with
from headwise.models.attention.table import FEATURES, Feature


@pytest.mark.parametrize("feature", FEATURES)
def test_the_table_of_features_is_that_of_the_classes(feature: Feature) -> None:
    assert names_with(feature) == [name for name in ATTENTION if has_feature(name, feature)]


@pytest.mark.parametrize("name", ATTENTION)
def test_a_mechanism_has_the_features_that_it_says(name: str) -> None:
    import torch

    mixer, x = build_attention(name, 16, 4), torch.randn(2, 9, 16)
    assert mixer.crosses == has_feature(name, "context")
    if not has_feature(name, "weights"):
        with pytest.raises(ValueError, match="has no attention weights"):
            mixer.weights(x)
    else:
        assert mixer.weights(x).shape[2:] == (9, 9)
    if has_feature(name, "causal"):
        assert build_attention(name, 16, 4, causal=True).causal


def test_an_unknown_name_has_no_feature() -> None:
    with pytest.raises(InputError, match="nearest is 'softmax'"):
        has_feature("softmx", "weights")
