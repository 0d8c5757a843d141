"""Guesses: what followed the same words before, never more than asked for, ever fewer if wrong."""

from hypothesis import given
from hypothesis import strategies as st

from inference.speculation import Guesser

KNOWN = 3
texts = st.lists(st.integers(0, 3), max_size=60)


@given(texts, texts, st.integers(0, 8))
def test_a_guess_is_what_followed_the_same_tokens_most_lately(prompt, answer, limit) -> None:
    guesser = Guesser(prompt)
    guesser.guess(limit)
    for token in answer:
        guesser.add(token)
    guessed = list(guesser.guess(limit))

    text = prompt + answer
    tail = text[-KNOWN:]
    places = [n for n in range(KNOWN, len(text)) if text[n - KNOWN : n] == tail]
    want = []
    if places and len(text) > KNOWN:
        period = len(text) - places[-1]
        going_on = text + [0] * 20
        for n in range(len(text), len(going_on)):
            going_on[n] = going_on[n - period]
        want = going_on[len(text) : len(text) + limit]
    assert guessed == want


def test_wrong_guesses_become_rare_and_a_right_one_makes_up_for_them() -> None:
    guesser = Guesser([1, 2, 3, 4, 1, 2, 3])
    made = []
    for _ in range(40):
        guess = guesser.guess(2)
        made.append(bool(guess))
        if guess:
            guesser.told(0)

    assert [n for n, any_made in enumerate(made) if any_made] == [0, 2, 5, 10, 19, 36]
    guesser.told(2)
    guesser.told(0)
    for _ in range(40):
        guesser.guess(2)
    assert guesser.guess(2) == (4, 1)
