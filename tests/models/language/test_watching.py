"""What is read of a model's attention while it runs, against transformers' own eager maps."""

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, T5Config, T5ForConditionalGeneration

from headwise.models.language.analysis.needle import NeedlePrompt, needle_scores
from headwise.models.language.analysis.watching import WatchedLayer, decoder_layers, watched
from headwise.models.language.plans.facts import ModelFacts
from headwise.tests.models.language.tiny_models import tiny_model
from headwise.tests.models.language.watched_models import padded_ids, plain_maps

KINDS = ("llama", "qwen3", "gemma3")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_watched_model_gives_the_logits_that_it_gives_otherwise(kind: str, side: str) -> None:
    model, (ids, present) = tiny_model(kind), padded_ids(side)
    layers = []
    with torch.no_grad():
        plain = model(ids, attention_mask=present).logits
        with watched(model, lambda layer: layers.append(layer.layer)):
            logits = model(ids, attention_mask=present).logits
    assert layers == [0, 1, 2]
    torch.testing.assert_close(logits[present], plain[present], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_eager_maps(kind: str, side: str | None) -> None:
    model, (ids, present) = tiny_model(kind), padded_ids(side or "left")
    mask = None if side is None else present
    places = torch.tensor([[19, 3, 8], [10, 12, 9]])
    maps = plain_maps(model, ids, mask)

    def compare(layer: WatchedLayer) -> None:
        for row in range(2):
            plain = maps[layer.layer][row, :, places[row]]
            torch.testing.assert_close(layer.rows(places)[row], plain, atol=1e-5, rtol=0)

    with torch.no_grad(), watched(model, compare):
        model(ids, attention_mask=mask)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mass_of_a_key_is_the_mean_over_later_real_tokens_and_heads(
    kind: str, side: str
) -> None:
    model, (ids, present) = tiny_model(kind), padded_ids(side)
    maps = plain_maps(model, ids, present)
    windows = ModelFacts.of(model).windows

    def compare(layer: WatchedLayer) -> None:
        masses = layer.key_masses(present)
        width = windows[layer.layer] or 1000
        for row in range(2):
            real = present[row].nonzero()[:, 0].tolist()
            for key in real:
                later = [q for q in real if key < q < key + width]
                weights = maps[layer.layer][row].mean(0)[later, key]
                reachable = [sum(q - width < k <= q for k in real) for q in later]
                even = sum(1 / count for count in reachable)
                assert masses.later[row, key] == len(later)
                if later:
                    assert masses.mass[row, key] == pytest.approx(float(weights.mean()), abs=1e-5)
                    assert masses.uniform[row, key] == pytest.approx(even / len(later), abs=1e-5)
                else:
                    assert masses.mass[row, key].isnan()

    with torch.no_grad(), watched(model, compare):
        model(ids, attention_mask=present)


def test_rows_of_attention_sum_to_one() -> None:
    model, (ids, present) = tiny_model("gemma3"), padded_ids()

    def add_up(layer: WatchedLayer) -> None:
        masses = layer.key_masses(present)
        total = (masses.mass.nan_to_num(0.0) * masses.later + masses.itself) * present
        torch.testing.assert_close(total.sum(1), present.sum(1).float(), atol=1e-4, rtol=0)

    with torch.no_grad(), watched(model, add_up):
        model(ids, attention_mask=present)


def test_a_model_has_its_attention_again_after_an_error() -> None:
    model, other = tiny_model("llama"), tiny_model("llama")
    before = model.config._attn_implementation

    def stumble(layer: WatchedLayer) -> None:
        assert other.config._attn_implementation == before  # no other model is touched
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), watched(model, stumble):
        model(torch.ones(1, 3, dtype=torch.int64))
    assert model.config._attn_implementation == before
    model(torch.ones(1, 3, dtype=torch.int64))  # nobody watches any more


def test_attention_of_another_kind_is_refused_in_a_line() -> None:
    capped = Gemma2ForCausalLM(
        Gemma2Config(vocab_size=61, hidden_size=16, intermediate_size=16, num_hidden_layers=2)
    )
    both = T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    )
    for model, words in ((capped, "softcap"), (both, "encoder")):
        with pytest.raises(ValueError, match=words) as problem:
            needle_scores(model, [NeedlePrompt((3, 4, 5, 3), 1, ((0, 1),))])
        assert "\n" not in str(problem.value)


def test_the_layers_of_a_decoder_come_in_order() -> None:
    model = tiny_model("llama")
    assert list(decoder_layers(model)) == list(model.model.layers)


def test_a_model_of_the_same_configuration_object_is_not_touched_while_another_is_watched() -> None:
    model = tiny_model("llama")
    other, ids = type(model)(model.config).eval(), torch.arange(6)[None]
    layers: list[int] = []

    def look(layer: WatchedLayer) -> None:
        layers.append(layer.layer)

    with torch.no_grad():
        expected = other(ids).logits
        with watched(model, look):
            assert other.config._attn_implementation == "sdpa"
            assert torch.equal(other(ids).logits, expected)
            assert layers == []
            model(ids)
    assert layers == list(range(len(layers))) != []
