"""Decoders: what they read, what they leave alone, and that offsets lead back to the whole run."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance import decode
from compliance.disguises import FAMILIES, NESTING, readings
from compliance.findings import resolve
from compliance.normalise import Piece, fold, rewrite
from compliance.respell import respelled

MAIL = "ada@example.org"
CARD = "4111 1111 1111 1111"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def hits(engine, text, kind):
    return [text[f.start : f.end] for f in resolve(engine.find(text, 0)) if f.type == kind]


@pytest.mark.parametrize(
    "run",
    [
        b64(MAIL),
        b64(MAIL + "~~~??>>"),
        base64.urlsafe_b64encode((MAIL + "~~~??>>").encode()).decode(),
        b64(MAIL + "!").rstrip("="),
        MAIL.encode().hex(),
        MAIL.encode().hex().upper(),
        MAIL.encode().hex(" "),
        MAIL.encode().hex(":"),
        " ".join(f"0x{byte:02x}" for byte in MAIL.encode()),
    ],
)
def test_a_run_is_decoded_and_marked_whole(run, engine):
    assert hits(engine, f"see {run} there", "EMAIL") == [run]
    assert hits(engine, f"看{run}吧", "EMAIL") == [run]


@pytest.mark.parametrize(
    ("value", "recognizer"),
    [
        ("ada%40example.org", "email+percent"),
        ("ada&commat;example.org", "email+entities"),
        ("&#97;da&#x40;example.org", "email+entities"),
        ("ada\\u0040example.org", "email+escapes"),
        ("ada\\x40ex\\u{61}mple.org", "email+escapes"),
        ("ada=40exam=\nple.org", "email+quoted"),
        (b64(MAIL), "email+base64"),
        (MAIL.encode().hex(), "email+hex"),
        (b64("ada%40example.org"), "email+percent"),
        (b64("ada at example dot org"), "email+address"),
    ],
)
def test_the_recognizer_tells_how_a_value_was_written(value, recognizer, engine):
    (finding,) = [f for f in resolve(engine.find(f"to {value} now", 0)) if f.type == "EMAIL"]

    assert (finding.start, finding.end) == (3, 3 + len(value))
    assert finding.recognizer == recognizer


def test_one_level_within_another_is_read_and_no_more(engine):
    assert NESTING == 2
    assert hits(engine, b64(f"here: {b64(MAIL)}"), "EMAIL")
    assert not hits(engine, b64(f"here: {b64(f'and here: {b64(MAIL)}')}"), "EMAIL")


@pytest.mark.parametrize(
    "text",
    [
        "internationalization of responsibilities",
        "src/compliance/recognizers/Generic2.py",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "550e8400-e29b-41d4-a716-446655440000",
        "\\uD800\\uDBFF and \\U00110000",
        "%ff%fe%c3%28",
        "100%25",
    ],
)
def test_what_is_no_text_is_left_alone(text, engine):
    assert hits(engine, text, "EMAIL") == []
    fold(text).text.encode()


@given(
    st.text(alphabet=st.sampled_from("aZ09+/=_-% &#x;\\u{}.,:@\n点一〇dot at*`<b>!"), max_size=90)
)
@settings(max_examples=150, deadline=None)
def test_every_reading_leads_back_into_the_text(text):
    base = fold(text)
    for reading in readings(base, set(FAMILIES)):
        folded = reading.folded
        assert len(folded.text) == len(folded.origins) == len(folded.ends)
        folded.text.encode()
        for at in range(len(folded.text)):
            start, end = folded.span(at, at + 1)
            assert 0 <= start < end <= len(text)
        assert list(folded.origins) == sorted(folded.origins)
        assert list(folded.ends) == sorted(folded.ends)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_decoder_raises_on_any_text(text):
    folded = fold(text).text
    for find in (decode.encoded, decode.escaped, decode.quoted):
        for piece in find(folded):
            assert 0 <= piece.start < piece.end <= len(folded)
    for solid in (False, True):
        for piece in respelled(folded, FAMILIES, solid=solid):
            assert 0 <= piece.start < piece.end <= len(folded)


def test_a_rewritten_piece_is_touched_from_both_sides_only():
    folded = rewrite(fold("12-34"), [Piece(2, 3, "", "split")])

    assert folded.text == "1234"
    assert folded.span(0, 4) == (0, 5)
    assert folded.rule(1, 3) == "split"
    assert folded.rule(0, 2) == folded.rule(2, 4) == ""


def test_pieces_that_overlap_are_taken_in_order():
    folded = rewrite(fold("abcdef"), [Piece(2, 5, "X", "b"), Piece(0, 3, "YZ", "a")])

    assert folded.text == "YZdef"
    assert folded.span(0, 1) == (0, 3)
    assert rewrite(fold("abc"), []) is None
