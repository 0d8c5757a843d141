import re

import pytest

from bench.workload import DISTINCT, TEXT_CHARS, answer, prompt, tokens

CARD = re.compile(r"\d{4} \d{4} \d{4} \d{4}")
PERSON = re.compile(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b")


def luhn_holds(digits: str) -> bool:
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


@pytest.mark.parametrize("number", range(DISTINCT))
def test_a_prompt_has_its_length_and_its_two_findings(number):
    text = prompt(number)
    assert len(text) == TEXT_CHARS
    assert text.isascii()
    assert len(PERSON.findall(text)) == 1
    (card,) = CARD.findall(text)
    assert luhn_holds(card.replace(" ", ""))


def test_an_answer_has_its_length_and_names_somebody():
    for number in range(DISTINCT):
        text = answer(number)
        assert len(text) == TEXT_CHARS
        assert len(PERSON.findall(text)) == 1
        assert not CARD.search(text)


@pytest.mark.parametrize("text_of", [prompt, answer])
def test_texts_are_distinct_in_every_sentence_and_the_same_each_time(text_of):
    texts = [text_of(number) for number in range(200)]
    assert texts == [text_of(number) for number in range(200)]
    whole_sentences = [s for text in texts for s in text.split(". ")[:-1]]
    assert len(set(whole_sentences)) > 0.99 * len(whole_sentences)


def test_tokens_put_together_are_the_text():
    assert "".join(tokens(answer(1))) == answer(1)
    assert {len(token) for token in tokens(answer(1))} == {4}
