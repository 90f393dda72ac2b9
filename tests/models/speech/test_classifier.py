"""Classifiers of recordings: padding changes nothing, heads are what they say, importance and
experts.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy

from headwise.models.attention.gaussian import GaussianAdaptiveAttention
from headwise.models.speech.classifier import GroupedGaussian, LinearRecordings, RecordingClassifier
from headwise.models.speech.encoder import SpeechEncoder

HEADS = ("attention", "mean", "gaam", "gaam-density", "gaam-mixture", "grouped-gaam")


def classifier(head, tokens: int = 1, **options) -> RecordingClassifier:
    torch.manual_seed(0)
    mean, deviation = torch.randn(tokens, 5), torch.rand(tokens, 5) + 0.5
    return RecordingClassifier(mean, deviation, 8, 3, head=head, **options).eval()


@pytest.mark.parametrize("head", HEADS)
def test_padding_and_neighbours_change_nothing(head) -> None:
    model = classifier(head)
    x = torch.randn(2, 7, 5)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    other = x.clone()
    other[1, 4:] = 1e3
    torch.testing.assert_close(model(x, mask), model(other, mask))
    alone = model(x[1:, :4], torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(model(x, mask)[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_all_weights_learn(head) -> None:
    model = classifier(head, tokens=4).train()
    loss = cross_entropy(
        model(torch.randn(6, 4, 5), torch.ones(6, 4, dtype=torch.bool)), torch.arange(6) % 3
    )
    loss.backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_mean_pooling_is_a_network_of_each_token_and_their_mean() -> None:
    model = classifier("mean")
    x, mask = torch.randn(1, 4, 5), torch.ones(1, 4, dtype=torch.bool)
    by_token = [model.pooled(x[:, k : k + 1], mask[:, :1]) for k in range(4)]
    torch.testing.assert_close(model.pooled(x, mask), torch.stack(by_token).mean(0))


def test_grouped_gaam_is_gaam_and_then_grouped_queries() -> None:
    torch.manual_seed(0)
    model = GroupedGaussian(16, 8)
    assert (model.grouped.heads, model.grouped.kv_heads) == (8, 2)
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(model(x), model.grouped(x + model.gaussian(x)))


@pytest.mark.parametrize("head", ["attention", "gaam", "gaam-mixture"])
def test_importance_is_a_share_of_the_tokens_and_0_in_the_padding(head) -> None:
    model = classifier(head)
    x, mask = torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool)
    mask[0, 3:] = False
    weights = model.importance(x, mask)
    assert not weights[0, 3:].any()
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_importance_of_a_gaussian_is_the_mean_of_its_weights() -> None:
    model = classifier("gaam")
    x, mask = torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool)
    layer = model.layers[0]
    assert isinstance(layer.mixer, GaussianAdaptiveAttention)
    expected = layer.mixer.importance(layer.norm1(model.entered(x))).mean(2)
    torch.testing.assert_close(model.importance(x, mask), expected)


def test_a_head_without_weights_has_no_importance() -> None:
    model = classifier("mean")
    assert not model.has_importance
    assert not classifier("attention", attention="squeeze").has_importance
    with pytest.raises(ValueError, match="no weights of tokens"):
        model.importance(torch.randn(1, 2, 5), torch.ones(1, 2, dtype=torch.bool))


def test_diverse_experts_answer_with_their_mean() -> None:
    model = classifier("mean", diverse=True)
    x, mask = torch.randn(4, 3, 5), torch.ones(4, 3, dtype=torch.bool)
    mean = model(x, mask)
    experts = model.train()(x, mask)
    assert experts.shape == (3, 4, 3)
    torch.testing.assert_close(mean, experts.mean(0))


def test_layers_have_places_and_frames_have_none() -> None:
    assert classifier("mean", tokens=4).places is not None
    assert classifier("mean").places is None


@pytest.mark.parametrize(("reads", "size"), [("statistics", 4), ("tokens", 15), ("mean", 5)])
def test_a_linear_model_reads_what_it_says(reads, size) -> None:
    model = LinearRecordings(reads, size, 2)
    model.weight, model.bias = torch.randn(2, size), torch.randn(2)
    tokens, mask, statistics = torch.randn(3, 3, 5), torch.ones(3, 3).bool(), torch.randn(3, 4)
    x = {"statistics": statistics, "tokens": tokens.reshape(3, 15), "mean": tokens.mean(1)}[reads]
    torch.testing.assert_close(model(tokens, mask, statistics), x @ model.weight.T + model.bias)


def test_the_states_of_layers_end_with_those_of_the_encoder() -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(8, 16, heads=2, depth=2).eval()
    features = torch.randn(1, 8, 21)
    states = encoder.layer_states(features)
    assert states.shape == (3, 1, 11, 16)
    torch.testing.assert_close(states[-1], encoder(features)[0])
    torch.testing.assert_close(encoder.layers[0](states[0]), states[1])
