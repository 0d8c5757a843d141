"""Kept beginnings: cut alike, never met under another salt, never more than there is room for."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.prefix import Prefixes, cuts, keys_of

START, END, NEWLINE = 1, 2, 9
CONTROLS = {0, START, END}
OPENING = [START, 13, NEWLINE]
LEAST, CHUNK = 8, 32


def turn(who: int, words: list[int]) -> list[int]:
    return [START, who, NEWLINE, *words, END, NEWLINE]


words = st.lists(st.integers(10, 40), max_size=80)
conversations = st.lists(words, min_size=2, max_size=6)


def prompt_of(turns: list[list[int]]) -> list[int]:
    """System, user, assistant, user, … and the question put to the model."""
    texts = [turn(who % 3 + 10, text) for who, text in enumerate(turns)]
    texts[2::2] = [[*OPENING, *text[3:]] for text in texts[2::2]]
    return [token for text in texts for token in text] + OPENING


def cut(prompt: list[int]) -> tuple[int, ...]:
    return cuts(prompt, controls=CONTROLS, chunk_tokens=CHUNK, least_tokens=LEAST)


@given(conversations)
def test_chunks_are_neither_too_long_nor_needlessly_short(turns) -> None:
    prompt = prompt_of(turns)
    ends = (0, *cut(prompt))
    sizes = [stop - start for start, stop in itertools.pairwise(ends)]

    assert all(LEAST <= size <= CHUNK for size in sizes)
    assert len(prompt) - ends[-1] < CHUNK


@given(conversations, words, words)
def test_the_next_turn_of_a_conversation_begins_with_all_chunks_of_the_last(
    turns, answer, question
) -> None:
    before = prompt_of(turns[:2])
    after = prompt_of([*turns[:2], answer, question])

    assert after[: len(before)] == before
    assert [stop for stop in cut(after) if stop <= len(before)] == list(cut(before))


def test_a_shared_system_message_is_a_chunk_of_its_own() -> None:
    system = list(range(10, 35))
    one, other = prompt_of([system, [11] * 20]), prompt_of([system, [12] * 50])
    keys = [keys_of(b"s", prompt, cut(prompt)) for prompt in (one, other)]

    assert cut(one)[0] == cut(other)[0] == len(turn(10, system))
    assert keys[0][0] == keys[1][0]
    assert not set(keys[0][1:]) & set(keys[1])


@given(words, words, st.binary(min_size=1, max_size=8), st.binary(min_size=1, max_size=8))
def test_no_two_salts_share_a_key(one, other, salt, another) -> None:
    """Whatever they ask: what one tenant computed is not even found by the next."""
    found = set(keys_of(salt, one, range(1, len(one) + 1)))
    theirs = set(keys_of(another, other, range(1, len(other) + 1)))
    alike = next((n for n, pair in enumerate(zip(one, other, strict=False)) if len({*pair}) > 1),
                 min(len(one), len(other)))  # fmt: skip

    assert len(found & theirs) == (alike if salt == another else 0)
    assert keys_of(b"", one, (1,)) == ()


@given(words.filter(lambda text: len(text) > 4), st.data())
def test_chunks_cut_elsewhere_are_other_chunks(text, data) -> None:
    """Their bits may differ: another call of another size computed them."""
    stops = st.sets(st.integers(1, len(text)), min_size=1, max_size=4).map(sorted)
    one, other = data.draw(stops), data.draw(stops)
    alike = [first == second for first, second in zip(one, other, strict=False)]
    shared = alike.index(False) if False in alike else len(alike)

    found = set(keys_of(b"s", text, one)) & set(keys_of(b"s", text, other))
    assert len(found) == shared


texts = st.text("abcd", min_size=1, max_size=3)


class Told:
    """What is kept, as one would note it down: (text, size), the one used last at the end."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.notes: list[tuple[str, int]] = []

    def find(self, text: str) -> list[str]:
        kept = dict(self.notes)
        found = []
        for end in range(1, len(text) + 1):
            if text[:end] not in kept:
                break
            found.append(text[:end])
        self.use(found)
        return found

    def use(self, texts) -> None:
        for text in reversed(texts):
            note = (text, dict(self.notes)[text])
            self.notes.remove(note)
            self.notes.append(note)


@settings(max_examples=150)
@given(
    st.integers(5, 30),
    st.lists(st.tuples(st.booleans(), texts, st.integers(1, 12)), min_size=10, max_size=50),
)
def test_the_oldest_goes_first_and_the_room_is_never_exceeded(room, steps) -> None:
    """Against notes of who was used when; no chunk is ever left behind the one it needs."""
    kept: Prefixes[str] = Prefixes(room)
    told = Told(room)
    for finds, text, size in steps:
        keys = [text[:end].encode() for end in range(1, len(text) + 1)]
        if finds:
            assert list(kept.find(keys)) == told.find(text)
        elif kept.makes_room(keys, size):
            kept.put(keys, text, size)
            before = told.find(text[:-1])
            while sum(each for _, each in told.notes) + size > room:
                assert told.notes.pop(0)[0] not in before
            told.notes.append((text, size))
            told.use([*before, text])
        else:
            known = dict(told.notes)
            parents = [text[:end] for end in range(1, len(text))]
            room_of = [known.get(each) for each in parents]
            assert text in known or None in room_of or sum(room_of) + size > room
            if None not in room_of and text not in known:
                told.use(parents)
        assert kept.size == sum(each for _, each in told.notes) <= room
        names = {each for each, _ in told.notes}
        assert all(each[:-1] in names for each in names if len(each) > 1)
        assert len(kept) == len(names)
    kept.clear()
    assert (kept.size, len(kept)) == (0, 0)
