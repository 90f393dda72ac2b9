"""The language model that --model names, and what the account says of it."""

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines.engine.opened_models import DEFAULT, is_sample, model_of, open_base


def test_a_model_is_the_one_that_is_named_else_the_default() -> None:
    assert model_of("folder/of/mine", generated=True) == "folder/of/mine"
    assert model_of("auto") == DEFAULT


def test_the_sample_has_a_tiny_model_and_the_account_says_so() -> None:
    with opened() as account:
        assert model_of("auto", generated=True) == "generated"
    assert any("--model generated: a tiny model" in line for line in account.lines())


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        ("runs/a/sample/prompts.jsonl", True),
        ("runs/a/prompts.jsonl", False),
        ("runs/a/sample/others.jsonl", False),
        (None, False),
    ],
)
def test_the_sample_is_known_by_its_name_and_its_folder(data: str | None, is_one: bool) -> None:
    assert is_sample(data, "prompts") == is_one


def test_an_opened_model_is_in_the_account_with_its_licence_and_checksum() -> None:
    with opened() as account:
        model = open_base("generated")
    (line,) = [line for line in account.lines() if "language model" in line]
    assert "licence: random weights" in line
    assert model.sha256[:12] in line


def test_other_weights_than_those_of_a_run_are_refused() -> None:
    with pytest.raises(InputError, match=r"^generated: is not the model that the run was made"):
        open_base("generated", sha256="0" * 64)


def test_other_settings_than_those_of_a_run_are_refused_where_it_knows_them() -> None:
    model = open_base("generated")
    for known in ("", model.settings_sha256):
        assert open_base("generated", sha256=model.sha256, settings_sha256=known) is model
    with pytest.raises(InputError, match=r"^generated: its chat template, special tokens or"):
        open_base("generated", sha256=model.sha256, settings_sha256="0" * 64)
