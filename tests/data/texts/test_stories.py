"""Stories from the published form, folders and tables; what is bad stops no other."""

import json

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.stories import Story, UnusableStory, read_stories

ARTICLES = [
    {"aid": "a1", "title": "T", "url": "u", "domain": "d", "content": "One. Two."},
    {"aid": "a2", "title": None, "content": "Three."},
]
GROUPS = [
    [{"aid": "a1", "answer": "x"}, {"aid": "a2", "answer": "y"}],
    [{"aid": "a2", "answer": "z"}],
]
STORY = {
    "eid": "e1",
    "articles": ARTICLES,
    "question_answers": [{"question": "q", "answer_groups": GROUPS}],
}


def write(path, value) -> str:
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def test_the_published_form_is_read(tmp_path) -> None:
    (story,) = read_stories(write(tmp_path / "s.json", [STORY]))
    assert isinstance(story, Story)
    assert story.id == "e1"
    assert [(a.id, a.title, a.text) for a in story.articles] == [
        ("a1", "T", "One. Two."),
        ("a2", "", "Three."),
    ]
    (question,) = story.questions
    assert question.answers == ("x", "y", "z")
    assert question.groups == ((0, 1), (2,))


def test_answers_in_no_groups_wait_for_scores(tmp_path) -> None:
    flat = {"question": "q", "answers": [{"aid": "a1", "answer": "x"}]}
    (story,) = read_stories(write(tmp_path / "s.json", {**STORY, "question_answers": [flat]}))
    assert isinstance(story, Story)
    assert story.questions[0].groups is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"eid": "b"}, "'articles' should be a list of objects"),
        ({"eid": "b", "articles": [{"aid": "1"}]}, "article 1: 'content' should be a text"),
        ({"eid": "b", "articles": [{"content": " "}]}, "has no article with text"),
        ({"eid": "b", "articles": [ARTICLES[0]] * 2}, "two articles are called 'a1'"),
        (
            {**STORY, "eid": "b", "question_answers": [{"answer_groups": [3]}]},
            "should be a list of lists",
        ),
        ({**STORY, "eid": "b", "question_answers": [{"answer_groups": [[3]]}]}, "an answer should"),
        (7, "is a int, not an object"),
    ],
)
def test_a_bad_story_is_an_error_of_its_own(tmp_path, value, reason) -> None:
    good, bad = read_stories(write(tmp_path / "s.json", [STORY, value]))
    assert isinstance(good, Story)
    assert isinstance(bad, UnusableStory)
    assert reason in bad.error
    assert "\n" not in bad.error


def test_lines_of_stories_with_a_broken_one(tmp_path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(STORY) + "\n{broken\n\n" + json.dumps({**STORY, "eid": "e2"}))
    first, broken, last = read_stories(str(path))
    assert isinstance(broken, UnusableStory)
    assert "is not JSON" in broken.error
    assert (first.id, broken.id, last.id) == ("e1", "s:2", "e2")


def test_a_folder_of_folders_of_articles(tmp_path) -> None:
    for name, content in {
        "fire/a.txt": b"One.",
        "fire/b.txt": "Zürich brennt.".encode("cp1252"),
        "flood/c.md": b"\xef\xbb\xbfThree.",
        "empty/d.txt": b"  ",
        "e.txt": b"Direct.",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with opened() as account:
        stories = {story.id: story for story in read_stories(str(tmp_path))}
    assert set(stories) == {"fire", "flood", "empty", tmp_path.name}
    assert isinstance(stories["empty"], UnusableStory)
    fire, flood = stories["fire"], stories["flood"]
    assert isinstance(fire, Story)
    assert isinstance(flood, Story)
    assert [a.text for a in fire.articles] == ["One.", "Zürich brennt."]
    assert flood.articles[0].text == "Three."
    assert any("cp1252" in line for line in account.lines())


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_table_with_a_row_for_each_article(tmp_path, ending) -> None:
    frame = pl.DataFrame(
        {
            "Event ID": ["e1", "e2", "e1", "e3", None],
            "id": ["x", "y", "z", "w", "v"],
            "body": ["One.", "Two.", "Three.", None, "Lost."],
        }
    )
    path = tmp_path / f"t.{ending}"
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[ending](
        path
    )
    with opened() as account:
        e1, e2, e3 = read_stories(str(path))
    assert isinstance(e1, Story)
    assert [a.id for a in e1.articles] == ["x", "z"]
    assert isinstance(e2, Story)
    assert isinstance(e3, UnusableStory)
    assert any("1 rows without a story (5)" in line for line in account.lines())


def test_what_is_no_story_at_all_is_one_line(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("a,contnet\n1,x\n")
    with pytest.raises(InputError, match="there is no column 'content'; it has 'a', 'contnet'"):
        read_stories(str(tmp_path / "t.csv"))
    with pytest.raises(InputError, match="two stories are called 'e1'"):
        read_stories(write(tmp_path / "s.json", [STORY, STORY]))
    with pytest.raises(InputError, match="has no columns, which --columns could name"):
        read_stories(write(tmp_path / "s.json", [STORY]), {"content": "x"})
    with pytest.raises(InputError, match="holds no story"):
        read_stories(write(tmp_path / "none.json", []))
    with pytest.raises(InputError, match=r"no such file; did you mean 's\.json'"):
        read_stories(str(tmp_path / "s.jsno"))
