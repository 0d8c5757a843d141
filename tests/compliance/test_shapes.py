"""Runs of digits: a shape hides no match; several windows together; a card beside a number."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance.engine import Engine
from compliance.findings import resolve
from compliance.recognizers import ALL
from compliance.shapes import SHAPE_MAX, SHAPES_MAX, Shapes, widened

SLOW_OK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
NUMBERS = [each for each in ALL if each.digits is not None]
VALUES = st.sampled_from([each.name for each in NUMBERS])
ODD = st.text("0123456789 -./()+Xxaé号", min_size=1, max_size=24)


@pytest.fixture(scope="module")
def exhaustive():
    """The same recognizers without a prefilter, and without shapes."""
    return Engine(ALL)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_OK)
def test_no_shape_hides_what_a_pattern_finds(data, engine, exhaustive, examples):
    values = VALUES.map(lambda name: examples[name][1])
    # Other digits in the same places: patterns that want certain ones must still be asked.
    others = st.tuples(values, st.randoms(use_true_random=False)).map(
        lambda pair: re.sub(r"[0-9]", lambda _: str(pair[1].randrange(10)), pair[0])
    )
    between = st.sampled_from(["", " ", "  ", "-", "/", ", ", "(", " exp ", "+", "\n", "号"])
    part = st.one_of(values, others, ODD)
    text = "".join(f"{data.draw(between)}{data.draw(part)}" for _ in range(4))

    assert engine.find(text, 0) == exhaustive.find(text, 0)


@pytest.mark.parametrize("each", NUMBERS, ids=lambda each: each.name)
def test_each_pattern_takes_the_shape_of_its_own_example(each, examples):
    value = examples[each.name][1]
    shape = value[:2] + re.sub(r"[0-9]", "\x01", value[2:])
    around = f"{shape} 12/27", f"12/27 {shape}", shape

    assert any(re.search(widened(each.pattern), text, each.flags) for text in around)


@pytest.mark.parametrize(
    ("pattern", "shape", "takes"),
    [
        ("62[0-9]{3}", "62\x01\x01\x01", True),
        ("62[0-9]{3}", "63\x01\x01\x01", False),
        ("[0-9]{2}[5-7]", "11\x01", True),
        ("[0-9]{2}[^5]", "11\x01", True),
        ("[0-9]{2}[^0-9]", "11\x01", False),
        (r"[0-9]{2}\d", "11\x01", True),
        (r"([0-9])-\1", "1-\x01", True),
        ("(?!11)[0-9]{3}", "12\x01", True),
        ("^[0-9]{2}(?![0-9])", "12\x01", False),
        ("[0-9]{2}(?!7)[0-9]", "12\x01", True),
        ("[0-9]{2}(?=7)[0-9]", "12\x01", True),
        (r"(?<![0-9][.\-])[0-9]{2}$", "\x01.12", False),
        ("(?:19|20)[0-9]{2}", "19\x01\x01", True),
    ],
)
def test_a_widened_pattern_takes_any_digit_where_it_wanted_some(pattern, shape, takes):
    assert (re.search(widened(pattern), shape) is not None) is takes


def fitting(shapes, text):
    return shapes.fitting(text, 0, (0, len(text)), len(text))


def test_shapes_are_worked_out_once_and_not_kept_without_end():
    shapes = Shapes(NUMBERS)
    first = fitting(shapes, "4111 1111 1111 1111")
    # Different digits, the same shape.
    assert fitting(shapes, "4129 0000 1234 5678") is first
    assert "credit_card" in {each.name for each in first}
    assert "us_ssn" not in {each.name for each in first}
    for number in range(SHAPES_MAX + 10):
        fitting(shapes, f"12345678{number:b}".replace("1", "1-").replace("0", "0 "))

    assert len(shapes._known) <= SHAPES_MAX


def test_a_table_of_figures_is_asked_of_all_that_its_length_allows():
    shapes = Shapes(NUMBERS)
    row = "17 204 3311 " * SHAPE_MAX

    assert set(fitting(shapes, row)) == set(NUMBERS)
    assert shapes._known == {}


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW_OK)
def test_windows_together_find_what_each_finds_alone(data, engine, examples):
    planted = st.sampled_from([text for text, _ in examples.values()])
    texts = data.draw(st.lists(st.one_of(planted, st.text(max_size=30)), max_size=6))
    windows = [(text, data.draw(st.integers(0, len(text)))) for text in texts]

    assert engine.find_all(windows) == [engine.find(*window) for window in windows]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111 12/27",
        "4111111111111111 exp 12/27 cvv 123",
        "4111111111111111 12/27",
        "4111-1111-1111-1111 12/27 123",
        "4111 1111 1111 1111 12 27",
        "4111 1111 1111 1111 123",
        "4111.1111.1111.1111 12/2027",
        "12/27 4111 1111 1111 1111",
        "card 4111 1111 1111 1111 12-27",
        "no 17 4111 1111 1111 1111",
        "378282246310005 12/27",
        "3782 822463 10005 12/2027 1234",
    ],
)
def test_a_card_is_found_beside_its_expiry_or_code(text, engine):
    found = resolve([each for each in engine.find(text, 0) if each.score >= 0.9])

    assert [each.type for each in found] == ["CREDIT_CARD"]
    assert text[found[0].start : found[0].end].replace(" ", "").strip("0123456789-.") == ""
    assert sum(map(text[found[0].start : found[0].end].count, "0123456789")) in {15, 16}


@pytest.mark.parametrize(
    ("text", "subtype"),
    [("phone 212-555-0143", "US"), ("phone 532 123 45 67", "TR_PHONE")],
)
def test_a_phone_number_is_named_by_the_form_that_fits_best(text, subtype, engine):
    (found,) = resolve([each for each in engine.find(text, 0) if each.score >= 0.5])

    assert (found.type, found.subtype) == ("PHONE", subtype)
