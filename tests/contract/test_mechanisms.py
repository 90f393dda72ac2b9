"""--attention and --ffn mean the same in every task: what `headwise list attention --where` calls
taken makes a model that has the mechanism and learns, what it refuses is refused in one line.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from headwise.base.errors import InputError
from headwise.models.attention import ATTENTION, attention_class
from headwise.models.attention.base import auxiliary_loss
from headwise.models.moe import MoE
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.command_line.where import answer, tasks_that_mix, values_of
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.tests.contract.conftest import sample_of

# Of softmax, of linear cost, and of mixtures of heads, which leave a loss behind.
LEARNING = ("softmax", "taylor", "moh")
ROWS = [0, 1, 2, 3]
# Their models come trained, with the attention that they were trained with.
TRAINED_ELSEWHERE = {"finetune", "longcontext"}
MIXING = [name for name in TASKS if name not in TRAINED_ELSEWHERE]


def options_with(task: Any, defaults: Any, option: Any, value: str) -> Any:
    """The options under which a task takes the value, which `--where` names; None: it does not."""
    answered = answer(task, option, value)
    if not answered.taken:
        return None
    words = [*answered.further, f"--{option}", value]
    parsed = parse(task, "train", words)
    names = {word[2:].removeprefix("no-").replace("-", "_") for word in words if word[:2] == "--"}
    return replace(defaults, **{name: getattr(parsed, name) for name in names})


@pytest.fixture
def opened(trained: Any) -> Any:
    """A task's pipeline, the options of a run on its sample, and the data."""
    task, run = trained
    if task.name in TRAINED_ELSEWHERE:
        pytest.skip("the model comes with its own attention")
    pipeline = task.load()
    loaded = load_run(pipeline, str(run), "cpu")
    options = replace(loaded.options, data=str(sample_of(run)))
    if task.name == "text":
        # The others begin as the linear model: the head at 0 keeps the first gradient to itself.
        options = replace(options, model="attention")
    if task.name == "saliency":
        options = replace(options, transformer="small")
    return task, pipeline, options, pipeline.open_data(options)


def learns(pipeline: Any, model: Any, splits: Any, options: Any) -> None:
    model.train()
    data = splits.train
    collate = getattr(data, "collate", torch.utils.data.default_collate)
    rows = data.__getitems__(ROWS) if hasattr(data, "__getitems__") else [data[k] for k in ROWS]
    batch = collate(rows)
    loss = pipeline.loss(model, batch, options)
    extra = auxiliary_loss(model)
    (loss if extra is None else loss + extra).backward()
    assert loss.isfinite()


def test_what_is_taken_is_in_the_model_and_learns(opened: Any) -> None:
    task, pipeline, defaults, splits = opened
    for name in ATTENTION:
        options = options_with(task, defaults, "attention", name)
        if options is None:
            continue
        torch.manual_seed(0)
        model = pipeline.build_model(options, splits.spec)
        mixers = [part for part in model.modules() if type(part) is attention_class(name)]
        is_timms = (task.name, name) == ("reid", "softmax")
        is_papers = (task.name, name) == ("ranking", "softmax")
        is_without = (task.name, name) == ("text", "softmax")  # by default no layer mixes
        assert mixers or is_timms or is_papers or is_without, name
        if name not in LEARNING:
            continue
        learns(pipeline, model, splits, options)
        for mixer in mixers:
            assert any(
                weight.grad is not None and weight.grad.any() for weight in mixer.parameters()
            ), name


def test_a_mixture_of_experts_is_in_the_model_and_learns(opened: Any) -> None:
    task, pipeline, defaults, splits = opened
    options = options_with(task, defaults, "ffn", "moe")
    torch.manual_seed(0)
    model = pipeline.build_model(options, splits.spec)
    mixtures = [part for part in model.modules() if isinstance(part, MoE)]
    assert mixtures
    learns(pipeline, model, splits, options)
    for mixture in mixtures:
        assert any(weight.grad is not None for weight in mixture.parameters())


@pytest.mark.parametrize("name", MIXING)
def test_every_task_takes_mechanisms_and_experts_or_says_why_not(name: str) -> None:
    task = load_task(name)
    assert task in tasks_that_mix()
    for option in ("attention", "ffn"):
        answers = {value: answer(task, option, value) for value in values_of(option)}
        assert sum(answered.taken for answered in answers.values()) >= min(3, len(answers) - 2)
        for value, answered in answers.items():
            assert answered.taken == (not answered.why)
            further = answered.further if answered.taken else ()
            words = [*further, f"--{option}", value]
            if answered.taken:
                assert getattr(parse(task, "train", words), option) == value
            else:
                with pytest.raises(InputError) as refused:
                    parse(task, "train", words)
                assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(TRAINED_ELSEWHERE))
def test_a_model_that_comes_trained_takes_no_other_mechanism_and_says_so(name: str) -> None:
    task = load_task(name)
    assert task not in tasks_that_mix()
    with pytest.raises(InputError, match=r"no option --attention; --help lists them$"):
        parse(task, "train", ["--attention", "taylor"])


@pytest.mark.parametrize("name", MIXING)
def test_a_misspelt_mechanism_is_met_with_the_nearest_and_its_options_are_checked(
    name: str,
) -> None:
    task = load_task(name)
    words = list(answer(task, "attention", "differential").further)
    with pytest.raises(
        InputError, match="--attention diferential: unknown; did you mean differential"
    ):
        parse(task, "train", [*words, "--attention", "diferential"])
    for wrong, message in {
        "noise_head=1": "no option 'noise_head'; did you mean noise_heads?",
        "noise_heads=one": "'one' should be a whole number",
        "heads=1": "heads follows from the model",
        "noise_heads": "should be name=value",
    }.items():
        with pytest.raises(InputError, match=f"--attention-options {wrong}: .*{message}"):
            parse(
                task, "train", [*words, "--attention", "differential", "--attention-options", wrong]
            )
    given = ("noise_heads=1", "norm=off")
    mixing = ["--attention", "differential", "--attention-options", *given]
    assert parse(task, "train", [*words, *mixing]).attention_options == given


def test_options_of_a_mechanism_reach_it_in_every_task(opened: Any) -> None:
    task, pipeline, defaults, splits = opened
    options = options_with(task, defaults, "attention", "differential")
    model = pipeline.build_model(
        replace(options, attention_options=("fixed_lambda=0.25", "norm=off")), splits.spec
    )
    mixers = [p for p in model.modules() if type(p) is attention_class("differential")]
    assert mixers
    assert {(mixer.fixed_lambda, mixer.norm) for mixer in mixers} == {(0.25, None)}
