"""The verbs heads and sinks: what they write is what the model gives, a stopped job continues, and
bad input is said in a line.
"""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from headwise.base.errors import InputError
from headwise.models.language.analysis.needle import NeedlePrompt, needle_scores
from headwise.models.language.analysis.sink_kinds import find_sinks
from headwise.models.language.analysis.sinks import measure_sinks
from headwise.models.language.plans.plan import Plan
from headwise.pipelines import longcontext
from headwise.pipelines.engine.command_line import main
from headwise.pipelines.engine.opened_models import open_base
from headwise.pipelines.longcontext.data import Coder
from headwise.pipelines.longcontext.verbs.options_attention import HeadsOptions
from headwise.pipelines.longcontext.verbs.prompts_to_score import prompts_of
from headwise.pipelines.longcontext.verbs.sinks_tables import (
    LAYER_SCHEMA,
    SINK_SCHEMA,
    headline,
    sink_counts,
)

pytestmark = pytest.mark.drawn

WHO = ("a sailor", "the mayor", "my neighbour", "a teacher")
SMALL = {"model": "generated", "lengths": (320,), "prompts": 4, "check_prompts": 2, "cut": 1,
         "share": 0.6}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Options of a small job over four generated texts."""
    path = tmp_path_factory.mktemp("filler") / "filler.jsonl"
    texts = [
        " ".join(f"In the year {year} {who} counted {year % 7} boats." for year in range(60))
        for who in WHO
    ]
    pl.DataFrame({"text": texts}).write_ndjson(path)
    return {**SMALL, "data": str(path)}


@pytest.fixture(scope="module")
def scored(small: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `heads` wrote for the generated model."""
    output = tmp_path_factory.mktemp("heads") / "out"
    longcontext.heads(**small, output=str(output))
    return output


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    words = [" ".join(f"word {number} of {name}." for number in range(12)) for name in "ab"]
    pl.DataFrame({"text": [*words, "too short"]}).write_ndjson(path)
    return path


def test_scores_in_the_tables_are_those_of_the_model(
    scored: Path, small: dict[str, object]
) -> None:
    opened = open_base("generated")
    prompts, _ = prompts_of(HeadsOptions(**small), opened)
    mean = torch.stack([needle_scores(opened.model, [prompt])[0] for prompt in prompts]).mean(0)
    by_query = pl.read_parquet(scored / "query_heads.parquet")
    np.testing.assert_allclose(by_query["score"].to_numpy(), mean.flatten().numpy(), atol=1e-5)
    heads = pl.read_parquet(scored / "heads.parquet")
    largest = by_query.group_by("layer", "head").agg(pl.col("score").max()).sort("layer", "head")
    np.testing.assert_allclose(heads["score"], largest["score"])
    best = heads.sort("score", descending=True)
    assert best["rank"].to_list() == [1, 2, 3, 4]
    assert pl.read_csv(scored / "heads.csv").equals(heads.cast({"rank": pl.Int64}))


def test_the_plan_keeps_the_best_heads_and_no_more_than_the_share(scored: Path) -> None:
    plan = Plan.read(scored / "plan.json")
    plan.check(open_base("generated").model)
    heads = pl.read_parquet(scored / "heads.parquet").filter(pl.col("in_plan"))
    full = [(i, k) for i in range(2) for k in range(2) if plan.rule(i, k).full]
    assert full == list(heads.select("layer", "head").iter_rows())
    assert 0 < len(full) < 4
    assert plan.kept(plan.fitted_on["longest"]) <= 0.6


def test_sets_of_heads_are_cut_on_other_prompts(scored: Path) -> None:
    sets = pl.read_parquet(scored / "sets.parquet")
    names = ["all", "the best", "all but the best", "as many others, at random", "none"]
    assert sets["full heads"].to_list() == names
    assert sets["heads"].to_list()[0] == 4
    assert sets["heads"].to_list()[4] == 0
    assert sets["prompts"].to_list() == [2] * 5
    assert sets["cache kept"][0] == 1
    assert sets["loss"].n_unique() > 1
    cuts = pl.read_parquet(scored / "cuts.parquet")
    assert cuts["best"].to_list() == [True, False]
    for picture in ("heads", "falling", "cuts"):
        assert (scored / "figures" / f"{picture}.png").stat().st_size > 2000
    page = (scored / "report.html").read_text()
    assert "heads of keys attend most to what is asked for" in page
    assert "2 with all heads full" in page


def test_a_job_that_was_stopped_goes_on_and_gives_the_same(
    scored: Path, small: dict[str, object], tmp_path: Path
) -> None:
    output = tmp_path / "again"
    shutil.copytree(scored, output)
    for name in ("scores-0002", "set-3", "cut-0-0"):
        (output / "measured" / f"{name}.json").unlink(missing_ok=True)
    (output / "heads.parquet").unlink()
    untouched = (output / "measured" / "scores-0000.json").stat().st_mtime_ns
    longcontext.heads(**small, output=str(output))
    assert (output / "measured" / "scores-0000.json").stat().st_mtime_ns == untouched
    for name in ("heads", "sets", "cuts", "query_heads"):
        before, after = (pl.read_parquet(home / f"{name}.parquet") for home in (scored, output))
        assert before.equals(after)


def test_another_job_does_not_go_on_in_a_folder_with_results(
    scored: Path, small: dict[str, object]
) -> None:
    with pytest.raises(InputError, match="of other options or data"):
        longcontext.heads(**{**small, "seed": 1}, output=str(scored))


def test_prompts_to_score_and_to_check_are_over_other_pieces_of_texts(
    small: dict[str, object],
) -> None:
    opened = open_base("generated")
    scored, checked = prompts_of(HeadsOptions(**{**small, "kinds": ("passkey",)}), opened)
    decode = Coder(opened.tokenizer).tokenizer.decode
    names = [
        {name for name in WHO for prompt in part if f" {name} counted" in decode(prompt.ids)}
        for part in (scored, checked)
    ]
    assert names[0] <= {WHO[0], WHO[2]}
    assert names[1] <= {WHO[1], WHO[3]}
    assert all(names)


def test_prompts_of_your_own_are_scored_where_they_hold_their_answer(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"{'the sky is blue. ' * 4}The code is {k}99. The code is", "answer": f" {k}99"}
        for k in range(4)
    ]
    rows.append({"prompt": "What is the capital of Italy? It is", "answer": " Rome"})
    path = tmp_path / "own.jsonl"
    pl.DataFrame(rows).write_ndjson(path)
    options = HeadsOptions(data=str(path), model="generated", prompts=3, check_prompts=2)
    scored, checked = prompts_of(options, open_base("generated"))
    assert len(scored) + len(checked) == 4
    assert all(isinstance(prompt, NeedlePrompt) for prompt in (*scored, *checked))
    pl.DataFrame(rows[4:]).write_ndjson(path)
    with pytest.raises(InputError, match="no prompt in which its answer stands"):
        prompts_of(options, open_base("generated"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["heads", "--share", "0"], "--share 0.0: must be a share above 0"),
        (["heads", "--lengths", "2000"], "more than the 1,024 positions"),
        (["heads", "--share", "0.01", "--lengths", "320"], "cannot be kept"),
        (["sinks", "--length", "20"], "--length 20: must be at least 64"),
        (["sinks", "--length", "2000"], "more than the 1,024 positions"),
        (["sinks", "--mass", "2"], "--mass 2.0: must be a share"),
        (["sinks", "--columns", "text=body"], "--columns: is read with --data"),
    ],
)
def test_values_that_cannot_be_right_are_said_in_a_line(
    words: list[str],
    problem: str,
    small: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["longcontext", *words, "--model", "generated", "--output", str(tmp_path / "out")]
    if "--columns" not in words:
        arguments += ["--data", str(small["data"])]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert problem in message


def test_sinks_in_the_tables_are_those_of_the_model(texts_file: Path, tmp_path: Path) -> None:
    options = {"data": str(texts_file), "model": "generated", "length": 128, "mass": 0.02}
    longcontext.sinks(**options, texts=1, output=str(tmp_path / "out"))
    stored = {f: f.stat().st_mtime_ns for f in (tmp_path / "out" / "measured").glob("*.json")}
    measured = longcontext.sinks(**options, texts=5, output=str(tmp_path / "out"))
    assert len(stored) == 1
    assert measured.texts == 2  # the third is too short
    assert {file: file.stat().st_mtime_ns for file in stored} == stored  # not measured again
    opened = open_base("generated")
    coder = Coder(opened.tokenizer)
    rows = measured.table()
    layers = pl.read_parquet(measured.output / "layers.parquet")
    assert layers.height == 2 * 2
    for number, text in enumerate(pl.read_ndjson(texts_file)["text"].to_list()[:2]):
        ids = torch.tensor(coder.code_on(text)[:128])
        figures = measure_sinks(opened.model, ids[None])[0]
        name = f"{number}, from token 0"
        of_text = rows.filter(pl.col("text") == name)
        assert of_text["place"].to_list() == [sink.place for sink in find_sinks(figures, 0.02)]
        mass = layers.filter(pl.col("text") == name)["mass_primary"]
        np.testing.assert_allclose(mass, figures.mass[:, figures.reference], atol=1e-6)
    assert "impossible below 21 layers" in (measured.output / "report.html").read_text()


def test_texts_without_enough_tokens_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("A few words.")
    with pytest.raises(InputError, match="no text has 64 tokens"):
        longcontext.sinks(data=str(path), model="generated", output=str(tmp_path / "out"))


def test_the_sentence_says_what_the_tables_hold() -> None:
    primary = {"text": "t", "place": 0, "token": "The", "kind": "primary", "mass": 0.6,
               "first_carrying": 3, "writer": 3, "mlp_norm": 50.0, "norm": 120.0}  # fmt: skip
    early = [
        {"text": "t", "place": 9 + k, "token": ".", "kind": "early", "mass": 0.06 + 0.01 * k,
         "writer": 1, "mlp_norm": 5.0 + k, "mass_tested": 0.08, "mass_removed": 0.01,
         "order_of_others": 0.97}
        for k in range(6)
    ]  # fmt: skip
    sinks = pl.DataFrame([primary, *early], schema=SINK_SCHEMA)
    layers = pl.DataFrame(
        [
            {"text": "t", "layer": layer, "mass_primary": 0.5 if layer > 3 else 0.0, "tokens": 100,
             "official_secondary": 0, "official_like_primary": 99, "official_can_fire": False}
            for layer in range(18)
        ],
        schema=LAYER_SCHEMA,
    )  # fmt: skip
    sentence = headline(sinks, layers, 1)
    for part in (
        "takes over at layer 3 of 18 in 1 of them, 120 times as long",
        "draws 50% of the attention after it",
        "no secondary sinks",
        "6 early sinks",
        "up to 11% of later attention",
        "rank correlation of 1.00",
        "6 sinks draw 1% in place of 8%",
        "takes 99 of 99 later tokens for primary ones",
        "fewer than 18 - 15 layers, which is impossible below 21 layers",
    ):
        assert part in sentence, (part, sentence)
    counts = sink_counts(sinks)
    assert counts.filter(pl.col("kind") == "early")["sinks"].item() == 6
