"""Tokens are found whatever a model made of them, in streams as in whole texts, not guessed."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compliance.findings import TYPES
from meshkit.tokens import (
    HOLD_MAX,
    ID_ALPHABET,
    ID_CHARS,
    ID_CHARS_LONG,
    KNOWN_TYPES,
    TokenHold,
    find_tokens,
    has_digit_run,
    is_name,
    parts_of,
    restored,
    token_of,
    type_of,
)

NAME = "PERSON_7K3F9Q2MBX"


def ids(size=ID_CHARS):
    drawn = st.text(ID_ALPHABET, min_size=size, max_size=size)
    return drawn.filter(lambda id_: not has_digit_run(id_))


names = st.builds("{}_{}".format, st.sampled_from(sorted(KNOWN_TYPES)), ids() | ids(ID_CHARS_LONG))
values = st.text(min_size=1, max_size=12)


def spaced(name):
    """Put blanks or dashes between the characters of a short id."""
    type_, _, id_ = name.rpartition("_")
    return f"{type_}_{id_[:4]} {id_[4:]}" if len(id_) == ID_CHARS else name


def full_width(name):
    return "".join(chr(ord(c) + 0xFEE0) for c in name)


EDITS = {
    "as it was given": token_of,
    "without brackets": str,
    "in lower case": str.lower,
    "in title case": str.title,
    "with a dash": lambda name: token_of(name.replace("_", "-")),
    "with blanks": lambda name: name.replace("_", " "),
    "escaped for markdown": lambda name: name.replace("_", "\\_"),
    "with blanks inside": lambda name: f"[ {name} ]",
    "in angle brackets": "<{}>".format,
    "in HTML": "&lt;{}&gt;".format,
    "in two brackets": "[[{}]]".format,
    "in Chinese brackets": "【{}】".format,
    "in other Chinese brackets": "《{}》".format,
    "in full width": lambda name: f"［{full_width(name)}］",
    "spaced out": spaced,
}
KEPT = {
    "in quotes": ('"{}"', '"'),
    "in Chinese quotes": ("“{}”", "“"),
    "in backticks": ("`{}`", "`"),
    "in bold": ("**{}**", "**"),
    "in italics": ("_{}_", "_"),
    "in round brackets": ("({})", "("),
}
AROUND = {
    "possessive": ("{}'s dog", "'s dog"),
    "plural": ("all {}s came", "s came"),
    "full stop": ("It is {}.", "."),
    "Chinese": ("患者{}说", "说"),
    "comma": ("{}, please", ", please"),
}


def put_back(text, known):
    return restored(parts_of(text, find_tokens(text)), known)


@given(names, st.sampled_from(sorted(EDITS)), st.sampled_from(sorted(AROUND)), values)
def test_a_token_survives_a_models_edits(name, edit, around, value):
    text = AROUND[around][0].format(EDITS[edit](name))

    assert put_back(text, {name: value}) == AROUND[around][0].format(value)


@given(names, st.sampled_from(sorted(KEPT)), values)
def test_quotes_and_emphasis_stay_around_the_value(name, kept, value):
    text = KEPT[kept][0]

    assert put_back(text.format(name), {name: value}) == text.format(value)
    assert put_back(text.format(token_of(name)), {name: value}) == text.format(value)


@given(st.lists(st.tuples(names, values), max_size=5), st.data())
def test_what_was_tokenised_is_restored(pairs, data):
    known = dict(pairs)
    words = st.text("abc ,.患者\n", max_size=8)
    parts = [(data.draw(words), name) for name in known]
    text = "".join(f"{word} {token_of(name)}" for word, name in parts)

    assert put_back(text, known) == "".join(f"{word} {known[name]}" for word, name in parts)


@given(names, st.integers(0, ID_CHARS - 1), st.sampled_from(ID_ALPHABET))
def test_another_id_is_another_token(name, at, character):
    type_, id_ = type_of(name), name.rpartition("_")[2]
    other = f"{type_}_{id_[:at]}{character}{id_[at + 1 :]}"
    if other != name:
        assert put_back(token_of(other), {name: "Ada"}) == token_of(other)


@pytest.mark.parametrize(
    "text",
    [
        "xPERSON_7K3F9Q2MBX",
        "PERSON_7K3F9Q2MBXY",
        "PERSON_7K3F9Q2MB",
        "EMAIL_7K3F9Q2MBX",
        "PERSON__ 7K3F9Q2MBX  ",
        "PERSON 7K3F9Q2MBI",
        "[PERSON_2345678923]",
        "call person 234 567 8923",
        "the person management",
    ],
)
def test_what_is_no_token_of_ours_stays(text):
    shown = put_back(text, {NAME: "Ada"})

    assert shown == (text if "__ " not in text else "Ada  ")


def test_no_number_passes_for_a_token():
    assert not is_name("PHONE_2345678923")
    assert is_name("PHONE_234B678C23")
    assert find_tokens("[PHONE_2345678923] phone 2345678923") == []


def test_a_type_that_nobody_knew_is_found_as_it_was_given():
    assert put_back("[BADGE_7K3F9Q2MBX]", {"BADGE_7K3F9Q2MBX": "B-1"}) == "B-1"
    assert find_tokens("badge 7k3f9q2mbx") == []
    (found,) = find_tokens("badge 7k3f9q2mbx", frozenset({"BADGE"}))
    assert found.name == "BADGE_7K3F9Q2MBX"


def test_every_type_of_compliance_is_known():
    assert TYPES <= KNOWN_TYPES


TOKENISH = st.one_of(
    names.map(token_of),
    names,
    names.map(str.lower),
    names.map(lambda name: name.replace("_", " ")),
    names.map(lambda name: f"&lt;{name}&gt; "),
    names.map(lambda name: f"【 {name} 】"),
    names.map(spaced),
    names.map(full_width),
    names.map(lambda name: token_of("X" + name)),
    names.map(lambda name: name[:-3]),
    st.sampled_from(["[", "]", "<", "&lt;", " ", "s", "_", "person", "CREDIT", "phone ", "[X_"]),
    st.text("[]<>&lt;PERSON_ phone7K3患", max_size=12),
    st.text(max_size=6),
)


def chunked(text, sizes):
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
    yield text[at:]


@settings(max_examples=150, deadline=None)
@given(st.lists(TOKENISH, max_size=8), st.lists(st.integers(0, 9), max_size=60))
@example(["PERSON_7K3F9Q2MBX", "s", "s"], [17, 1])
@example(["[PERSON_7K3F9Q2MBX", "]", "]"], [18])
@example(["PERSON_7K3F9Q2MBX", "7K3F9Q"], [17, 3])
@example(["&lt;EMAIL_222B222B22&gt; "], [3, 9, 9])
@example(["【 PERSON_7K3F9Q2MBX", " 】"], [19, 1])
def test_a_stream_is_restored_as_the_whole_text(pieces, sizes):
    text = "".join(pieces)
    known = {token.name: f"({token.start})" for token in find_tokens(text)}
    hold = TokenHold()
    parts = [part for chunk in chunked(text, sizes) for part in hold.feed(chunk)]
    parts += hold.close()

    assert restored(parts, known) == put_back(text, known)
    assert "".join(part.text for part in parts) == text


@settings(max_examples=60, deadline=None)
@given(names, st.text("ab c.", max_size=30), st.integers(1, 7))
def test_no_half_token_ever_leaves(name, around, size):
    text = f"{around} {token_of(name)} {around}"
    hold, left = TokenHold(), ""
    for at in range(0, len(text), size):
        left += restored(hold.feed(text[at : at + size]), {name: "Ada"})
        assert name[: len(type_of(name)) + 2] not in left
        assert not re.search(r"\[[A-Z]*$", left)
    assert left + restored(hold.close(), {name: "Ada"}) == f"{around} Ada {around}"


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENISH, max_size=30))
def test_what_is_held_is_bounded(pieces):
    hold, out = TokenHold(), 0
    for fed, character in enumerate("".join(pieces), 1):
        out += sum(len(part.text) for part in hold.feed(character))
        assert fed - out <= HOLD_MAX


def test_prose_is_not_held():
    hold = TokenHold()

    assert "".join(part.text for part in hold.feed("A word, another one: and so on.")) == (
        "A word, another one: and so on."
    )
