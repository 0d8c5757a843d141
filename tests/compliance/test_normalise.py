"""Folding keeps its map: every folded character knows which original one it stems from."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance import normalise
from compliance.normalise import fold

ODD = "４Ａ－\u200b\u202e٤๓—\u00a0\u3000ﬁ㎏①ﷺаеΑx1\u0301\u20e3\ud800é𝟙𝐀"


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(ODD)), max_size=60))
@settings(max_examples=300)
def test_spans_lead_back_to_characters_that_fold_to_the_same(text):
    folded = fold(text)
    if folded.origins is not None:
        assert len(folded.origins) == len(folded.text)
        assert list(folded.origins) == sorted(folded.origins)
    folded.text.encode()
    for i in range(len(folded.text)):
        start, end = folded.span(i, i + 1)
        assert 0 <= start < end <= len(text)
        assert end == start + 1


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
@settings(max_examples=50)
def test_ascii_is_left_alone(text):
    assert fold(text) == normalise.Folded(text, None, len(text))


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("４１１１－１", "4111-1"),
        ("te\u200bst\u202e", "test"),
        ("٤١١", "411"),
        ("5–5—5−5", "5-5-5-5"),
        ("a\u00a0b\u3000c", "a b c"),
        ("pаypаl", "paypal"),
        ("привет", "привет"),
        ("张伟", "张伟"),
        ("4\u03361", "41"),
        ("e\u0301", "e"),
        ("张\u0301", "张\u0301"),
        ("①❶⁴Ⅳⅸ٤", "114494"),
        ("4\ufe0f\u20e31", "41"),
        ("1\u034f2\u31643\u2800", "123 "),
        ("🅐🄱x", "ABx"),
        ("𝓪𝖽𝚊1", "ada1"),
        ("ꓮᎠᴀx", "ADAx"),
        ("x\ud800y", "x\ufffdy"),
    ],
)
def test_what_folds_to_what(text, folded):
    assert fold(text).text == folded


def test_spans_skip_what_vanished():
    folded = fold("a\u200b1\u200b2b")

    assert folded.span(1, 3) == (2, 5)


def test_the_table_is_bounded():
    for first in range(0x3400, 0x3400 + 3 * normalise.TABLE_MAX, 1000):
        fold("".join(map(chr, range(first, first + 1000))))

    assert len(normalise._table) <= normalise.TABLE_MAX


def test_every_decimal_digit_folds_to_ascii():
    digits = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) == "Nd"]

    assert {fold(d).text for d in digits} == set("0123456789")
