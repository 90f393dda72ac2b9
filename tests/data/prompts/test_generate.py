"""Generated prompts: what is hidden stands where it should, and nothing else gives it away."""

import re

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.prompts.generate import (
    KINDS,
    filler_of,
    generate_prompts,
    pieces_of,
    sentences_of,
)

TEXTS = [
    " ".join(f"Sentence {k} of text {text} says nothing of note." for k in range(60))
    for text in range(3)
]


def words(text: str) -> int:
    return len(text.split())


def prompts_of(**changes):
    options = {
        "kinds": tuple(KINDS),
        "lengths": (120, 240),
        "depths": (0.0, 0.5, 1.0),
        "count": 24,
        "seed": 3,
    }
    return generate_prompts(filler_of(TEXTS, words), words, **{**options, **changes})


def test_the_same_seed_gives_the_same_prompts_and_another_one_others():
    assert prompts_of() == prompts_of()
    assert [p.answer for p in prompts_of()] != [p.answer for p in prompts_of(seed=4)]


def test_all_kinds_lengths_and_depths_come_in_turn():
    settings = [(p.kind, p.length, p.depth) for p in prompts_of()]
    assert len(set(settings)) == 24


def test_no_prompt_is_longer_than_asked_nor_shorter_by_more_than_a_sentence():
    longest = max(words(sentence) for text in TEXTS for sentence in sentences_of(text))
    for prompt in prompts_of():
        assert prompt.length - longest <= words(prompt.text) <= prompt.length


@pytest.mark.parametrize("kind", ["passkey", "needles", "copy"])
def test_what_is_asked_for_stands_at_its_depth(kind):
    for prompt in prompts_of(kinds=(kind,), count=6):
        place = prompt.place
        assert place is not None
        body = prompt.text.index("\n\n")
        assert place[0] < body
        share = prompt.text[:body].count(". ", 0, place[0]) / prompt.text[:body].count(". ")
        assert share == pytest.approx(prompt.depth, abs=0.2)


def test_of_several_codes_the_question_names_the_right_one():
    for prompt in prompts_of(kinds=("needles",)):
        name = re.search(r"What is the code of (.*)\?", prompt.text)[1]
        codes = dict(re.findall(r"The code of ([a-z ]+) is the number (\d+)\.", prompt.text))
        assert len(codes) == 4
        assert codes[name] == prompt.answer.strip()


def test_a_second_question_asks_for_another_code_of_the_same_text():
    for prompt in prompts_of(kinds=("second",)):
        codes = dict(re.findall(r"The code of ([a-z ]+) is the number (\d+)\.", prompt.text))
        asked = re.search(r"What is the code of (.*)\?", prompt.question2)[1]
        assert codes[asked] == prompt.answer2.strip() != prompt.answer.strip()


def test_sentences_of_other_texts_are_in_no_prompt():
    prompts = generate_prompts(
        filler_of(TEXTS[:1], words), words, kinds=("passkey",), lengths=(200,), depths=(0.5,),
        count=5, seed=0,
    )  # fmt: skip
    assert all("of text 0" in p.text and "of text 1" not in p.text for p in prompts)


def test_texts_that_are_too_short_are_repeated_and_that_is_said():
    with opened() as account:
        prompts = prompts_of(lengths=(4000,), count=1)
    assert words(prompts[0].text) > 3900
    assert "repeated" in " ".join(account.lines())


def test_a_length_without_room_for_the_question_is_refused():
    with pytest.raises(InputError, match="--lengths 10: is too short; the question alone has"):
        prompts_of(lengths=(10,))


def test_a_long_text_is_cut_at_sentences():
    pieces = pieces_of(TEXTS[0], 500)
    assert len(pieces) > 3
    assert all(piece.endswith(".") for piece in pieces)
    assert " ".join(pieces) == " ".join(TEXTS[0].split())


def test_a_text_without_an_end_of_a_sentence_is_cut_into_lines():
    assert max(map(len, sentences_of("word " * 1000))) <= 400
