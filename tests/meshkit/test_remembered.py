"""What is read again and again is remembered; what is large, or could not be read, is not."""

import pytest

from meshkit.remembered import remembered


def reading():
    read = []

    @remembered
    def number(whose: str, text: bytes) -> int:
        read.append((whose, text))
        return int(text)

    return number, read


def test_small_values_are_read_once_for_each_who():
    number, read = reading()
    assert [number("a", b"1"), number("a", b"1"), number("b", b"1"), number("a", b"2")] == [
        1,
        1,
        1,
        2,
    ]
    assert read == [("a", b"1"), ("b", b"1"), ("a", b"2")]


def test_large_values_are_not_kept():
    number, read = reading()
    large = b"0" * 2_000 + b"7"
    assert [number("a", large), number("a", large)] == [7, 7]
    assert len(read) == 2


def test_a_failure_is_not_remembered():
    number, read = reading()
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid"):
            number("a", b"x")
    assert len(read) == 2
