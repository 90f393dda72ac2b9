"""The verb summarise: what is chosen, where it stands, what it covers, and what fails."""

import json

import numpy as np
import polars as pl
import pytest

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import main
from headwise.pipelines.text.verbs.options_judge import SummariseOptions
from headwise.pipelines.text.verbs.summarise import summarise_with

SAID = {
    "bridge": [
        "The mayor closed the old bridge on Monday after a crack was found.",
        "Engineers say the repair of the bridge will take two years.",
        "The union calls the closure a political game of the mayor.",
        "Shops near the river lost half of their customers within a week.",
        "A second report finds that the bridge is safe for light cars.",
    ],
    "school": [
        "The new school opens in September with four hundred pupils.",
        "Parents complain that the way to school is too dangerous.",
        "The council denies that the building costs twice what was planned.",
        "Teachers welcome the smaller classes of the new school.",
        "An inquiry says that asbestos was found in the gym.",
    ],
}
FILLER = "Dr. Smith was not available for comment. It was a day like most others in the town."


def stories(*, reverse: bool = False) -> list[dict]:
    """Four articles a story: all say the first thing, each one thing of its own."""
    made = []
    for name, (common, *single) in SAID.items():
        articles = [
            {"aid": f"{name}{k}", "content": f"{common} {statement} {FILLER}"}
            for k, statement in enumerate(single)
        ]
        groups = [[{"aid": f"{name}{k}", "answer": s}] for k, s in enumerate(single)]
        made.append(
            {
                "eid": name,
                "articles": articles[::-1] if reverse else articles,
                "question_answers": [{"question": "What?", "answer_groups": groups}],
            }
        )
    return made


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "stories.json", stories())


def sentences(path) -> dict[str, list[str]]:
    rows = pl.read_ndjson(path).filter(pl.col("status") == "ok")
    return {str(name): g["sentence"].to_list() for (name,), g in rows.group_by("story")}


METHODS = [
    {"method": "facility"},
    {"method": "facility", "weights": "differences"},
    {"method": "facility", "weights": "sentences", "unit": "words", "budget": 40},
    {"method": "determinantal"},
    {"method": "lead"},
]


@pytest.mark.parametrize("settings", METHODS, ids=str)
def test_the_order_of_the_articles_changes_nothing(tmp_path, data, settings) -> None:
    turned = write(tmp_path / "turned.json", stories(reverse=True))
    options = {"budget": 4, **settings}
    pipelines.text.summarise(data=data, output=tmp_path / "a.jsonl", **options)
    pipelines.text.summarise(data=turned, output=tmp_path / "b.jsonl", **options)
    texts = [pl.read_ndjson(tmp_path / name)["sentence", "gain"] for name in ("a.jsonl", "b.jsonl")]
    assert texts[0].equals(texts[1])


@pytest.mark.parametrize("method", ["facility", "determinantal", "lead"])
def test_of_two_sentences_that_count_the_same_the_order_chooses_none(tmp_path, method) -> None:
    articles = [
        {"aid": "x", "content": "Gamma delta epsilon zeta."},
        {"aid": "y", "content": "Alpha beta theta iota."},
    ]
    chosen = []
    for name, among in (("a", articles), ("b", articles[::-1])):
        data = write(tmp_path / f"{name}.json", {"eid": "e", "articles": among})
        output = tmp_path / f"{name}.jsonl"
        pipelines.text.summarise(data=data, output=output, method=method, budget=1)
        chosen.append(sentences(output)["e"])
    assert chosen == [["Alpha beta theta iota."]] * 2


def test_sentences_can_be_compared_by_an_encoder(tmp_path, data, monkeypatch) -> None:
    from headwise.pipelines.text.verbs import summarise as verb

    asked = []
    vectors = {"wordllama-256": lambda texts: np.eye(128)[[ord(text[0]) for text in texts]]}
    monkeypatch.setattr(verb, "_encoder", lambda name: asked.append(name) or vectors[name])
    output = tmp_path / "o.jsonl"
    pipelines.text.summarise(data=data, output=output, budget=20, encoder="wordllama-256")
    assert asked == ["wordllama-256"]
    letters = [text[0] for text in sentences(output)["bridge"]]
    assert len(set(letters)) == len(letters)
    stored = json.loads((tmp_path / "o.jsonl.coverage.json").read_text())
    assert stored["similarity"] == "wordllama-256"


@pytest.mark.parametrize("settings", METHODS, ids=str)
@pytest.mark.parametrize("unit", ["sentences", "words"])
def test_coverage_is_never_lower_when_the_budget_grows(tmp_path, data, settings, unit) -> None:
    before, shares = {name: [] for name in SAID}, [0.0]
    for budget in (2, 3, 5, 8) if unit == "sentences" else (15, 24, 40, 41, 90):
        output = tmp_path / f"{budget}.jsonl"
        options = {**settings, "unit": unit, "budget": budget}
        done = pipelines.text.summarise(data=data, output=output, **options)
        shares.append(done.coverage["summaries"][1]["coverage"])
        after = sentences(output)
        for name, chosen in after.items():
            assert chosen[: len(before[name])] == before[name]
            size = len(chosen) if unit == "sentences" else len(" ".join(chosen).split())
            assert size <= budget
        before = after
    assert shares == sorted(shares)
    assert shares[-1] > 0


def test_sentences_have_their_article_and_their_place(tmp_path, data) -> None:
    pipelines.text.summarise(data=data, output=tmp_path / "s.parquet", budget=6)
    texts = {a["aid"]: a["content"] for story in stories() for a in story["articles"]}
    rows = pl.read_parquet(tmp_path / "s.parquet")
    assert rows["rank"].to_list() == [1, 2, 3, 4, 5, 6] * 2
    for row in rows.iter_rows(named=True):
        assert texts[row["article"]][row["start"] : row["end"]] == row["sentence"]


def test_differences_come_before_what_all_say(tmp_path, data) -> None:
    covered = {}
    for weights in ("differences", "sentences"):
        output = tmp_path / f"{weights}.jsonl"
        done = pipelines.text.summarise(data=data, output=output, weights=weights, budget=4)
        covered[weights] = done.coverage["summaries"][1]["coverage"]
    assert covered["differences"] == 1
    assert covered["sentences"] < 0.6


def test_the_answers_take_no_part_in_the_choice(tmp_path, data) -> None:
    bare = [{k: v for k, v in s.items() if k != "question_answers"} for s in stories()]
    write(tmp_path / "bare.json", bare)
    for name in ("stories", "bare"):
        pipelines.text.summarise(data=tmp_path / f"{name}.json", output=tmp_path / f"{name}.csv")
    assert (tmp_path / "stories.csv").read_bytes() == (tmp_path / "bare.csv").read_bytes()
    assert not (tmp_path / "bare.csv.coverage.json").exists()


def test_a_bad_story_stops_no_other_and_gives_code_3(tmp_path, capsys) -> None:
    bad = [{"eid": "empty", "articles": [{"content": " "}]}, 7]
    write(tmp_path / "s.json", [*stories(), *bad])
    with pytest.raises(SystemExit) as stop:
        main(["text", "summarise", "--data", str(tmp_path / "s.json"), "--output",
              str(tmp_path / "o.jsonl")])  # fmt: skip
    assert stop.value.code == 3
    lines = capsys.readouterr().err
    assert "no summary: story empty: empty: has no article with text" in lines
    assert "2 stories, " in lines
    rows = pl.read_ndjson(tmp_path / "o.jsonl")
    assert rows.filter(pl.col("status") == "error")["story"].to_list() == ["empty", "s:4"]
    with pytest.raises(InputError, match="no story can be summarised; the first: story empty"):
        pipelines.text.summarise(data=write(tmp_path / "b.json", bad), output=tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


def test_coverage_of_summaries_made_elsewhere(tmp_path, data) -> None:
    rows = [
        {"eid": "bridge", "summary": " ".join(SAID["bridge"][1:])},
        {"eid": "school", "summary": "Summary: Nothing to report today."},
        {"eid": "other", "summary": "x"},
    ]
    table = tmp_path / "gpt.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = pipelines.text.summarise(data=data, output=tmp_path / "o.jsonl", summaries=table)
    (row,) = [r for r in done.coverage["summaries of --summaries"] if r["threshold"] == 0.5]
    assert (row["coverage"], row["covered"], row["groups"]) == (0.5, 4, 8)
    assert set(done.coverage) == {"summaries", "first sentences", "summaries of --summaries"}
    stored = json.loads((tmp_path / "o.jsonl.coverage.json").read_text())
    assert stored["summaries of --summaries"][1] == row


def test_answers_are_grouped_by_scores(tmp_path) -> None:
    story = stories()[0]
    a, b, c = SAID["bridge"][1:4]
    answers = [{"aid": "x", "answer": text} for text in (a, b, c)]
    story["question_answers"] = [{"question": "q", "answers": answers}]
    data = write(tmp_path / "s.json", story)
    rows = [
        {"question": "q", "first": x, "second": y, "score": 4.0 if {x, y} == {a, b} else 1.0}
        for x in (a, b, c)
        for y in (a, b, c)
        if x != y
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "scores.csv")
    options = {"data": data, "answer_scores": tmp_path / "scores.csv", "budget": 4}
    done = pipelines.text.summarise(output=tmp_path / "o.jsonl", **options)
    assert done.coverage["summaries"][0]["groups"] == 2
    assert pipelines.text.summarise(data=data, output=tmp_path / "p.jsonl").coverage == {}
    pl.DataFrame(rows[:-1]).write_csv(tmp_path / "scores.csv")
    with pytest.raises(InputError, match="the first: story bridge: no score of answer"):
        pipelines.text.summarise(output=tmp_path / "r.jsonl", **options)


def test_vectors_of_ones_own_replace_the_words(tmp_path, data) -> None:
    def first_letter(texts):
        return np.eye(128)[[ord(text[0]) for text in texts]]

    options = SummariseOptions(data=str(data), output=str(tmp_path / "o.jsonl"), budget=20)
    summarise_with(options, first_letter)
    for chosen in sentences(tmp_path / "o.jsonl").values():
        letters = [text[0] for text in chosen]
        assert len(set(letters)) == len(letters)  # nothing else is new


def test_pages_to_read(tmp_path) -> None:
    story = {"eid": "a_b", "articles": [{"aid": "1", "content": "We sold *nothing* to them."}]}
    pipelines.text.summarise(data=write(tmp_path / "s.json", story), output=tmp_path / "o.md")
    assert (tmp_path / "o.md").read_text() == (
        "# a\\_b\n\n- We sold \\*nothing\\* to them. (1, 0–26)\n"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": 3, "unit": "words"}, "--budget 3 words: the first sentence has"),
        ({"budget": 0}, "--budget 0: must be at least 1"),
        ({"threshold": 1.5}, "--threshold 1.5: must be above 0"),
        ({"method": "lead", "weights": "sentences"}, "is read by --method facility"),
        ({"output": "o.doc"}, "unknown ending '.doc'"),
        ({"columns": ("contnet=x",)}, "did you mean 'content'"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(tmp_path, data, options, reason) -> None:
    with pytest.raises(InputError, match=reason):
        pipelines.text.summarise(**{"data": data, "output": tmp_path / "o.jsonl", **options})
    assert not (tmp_path / "o.jsonl").exists()


def test_an_output_is_not_replaced_unasked(tmp_path, data) -> None:
    lines = tmp_path / "s.jsonl"
    lines.write_text("\n".join(map(json.dumps, stories())), encoding="utf-8")
    with pytest.raises(InputError, match="is read by this command"):
        pipelines.text.summarise(data=lines, output=lines, overwrite=True)
    pipelines.text.summarise(data=data, output=tmp_path / "o.csv")
    with pytest.raises(InputError, match="already exists"):
        pipelines.text.summarise(data=data, output=tmp_path / "o.csv")
    pipelines.text.summarise(data=data, output=tmp_path / "o.csv", overwrite=True)


def test_a_story_of_very_many_sentences_takes_as_many_of_each_article(tmp_path, capsys) -> None:
    articles = [
        {
            "aid": f"a{k}",
            "content": " ".join(f"Thing {k} number {n} is here." for n in range(count)),
        }
        for k, count in enumerate((100, 3000, 3000))
    ]
    data = write(tmp_path / "s.json", {"eid": "long", "articles": articles})
    pipelines.text.summarise(data=data, output=tmp_path / "o.jsonl", method="lead", budget=4000)
    assert "sentences after the first 1,950 of an article" in capsys.readouterr().err
    assert pl.read_ndjson(tmp_path / "o.jsonl").height == 100 + 2 * 1950
