"""Speech to text: padding, caches, beams, maps, weights of others, every mechanism."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headwise.models.attention import names_with
from headwise.models.speech.decoding import Rules, transcribe
from headwise.models.speech.mixers import causal_names, crossing_attention
from headwise.models.speech.speech_to_text import Memory, SpeechToText
from headwise.models.weights.whisper import read_whisper
from headwise.tests.whisper_files import ctranslate2

SIZES = {
    "features": 8,
    "width": 16,
    "heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "audio_positions": 40,
    "text_positions": 20,
}


def build(vocabulary=11, **options):
    torch.manual_seed(0)
    return SpeechToText(vocabulary, **{**SIZES, **options}).eval()


def inputs(batch=3, frames=50):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([frames, frames - 13, frames - 30])[:batch]
    return torch.randn(batch, 8, frames, generator=generator), lengths


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "conformer", "kernel": 5},
        {"encoder_attention": "differential"},
        {"encoder_attention": "static"},
        {"ffn": "moe", "moe": {"experts": 3}},
        {"ffn": "glu"},
    ],
)
def test_padding_changes_nothing(options):
    """A recording gives the same states alone, cut to its length, or padded in a batch (arXiv
    2303.16166).
    """
    model, (features, lengths) = build(**options), inputs()
    states, mask = model.encode(features, lengths)
    for row in range(3):
        size = int(lengths[row])
        alone = model.encode(features[row : row + 1, :, :size]).states[0]
        assert int(mask[row].sum()) == len(alone) == -(-size // 2)
        torch.testing.assert_close(states[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert (states[row, len(alone) :] == 0).all()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("decoder", ["softmax", "taylor"])
def test_a_batch_is_decoded_as_its_parts(beams, decoder):
    model, (features, lengths) = build(decoder_attention=decoder), inputs()
    rules = Rules((0, 1), 2, beams=beams, never=(5,), not_first=(2,))
    memory = model.encode(features, lengths)
    together = transcribe(model, memory, rules)
    for row in range(3):
        alone = Memory(memory.states[row : row + 1], memory.mask[row : row + 1])
        assert transcribe(model, alone, rules)[0].tokens == together[row].tokens
    assert all(5 not in transcript.tokens for transcript in together)
    limited = transcribe(model, memory, rules, [1, 2, 3])
    assert all(len(limited[row].tokens) <= row + 1 for row in range(3))


def test_steps_equal_all_tokens_at_once():
    """The cache gives the logits of all tokens at once, and greedy takes the largest."""
    model, (features, lengths) = build(), inputs()
    memory = model.encode(features, lengths)
    transcripts = transcribe(model, memory, Rules((0, 1), 2, most=6))
    for row, transcript in enumerate(transcripts):
        ids = [0, 1, *transcript.tokens, *([2] if transcript.finished else [])]
        alone = Memory(memory.states[[row]], memory.mask[[row]])
        logits = model.decoder(torch.tensor([ids[:-1]]), alone).logits[0, 1:]
        assert logits.argmax(-1).tolist() == ids[2:]
        scores = logits.log_softmax(-1).gather(1, torch.tensor(ids[2:])[:, None])[:, 0]
        torch.testing.assert_close(
            torch.tensor(transcript.log_probabilities), scores, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 3.0])
def test_a_wide_beam_finds_the_best(penalty):
    """As many beams as there are sequences: the best of all, by trying all; lengths count by the
    penalty.
    """
    model, (features, _) = build(vocabulary=4), inputs(1)
    memory = model.encode(features[:1])
    rules = Rules((0,), 3, most=3, beams=30, length_penalty=penalty)
    best = -np.inf
    for length in range(3):
        for number in range(3**length):
            ids = [number // 3**k % 3 for k in range(length)]
            row = torch.tensor([[0, *ids, 3]])
            scores = model.decoder(row[:, :-1], memory).logits[0].log_softmax(-1)
            best = max(
                best, float(scores.gather(1, row[0, 1:, None]).sum()) / (length + 1) ** penalty
            )
    scores = transcribe(model, memory, rules)[0].log_probabilities
    assert sum(scores) / len(scores) ** penalty == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("decoder", ["softmax", "taylor"])
def test_no_speech_is_what_the_first_token_of_the_prompt_says(decoder, beams):
    model, (features, lengths) = build(decoder_attention=decoder), inputs()
    memory = model.encode(features, lengths)
    transcripts = transcribe(model, memory, Rules((0, 1), 2, most=3, beams=beams, no_speech=7))
    expected = model.decoder(torch.tensor([[0], [0], [0]]), memory).logits[:, 0].softmax(-1)[:, 7]
    assert [transcript.no_speech for transcript in transcripts] == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    assert all(
        transcript.no_speech == 0
        for transcript in transcribe(model, memory, Rules((0, 1), 2, most=3, beams=beams))
    )


def test_maps_are_the_attention():
    model, (features, lengths) = build(), inputs()
    memory = model.encode(features, lengths)
    tokens = torch.randint(0, 11, (3, 5))
    heads = model.decoder(tokens, memory, maps=[(1, 1), (0, 0), (1, 0)])
    layers = model.decoder(tokens, memory, maps="layers")
    plain = model.decoder(tokens, memory).logits
    for decoded in (heads, layers):
        torch.testing.assert_close(decoded.logits, plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        heads.maps[:, [2, 0]].mean(1), layers.maps[:, 1], atol=1e-6, rtol=1e-5
    )
    assert torch.allclose(heads.maps.sum(-1), torch.ones(3, 3, 5), atol=1e-5)
    assert (heads.maps.masked_select(~memory.mask[:, None, None].expand_as(heads.maps)) == 0).all()
    with pytest.raises(ValueError, match="2 layers of 2 heads"):
        model.decoder(tokens, memory, maps=[(2, 0)])


@pytest.mark.parametrize("name", causal_names())
def test_no_token_depends_on_later_ones(name):
    model, (features, _) = build(decoder_attention=name), inputs()
    memory = model.encode(features)
    tokens = torch.randint(0, 11, (3, 8))
    changed = tokens.clone()
    changed[:, 5:] = 0
    before, after = model.decoder(tokens, memory).logits, model.decoder(changed, memory).logits
    torch.testing.assert_close(before[:, :5], after[:, :5], atol=1e-5, rtol=1e-4)


def test_every_choice_of_the_pipeline_is_there():
    assert causal_names() == names_with("causal")
    for name in names_with("context"):
        build(cross_attention=name)(inputs()[0], torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="takes no context"):
        crossing_attention("static", 16, 2)


def test_gradients_reach_every_weight():
    model = build(ctc=True, dropout=0.1).train()
    features, lengths = inputs()
    memory = model.encode(features, lengths)
    loss = model.decoder(torch.zeros(3, 4, dtype=torch.int64), memory).logits.square().sum()
    (loss + model.ctc(memory.states).square().sum()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_output_layer_is_the_embedding():
    """Its gradient reaches a token that is never read, and both ways to decode see a change of
    it.
    """
    model, (features, _) = build().double(), inputs()
    memory = model.encode(features.double())
    tokens, unread = torch.tensor([[0, 3, 1], [0, 2, 4], [0, 5, 5]]), 9
    weight = model.decoder.tokens.weight

    def loss():
        return model.decoder(tokens, memory).logits.square().sum()

    gradient = torch.autograd.grad(loss(), weight, retain_graph=True)[0][unread]
    assert gradient.abs().min() > 0
    with torch.no_grad():
        for place in range(len(gradient)):
            weight[unread, place] += 1e-6
            above = loss()
            weight[unread, place] -= 2e-6
            torch.testing.assert_close(
                (above - loss()) / 2e-6, gradient[place], atol=1e-6, rtol=1e-6
            )
            weight[unread, place] += 1e-6
        before = model.decoder(tokens, memory).logits
        weight[unread] += torch.arange(16)
        after = model.decoder(tokens, memory).logits
        caches = model.decoder.begin(memory)
        stepped = [model.decoder.step(tokens[:, k], k, caches, memory) for k in range(3)]
    read = torch.arange(11) != unread
    torch.testing.assert_close(after[..., read], before[..., read])
    assert ((after - before)[..., unread].abs() > 1e-3).all()
    torch.testing.assert_close(torch.stack(stepped, 1), after)


@pytest.mark.parametrize("encoder", ["transformer", "conformer"])
def test_steps_equal_all_tokens_at_once_in_a_model_with_dropout_and_experts(encoder):
    model = build(encoder=encoder, kernel=5, dropout=0.5, ffn="moe", moe={"experts": 3})
    features, lengths = inputs()
    memory = model.encode(features, lengths)
    tokens = torch.randint(0, 11, (3, 6))
    caches = model.decoder.begin(memory)
    stepped = [model.decoder.step(tokens[:, k], k, caches, memory) for k in range(6)]
    torch.testing.assert_close(
        torch.stack(stepped, 1), model.decoder(tokens, memory).logits, atol=1e-5, rtol=1e-4
    )


def test_compiled_gives_the_same():
    model, (features, _) = build(), inputs()
    tokens = torch.randint(0, 11, (3, 5))
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(
        compiled(features, tokens), model(features, tokens), atol=1e-5, rtol=1e-4
    )


def hugging_face(model):
    """Its weights by Hugging Face's names; keys have no bias there."""
    names = {
        "norm1": "self_attn_layer_norm",
        "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    }
    renamed = {}
    for key, value in model.state_dict().items():
        side, rest = key.split(".", 1)
        if rest.startswith("layers."):
            _, number, part, *inner = rest.split(".")
            to = f"model.{side}.layers.{number}."
            if part.startswith("norm"):
                part = "norm3" if side == "encoder" and part == "norm2" else part
                renamed[to + names[part] + "." + inner[0]] = value
            elif part == "feedforward":
                renamed[to + ("fc1." if inner[0] == "up" else "fc2.") + inner[1]] = value
            else:
                prefix = to + ("encoder_attn." if part == "cross" else "self_attn.")
                if inner[0] == "key_value":
                    key_part, value_part = value.chunk(2)
                    renamed[prefix + "v_proj." + inner[1]] = value_part.clone()
                    if inner[1] == "weight":
                        renamed[prefix + "k_proj.weight"] = key_part.clone()
                else:
                    renamed[
                        prefix + {"query": "q_proj.", "out": "out_proj."}[inner[0]] + inner[1]
                    ] = value
        elif rest.startswith("norm"):
            renamed[f"model.{side}.layer_{rest}"] = value
        else:
            renamed[
                "model."
                + {
                    "encoder.positions": "encoder.embed_positions.weight",
                    "decoder.positions": "decoder.embed_positions.weight",
                    "decoder.tokens.weight": "decoder.embed_tokens.weight",
                }.get(key, key)
            ] = value
    return renamed


def without_key_bias(model):
    for name, weight in model.named_parameters():
        if name.endswith("key_value.bias"):
            weight.data[: len(weight) // 2] = 0
    return model


def test_weights_of_hugging_face(tmp_path):
    model = without_key_bias(build())
    save_file(hugging_face(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "whisper", "decoder_attention_heads": 2})
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"alignment_heads": [[1, 0]]}))
    weights = read_whisper(tmp_path)
    assert weights.options == {"vocabulary": 11, **SIZES}
    assert weights.alignment_heads == ((1, 0),)
    copy = SpeechToText(**weights.options)
    copy.load_state_dict(weights.state)
    assert all(
        torch.equal(a, b) for a, b in zip(copy.state_dict().values(), model.state_dict().values())
    )


def test_weights_of_openai(tmp_path):
    model = without_key_bias(build())
    names = (
        ("model.", ""),
        ("encoder_attn_layer_norm", "cross_attn_ln"),
        ("encoder_attn", "cross_attn"),
        ("self_attn_layer_norm", "attn_ln"),
        ("self_attn", "attn"),
        ("final_layer_norm", "mlp_ln"),
        ("fc1", "mlp.0"),
        ("fc2", "mlp.2"),
        ("q_proj", "query"),
        ("k_proj", "key"),
        ("v_proj", "value"),
        ("out_proj", "out"),
        ("encoder.layer_norm", "encoder.ln_post"),
        ("decoder.layer_norm", "decoder.ln"),
        ("embed_tokens", "token_embedding"),
        ("embed_positions.weight", "positional_embedding"),
        (".layers.", ".blocks."),
    )
    state = {}
    for key, value in hugging_face(model).items():
        for a, b in names:
            key = key.replace(a, b)
        state[key] = value
    torch.save({"dims": {"n_text_head": 2}, "model_state_dict": state}, tmp_path / "tiny.pt")
    weights = read_whisper(tmp_path / "tiny.pt")
    assert all(
        torch.equal(weights.state[name], value) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_weights_of_ctranslate2(tmp_path, kind):
    model = build()
    (tmp_path / "model.bin").write_bytes(ctranslate2(model, kind))
    (tmp_path / "config.json").write_text(json.dumps({"alignment_heads": [[0, 1]]}))
    weights = read_whisper(tmp_path)
    assert weights.options == {"vocabulary": 11, **SIZES}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(
            weights.state[name], value, atol=2e-3 if kind == np.float16 else 0, rtol=0
        )


def test_damaged_weights_are_one_line(tmp_path):
    intact = ctranslate2(build())
    file = tmp_path / "model.bin"
    for content, message in (
        (intact[: len(intact) // 2], "ends too early"),
        (b"\x05" + intact[1:], "version 5"),
        (intact.replace(b"WhisperSpec", b"OtherSpec__"), "not a WhisperSpec"),
        (intact.replace(b"encoder/conv1/weight", b"encoder/conv9/weight"), "cannot be read"),
        (b"", "ends too early"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_whisper(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no such file or folder"):
        read_whisper(tmp_path / "other")
    (tmp_path / "a.pt").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_whisper(tmp_path / "a.pt")


@pytest.mark.parametrize("place", ["decoder_attention", "cross_attention"])
def test_heads_that_tokens_choose_are_never_computed_as_plain_softmax(place: str) -> None:
    """A mixture of heads is a softmax attention, too; keys and values alone do not tell its gates,
    nor the turns of rotary positions.
    """
    rotary = {"softmax": {"positions": "rotary"}}
    for options in ({place: "moh"}, {"options": rotary}):
        model, (features, lengths) = build(**options).eval(), inputs()
        memory, tokens = model.encode(features, lengths), torch.randint(0, 11, (3, 5))
        assert not model.decoder.cached
        plain = model.decoder(tokens, memory).logits
        mapped = model.decoder(tokens, memory, maps="layers")
        torch.testing.assert_close(mapped.logits, plain, atol=1e-5, rtol=1e-4)
    assert build().decoder.cached


def test_options_go_to_the_mechanism_of_their_name_in_every_place() -> None:
    model = build(
        encoder_attention="moh",
        decoder_attention="moh",
        cross_attention="differential",
        options={"moh": {"active": 1, "shared": 0}},
    )
    own, cross = model.decoder.layers[0].own, model.decoder.layers[0].cross
    encoder = model.encoder.layers[0].mixer
    assert (own.active, own.causal, encoder.active, encoder.causal) == (1, True, 1, False)
    assert type(cross).__name__ == "GroupedDifferentialAttention"
