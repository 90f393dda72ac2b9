"""Sentences of several scripts, with exact places."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.data.texts.sentences import sentences_of, split_sentences

CASES = {
    "titles and numbers": 'Dr. Wu paid 3.5 million. | "Why?" she asked. | No. 5 won.',
    "initials": "J. R. R. Tolkien wrote it. | George W. Bush read it. | It sold.",
    "acronyms": "She was in the U.S. | The law changed. | The U.S. Senate met at 5 p.m. | It.",
    "companies": "Apple Inc. Europe grew. | They bought Acme Corp. | The price fell.",
    "quotes": "He said “Go.” | Then he left. | 'No!' he cried. | (She stayed.) | End.",
    "dots": "Wait... what? | Yes… | Then he left. | See a.b/c.d?x=1. | Ok!?",
    "lists": "1. First item. | 2. Second item.",
    "German": "Am 3. Oktober kam z. B. Frau Dr. Lang. | Er ging um 5 Uhr. | „Ja.“ | Gut.",
    "French": "C’est M. Dupont. | « Bien ! » | Il part.",
    "Spanish": "¿Qué pasa? | ¡Nada! | La Sra. García salió.",
    "Russian": "Это т.е. тест. | Он ушёл 5 мая. | Всё.",
    "Chinese": "今天下雨。|我们走吧！|“好。”|他说。",
    "Japanese": "彼は「行く。」と言った。|雨が降った！|「本当？」|彼女は笑った。",
    "Hindi": "यह एक है। | यह दो है।",
    "Arabic": "هل أنت هنا؟ | نعم. | أنا هنا.",
    "Amharic": "ሰላም ነው።|ደህና።",
}


@pytest.mark.parametrize("name", CASES)
def test_sentences_of_many_scripts(name: str) -> None:
    expected = [part.strip() for part in CASES[name].split("|")]
    text = CASES[name].replace("|", "")
    assert sentences_of(text) == expected


def test_paragraphs_and_bullets_end_a_sentence_in_any_script() -> None:
    text = "A title\n\nLine one\ngoes on. Next\n- first\n- second\n\nไม่มีจุด\n\nจบ"
    assert sentences_of(text) == [
        "A title", "Line one\ngoes on.", "Next", "- first", "- second", "ไม่มีจุด", "จบ",
    ]  # fmt: skip


def test_a_quotation_that_is_never_closed_does_not_swallow_the_rest() -> None:
    assert len(sentences_of("「雨が降った。風が吹いた。彼は帰った。")) == 3


@given(st.text("aB1 .!?。」「\"'“”()\n-\u2029न।é", max_size=80))
@settings(max_examples=200, deadline=None)
def test_every_character_but_white_space_is_in_exactly_one_sentence(text: str) -> None:
    place = 0
    for start, end in split_sentences(text):
        assert place <= start < end
        assert not text[place:start].strip()
        assert text[start:end] == text[start:end].strip()
        place = end
    assert not text[place:].strip()


@pytest.mark.parametrize(
    "text", ["a.", "No. ", "é「a。」", "1. ", ". ", "\n ", "A title\n\n", "a"], ids=repr
)
def test_a_long_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    started = time.process_time()
    split_sentences(text * (200_000 // len(text)))
    assert time.process_time() - started < 2
