"""A frozen encoder with a linear map: called as domain models are, and rebuilt from a file."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from headwise.models.layers.encoders import RANDOM_FILTERS, build_encoder
from headwise.models.vision.frozen import FrozenLinear, rebuilt_frozen

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def pictures(colours: int = 3) -> torch.Tensor:
    return torch.rand(4, colours, 32, 24, generator=torch.Generator().manual_seed(0))


def fitted(output: str, colours: bool = True, name: str = RANDOM_FILTERS) -> FrozenLinear:
    encoder = build_encoder(name, "random")
    mean, deviation = (MEAN, DEVIATION) if colours else (0.449, 0.226)
    model = FrozenLinear(encoder, 5, mean=mean, deviation=deviation, output=output)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(1)
    shapes = ((encoder.width,), (5, encoder.width), (5,))
    model.set_map(*(torch.randn(shape, generator=generator).double() for shape in shapes))
    return model


def test_the_normalisation_of_the_pipeline_is_undone() -> None:
    model, x = fitted("logits"), pictures()
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
    features = model.encoder.features(x)
    torch.testing.assert_close(model.features((x - mean) / deviation), features)
    expected = (features - model.centre) @ model.weight.T + model.bias
    torch.testing.assert_close(model((x - mean) / deviation), expected)


def test_grey_pictures_and_a_second_input_are_taken_as_the_medical_model_takes_them() -> None:
    model, x = fitted("logits", colours=False), pictures(1)
    normal = (x - 0.449) / 0.226
    expected = model.read_out(model.encoder.features(x.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(model(normal, torch.zeros(4, 1, 8, 8)), expected)


def test_vectors_have_length_1_and_do_not_depend_on_the_length_of_features() -> None:
    model, x = fitted("vectors"), pictures()
    features = model.features(x)
    vectors = model(x)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(model.read_out(3 * features), vectors)
    mapped = (F.normalize(features) - model.centre) @ model.weight.T + model.bias
    torch.testing.assert_close(vectors, F.normalize(mapped))


def test_probabilities_are_those_of_the_logits() -> None:
    x = pictures()
    probability = fitted("probabilities")(x)
    torch.testing.assert_close(probability, fitted("logits")(x).softmax(1))


def test_training_changes_nothing() -> None:
    pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
    model, x = fitted("logits", name="test_resnet.r160_in1k"), pictures()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not model.train().training
    assert not any(module.training for module in model.modules())
    model(x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", [RANDOM_FILTERS, "test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_it_is_rebuilt_from_facts_and_safetensors(name: str, tmp_path: Path) -> None:
    if name != RANDOM_FILTERS:
        pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
    size = (32, 16) if "vit" in name else None
    encoder = build_encoder(name, "random", size)
    for value in encoder.state_dict().values():
        if value.is_floating_point():
            value.add_(0.01)  # other weights than the random ones of a new encoder
    model = FrozenLinear(encoder, 3, mean=0.5, deviation=0.5, output="probabilities")
    model.set_map(torch.ones(encoder.width), torch.randn(3, encoder.width), torch.ones(3))
    save_file(model.state_dict(), tmp_path / "simple.safetensors")
    again = rebuilt_frozen(json.loads(json.dumps(model.facts())))
    again.load_state_dict(load_file(tmp_path / "simple.safetensors"))
    torch.testing.assert_close(again(pictures()), model(pictures()))


def test_it_is_exported_with_the_inputs_of_the_medical_model() -> None:
    model = fitted("logits", colours=False)
    model.encoder.size = (24, 24)  # so that pictures are resized, too
    count = torch.export.Dim("pictures", min=1)
    two = torch.rand(2, 1, 32, 24), torch.rand(2, 1, 8, 8)
    program = torch.export.export(model, two, dynamic_shapes=({0: count}, {0: count}))
    three = torch.rand(3, 1, 32, 24), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(program.module()(*three), model(*three))


def test_facts_that_make_no_model_are_refused() -> None:
    facts = {**fitted("logits").facts(), "output": "anything"}
    with pytest.raises(ValueError, match="no output 'anything'"):
        rebuilt_frozen(facts)
