"""Options that nothing reads are refused, but neither in a run that exists nor from a preset."""

import pytest

from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.command_line.checks import options_of_a_run

# Task, what its config.yaml says, and the option that nothing reads then.
UNREAD = [
    ("forecast", {"router": "similarity"}, "router"),
    ("medical", {"attention": "none", "body_width": 4}, "body-width"),
    ("medical", {"attention": "none", "form": "pure"}, "form"),
    ("medical", {"body_share": 0.5}, "body-share"),
    ("ranking", {"model": "mmoe", "attention": "moh"}, "attention"),
    ("medical", {"ffn": "moe"}, "ffn"),
    ("reid", {"glca": 0, "local": 0.2}, "local"),
    ("reid", {"model": "cca", "pwca": False}, "no-pwca"),
    ("saliency", {"transformer": "none", "ffn": "mlp"}, "ffn"),
    ("speech", {"language": "de"}, "language"),
    ("speech", {"kernel": 31}, "kernel"),
    ("wsi", {"model": "mean", "branches": 3}, "branches"),
    ("wsi", {"heads": 2}, "heads"),
]


@pytest.mark.parametrize(("name", "values", "option"), UNREAD)
def test_a_stored_run_with_an_option_that_nothing_reads_opens(name, values, option, tmp_path):
    """A new training with its config.yaml does not begin, and `--resume` goes on."""
    config = tmp_path / "config.yaml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    task = load_task(name)
    with pytest.raises(InputError, match=f"--{option}: is (not )?read by "):
        parse(task, "train", [], config=config)
    with options_of_a_run():
        stored = parse(task, "train", [], config=config)
    resumed = parse(task, "train", ["--run", str(tmp_path), "--resume"])
    for options in (stored, resumed):
        assert {key: getattr(options, key) for key in values} == values


@pytest.mark.parametrize(
    ("name", "words", "option"),
    [
        ("medical", ["--preset", "paper", "--attention", "none"], "head-width"),
        ("medical", ["--preset", "mnist", "--sees", "local"], "body-size"),
        ("reid", ["--preset", "persons", "--glca", "0"], "local"),
        ("saliency", ["--preset", "paper", "--transformer", "none"], "transformer-weights"),
        ("wsi", ["--preset", "paper", "--model", "mean"], "branches"),
    ],
)
def test_nobody_has_to_read_what_a_preset_says(name, words, option):
    """But what the call names must be read, also beside a preset."""
    further = {"saliency": ["--frozen-transformer", "0"]}.get(name, [])
    value = {"body-size": ["48", "48"], "transformer-weights": ["none"], "local": ["0.2"]}
    task = load_task(name)
    parse(task, "train", [*words, *further])
    with pytest.raises(InputError, match=f"--{option}: is read by "):
        parse(task, "train", [*words, *further, f"--{option}", *value.get(option, ["3"])])
